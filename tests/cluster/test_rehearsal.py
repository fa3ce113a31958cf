"""The real job's formats through the real scheduler: trainings of two processes under DeepSpeed, stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import Attempt, Store
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import until
from tests.harness.dispatch.compared import measured, rendered
from tests.rehearsal.conftest import Desk, world  # noqa: F401 - a fixture

pytestmark = pytest.mark.cluster

TABLE = "experiments/table3c.yaml"
PROFILE = """\
extends: {world}/profile.yaml
title: rehearsal on SLURM, DeepSpeed {zero}
resources:
  train: {{processes: 2, deepspeed: {zero}, memory_gb: 12}}  # the world states it for one process
  evaluate: {{bundle: 4}}
dispatch: {{kind: slurm, partition: main}}
"""


def command(desk: Desk, zero: str) -> list[str]:
    profile = desk.folder / f"{zero}.yaml"
    profile.write_text(PROFILE.format(world=desk.world, zero=zero))
    chosen = ["--rows", "Stage 1 Only", "--columns", "mmvp"]
    return [TABLE, "--profile", str(profile), *chosen, "--reports", str(desk.reports)]


def run(desk: Desk, *words: str) -> None:
    desk.run(*words, profile=None)


def training_at_work(desk: Desk) -> Attempt | None:
    """The newest attempt of a training that has made a step and is still at it."""
    store = Store(desk.results)
    for record in store.records():
        if record.kind == "train" and not store.is_done(record) and (attempts := store.attempts(record)):
            progress = attempts[-1].progress()
            if attempts[-1].failure is None and progress and progress["step"] >= 1 and attempts[-1].owner.alive():
                return attempts[-1]
    return None


def stop_by_the_scheduler(desk: Desk, cluster: Cluster) -> None:
    """What a time limit or a preemption does: USR2, a checkpoint, back into the queue."""
    cluster.run("scancel", "--signal=USR2", until(lambda: training_at_work(desk), 300).owner.scheduler_id)


def cancel(desk: Desk, cluster: Cluster) -> None:
    cluster.run("scancel", until(lambda: training_at_work(desk), 300).owner.scheduler_id)


@pytest.mark.parametrize(
    ("zero", "fault"), [("zero2", cancel), ("zero3", stop_by_the_scheduler)], ids=["zero2", "zero3"]
)
def test_a_table_whose_training_is_stopped_under_deepspeed_is_the_undisturbed_one(
    cluster: Cluster,
    world: Path,  # noqa: F811
    tmp_path: Path,
    zero: str,
    fault: Callable[[Desk, Cluster], None],
):
    calm, rough = (Desk(world, tmp_path / name) for name in ("calm", "rough"))
    for desk in (calm, rough):
        desk.folder.mkdir()
    run(calm, *command(calm, zero))

    words = command(rough, zero)
    driver = rough.start(*words)
    try:
        fault(rough, cluster)
        said, _ = driver.communicate(timeout=600)
    finally:
        driver.kill()
    run(rough, *words)  # what a person cancelled is done when a person asks again
    assert measured(rough.results) == measured(calm.results), said
    assert rendered(rough.reports) == rendered(calm.reports)
    store = Store(rough.results)
    attempts = [tried for record in store.records() if record.kind == "train" and len(tried := store.attempts(record)) > 1]
    assert attempts, "the fault did meet the training"
    for tried in attempts:
        saved = tried[0].failure is not None
        assert saved or fault is cancel, "who is told in time saves; a cancelled job has two seconds, and is killed then"
        assert not saved or "resumes from" in tried[-1].log.read_text()
