"""A SLURM for the session, and a driver that polls it fast. Tests are skipped where no cluster can be started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import dispatch
from harness.dispatch.driver.progress import Silent
from harness.dispatch.slurm import backend as slurm
from harness.dispatch.slurm.queue import SlurmQueue
from harness.jobs import Graph, Job
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import Store
from tests.cluster import kinds
from tests.cluster.cluster import Cluster, ClusterError, NotInstalled, unsupported


def start(folder: Path, **options: Any) -> Iterator[Cluster]:
    if reason := unsupported():
        pytest.skip(reason)
    cluster = Cluster(folder, **options)
    before = {name: os.environ.get(name) for name in cluster.environment}
    try:
        try:
            cluster.up()
        except NotInstalled as error:
            pytest.skip(str(error))
        os.environ.update(cluster.environment)
        yield cluster
    finally:
        cluster.down()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def plain_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from start(tmp_path_factory.mktemp("slurm"), nodes=3)


@pytest.fixture
def cluster(plain_cluster: Cluster) -> Iterator[Cluster]:
    """Without accounting, which is the harder case. Whatever a test broke is whole again for the next one."""
    os.environ.update(plain_cluster.environment)
    yield plain_cluster
    mend(plain_cluster)


def mend(cluster: Cluster) -> None:
    cluster.start_controller()
    for node in cluster.node_names:
        cluster.start_node(node)
    cluster.run("scancel", "-u", str(os.getuid()), check=False)
    cluster.wait_for_nodes()


@pytest.fixture(autouse=True)
def quick_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm.SlurmBackend, "parent_seconds", 1.0)
    monkeypatch.setattr(slurm.SlurmBackend, "free_seconds", 3.0)
    monkeypatch.setattr(slurm, "LEAVING_SECONDS", 30.0)


def small(kind: str) -> Resources:
    return Resources(memory_gb=0.3, minutes=60, micro_batch=8)


def quick_queue(**options: Any) -> SlurmQueue:
    chosen = {"poll_seconds": 0.5, "lost_seconds": 4.0, "provisional_seconds": 8.0, "settle_seconds": 1.0}
    return SlurmQueue(**{**chosen, **options})


def drive(
    graph: Graph,
    root: Path,
    *,
    resources: Callable[[str], Resources] = small,
    queue: SlurmQueue | None = None,
    detach: bool = False,
    display: Any = None,
    plugins: Sequence[str] = (kinds.PLUGIN,),
    **options: Any,
) -> dispatch.Outcome:
    """Run a graph on the cluster. options: of the profile's dispatch block."""
    return slurm.run(
        graph,
        Store(root),
        resources=resources,
        dispatch=SlurmDispatch(**options),
        detach=detach,
        plugins=plugins,
        display=display or Silent(),
        queue=queue or quick_queue(),
    )


@dataclass
class Background:
    """A driver in a thread, while the test breaks things."""

    graph: Graph
    root: Path
    options: dict[str, Any]
    outcome: dispatch.Outcome | None = None
    error: BaseException | None = None
    said: list[str] = field(default_factory=list)
    thread: threading.Thread | None = None

    def start(self) -> Background:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self) -> None:
        try:
            self.outcome = drive(self.graph, self.root, display=Saying(self.said), **self.options)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self.error = error
            traceback.print_exception(error)  # now, for a test that waits for what this driver will never do

    def end(self, seconds: float = 240.0) -> dispatch.Outcome:
        assert self.thread is not None
        self.thread.join(seconds)
        if self.error is not None:
            raise self.error
        text = "the driver still works after"
        assert self.outcome is not None, f"{text} {seconds:.0f} s: {show(self.graph, self.root)}\n{queue_as_it_is()}"
        return self.outcome


class Saying(Silent):
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)
        print(text, file=sys.stderr)


def background(graph: Graph, root: Path, **options: Any) -> Background:
    return Background(graph, root, options).start()


def show(graph: Graph, root: Path) -> dict[str, str]:
    statuses = Store(root, {"slurm": SlurmQueue().alive}).statuses(graph)
    return {job.name: str(statuses[job.key]) for job in graph}


def step(root: Path, job: Job) -> int:
    """How far the newest attempt of a `count` job is."""
    attempts = Store(root).attempts(job)
    progress = attempts[-1].progress() if attempts else None
    return progress["step"] if progress else 0


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The condition's first true value; a scheduler that is too busy to answer is asked again."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        with suppress(ClusterError):
            if value := condition():
                return value
        time.sleep(0.05)
    raise AssertionError(f"nothing happened in {seconds:.0f} s\n{queue_as_it_is()}")


def queue_as_it_is() -> str:
    """For people, when a test failed."""
    jobs = ["squeue", "--array", "--states=all", "--Format=JobArrayID,State,Reason,Dependency,NodeList"]
    nodes = ["sinfo", "-N", "-p", "main", "-o", "%N %T %E"]
    return "".join(
        subprocess.run(command, check=False, capture_output=True, text=True).stdout for command in (jobs, nodes)
    )


def queued(cluster: Cluster, states: str = "all") -> list[list[str]]:
    """[id, state, restarts, node] of every job of this user."""
    form = "--Format=JobArrayID:|,State:|,RestartCnt:|,NodeList:|"
    text = cluster.run("squeue", "-r", "-h", "-t", states, form)
    return [[word.strip() for word in line.split("|")[:4]] for line in text.splitlines()]


def known_ids(cluster: Cluster, states: str = "all") -> set[str]:
    """Of every job that the scheduler has not forgotten; it forgets some during a long test."""
    return {words[0] for words in queued(cluster, states)}


def scheduler_id(root: Path, job: Job) -> str:
    """Of a job that is running."""
    return until(lambda: Store(root).attempts(job))[-1].owner.scheduler_id


def entry(cluster: Cluster, id_: str) -> list[str]:
    """[id, state, restarts, node]; a job that the scheduler has forgotten is in no state."""
    return next((words for words in queued(cluster) if words[0] == id_), [id_, "", "0", ""])


def counting(steps: int, pause: float = 0.1, **payload: Any) -> Job:
    return Job("count", {"steps": steps, "pause": pause, **payload}, slug=payload.get("name", "count"))


def result(root: Path, job: Job) -> str:
    return (Store(root).outputs(job) / "result.json").read_text()
