"""A small graph of real jobs, and a driver for it as a program of its own, so that tests can kill it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness import dispatch
from harness.dispatch.driver.progress import Silent
from harness.jobs import Graph, Job
from harness.spec.profile import Resources
from harness.store import Store, leases
from tests.harness.dispatch import kinds

REPOSITORY = Path(__file__).resolve().parents[3]


def diamond(steps: int = 15) -> Graph:
    """One long job, three that continue it, two quick ones on each."""
    first = Job("count", {"steps": steps}, slug="first")
    middle = [Job("count", {"steps": steps, "i": i}, {"x": first}, f"middle{i}") for i in range(3)]
    last = [Job("digest", {"i": i}, {"x": parent}, f"last{i}") for parent in middle for i in range(2)]
    return Graph(last)


def resources(kind: str) -> Resources:
    return Resources(cpus=1, micro_batch=8)


def run(graph: Graph, root: Path, slots: int = 2, resources: Callable[[str], Resources] = resources) -> dispatch.Outcome:
    return dispatch.run(graph, Store(root), resources=resources, slots=slots, plugins=[kinds.PLUGIN], display=Silent())


def results(graph: Graph, root: Path) -> dict[str, str]:
    """What the jobs computed, by key."""
    store = Store(root)
    return {job.key: (store.outputs(job) / "result.json").read_text() for job in graph}


def start_driver(root: Path, *, slow: bool = False) -> subprocess.Popen[str]:
    """The diamond's driver. slow: its long jobs last four seconds, for tests that must meet one half-way."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.harness.dispatch.graphs", str(root)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **({kinds.PAUSE: "0.27"} if slow else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def live_workers(root: Path) -> list[leases.Lease]:
    return [lease for lease in leases.leases(Store(root)) if lease.alive() and lease.owner.pid]


def wait_until(condition, seconds: float = 90.0):
    """The condition's first true value. Fails the test after `seconds`."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"nothing happened in {seconds} s")


if __name__ == "__main__":
    from harness.dispatch.driver.progress import PlainDisplay

    outcome = dispatch.run(
        diamond(),
        Store(sys.argv[1]),
        resources=resources,
        slots=2,
        plugins=[kinds.PLUGIN],
        display=PlainDisplay(sys.stdout),
    )
    print(*outcome.problems, *outcome.notes, sep="\n")
    sys.exit(outcome.exit_code)
