"""A few cheap jobs, a worker that does them in a forked process, and the promise as a check."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.jobs import Graph, Job
from harness.store import Store, StoreError
from harness.worker.attempt import Stop, run_attempt
from tests.faults.injection import Injection, injected
from tests.harness.dispatch import kinds  # noqa: F401 - registers the kinds

ALL_DONE, SOME_LEFT, REFUSED = 0, 1, 3


def graph(steps: int = 3, pause: float = 0.0) -> Graph:
    """A resumable job, one that continues it, two quick ones on each."""
    first = Job("count", {"steps": steps, "pause": pause}, slug="first")
    second = Job("count", {"steps": steps, "pause": pause, "i": 1}, {"x": first}, "second")
    return Graph([Job("digest", {"i": i}, {"x": parent}, f"last{i}") for parent in (first, second) for i in range(2)])


def work(root: Path, jobs: Graph) -> int:
    """Every job in turn, as a worker does them."""
    store = Store(root)
    try:
        store.ensure_all(jobs)
        for job in jobs:
            if store.is_done(job) or not all(map(store.is_done, job.parents)):
                continue
            attempt, record = store.begin_attempt(job), store.record(job.key, job.kind)
            run_attempt(store, record, attempt, resources={}, kept={}, stop=Stop(), provenance={"code": {}, "versions": {}})
    except StoreError as error:
        print(error, file=sys.stderr)
        return REFUSED
    return ALL_DONE if all(map(Store(root).is_done, jobs)) else SOME_LEFT


def forked(action: Callable[[], int]) -> int:
    """The action's process id, in a process of its own that says nothing; it ends with what the action returns."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = action()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Its exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def disturbed(root: Path, jobs: Graph, injection: Injection) -> int:
    """A worker with one fault; how it ended."""

    def action() -> int:
        with injected(injection):
            return work(root, jobs)

    return ended(forked(action))


def steps_of(root: Path, jobs: Graph) -> list[str]:
    """Every step of an undisturbed worker that writes."""
    note = root.with_suffix(".steps")

    def action() -> int:
        with injected(Injection(0, lambda: None)) as seen:
            code = work(root, jobs)
        note.write_text(json.dumps(seen.steps))
        return code

    assert ended(forked(action)) == ALL_DONE
    return json.loads(note.read_text())


def results(root: Path, jobs: Graph) -> dict[str, str]:
    """What the finished jobs computed, by key. Raises StoreError for a damaged one."""
    store = Store(root)
    return {job.key: (store.outputs(job) / "result.json").read_text() for job in jobs if store.is_done(job)}


@dataclass
class Tally:
    """One kind of fault. ways: what happened → how often. broken: where the promise was not kept, in words."""

    name: str
    tried: int = 0
    ways: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def count(self, way: str) -> None:
        self.tried += 1
        self.ways[way] = self.ways.get(way, 0) + 1

    def done(self) -> Tally:
        self.seconds = time.monotonic() - self.began
        return self


class Promise:
    """Holds a store to the results of an undisturbed run."""

    def __init__(self, folder: Path, jobs: Graph) -> None:
        self.jobs = jobs
        self.steps = steps_of(folder / "undisturbed", jobs)
        self.expected = results(folder / "undisturbed", jobs)

    def check(self, tally: Tally, root: Path, what: str) -> None:
        """After a fault: what is finished stays, and one more undisturbed worker brings the rest to the same results."""
        store = Store(root)
        before = {job.key: (store.done(job) or {}).get("attempt") for job in self.jobs if store.is_done(job)}
        code = ended(forked(lambda: work(root, self.jobs)))
        if code != ALL_DONE:
            tally.broken.append(f"{what}: the next worker ended with {code}")
            return
        store = Store(root)
        after = {job.key: (store.done(job) or {}).get("attempt") for job in self.jobs}
        if any(after[key] != attempt for key, attempt in before.items()):
            tally.broken.append(f"{what}: a finished result was replaced")
        if results(root, self.jobs) != self.expected:
            tally.broken.append(f"{what}: results differ from those of an undisturbed run")
        records = len(list(root.glob("[!.]*/*/DONE.json")))
        if records != len(self.jobs):
            tally.broken.append(f"{what}: {records} results for {len(self.jobs)} jobs")
