"""Table 3(c) on the cluster, at the smoke scale: the command a person types, from the queue to the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness.store import Attempt, Record, Store
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import entry, known_ids, queued, until
from tests.cluster.test_disk import full, read_only
from tests.harness.dispatch.compared import measured, recorded, rendered
from tests.harness.store.test_store import mounted

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
CHOSEN = ["--rows", "Stage 1 Only", "Two-stage (Ours)", "--columns", "mmvp"]


def called(folder: Path, *words: str) -> subprocess.Popen[str]:
    """run.py with its results under `folder`."""
    command = [sys.executable, "run.py", *words, "--results", str(folder / "results")]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], seconds: float = 1200) -> str:
    """What it said, once it has ended well."""
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return said


def door(folder: Path, *words: str) -> str:
    return ended(called(folder, *words))


def on_slurm(folder: Path, more: str = "") -> list[str]:
    """The profile smoke for this cluster, as options. more: of its dispatch block."""
    profile = (REPOSITORY / "experiments" / "profiles" / "smoke.yaml").read_text()
    local, words = "dispatch: {kind: local}", f"dispatch: {{kind: slurm, partition: main{more}}}"
    assert local in profile
    path = folder / "smoke-slurm.yaml"
    path.write_text(profile.replace(local, words).replace("batch_size: 16}", "batch_size: 16, bundle: 2}"))
    return ["--profile", str(path)]


def table(folder: Path, *more: str, reports: str = "reports") -> list[str]:
    """The words of the whole command. more: columns beside the first."""
    return ["experiments/table3c.yaml", *on_slurm(folder), *CHOSEN, *more, "--reports", str(folder / reports)]


@pytest.fixture(scope="module")
def calm(plain_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table, undisturbed, asked for by two drivers at once."""
    os.environ.update(plain_cluster.environment)
    folder = tmp_path_factory.mktemp("calm")
    for driver in [called(folder, *table(folder, "blink", reports=name)) for name in ("reports", "reports2")]:
        ended(driver)
    return folder


def test_table_3c_is_made_on_the_cluster_and_a_second_run_asks_it_nothing(cluster, tmp_path):
    command, before = table(tmp_path), known_ids(cluster)
    door(tmp_path, *command, "--detach")
    status = door(tmp_path, "status")
    assert "submitted" in status and "slurm job" in status

    door(tmp_path, *command)
    assert any(line.startswith("| Two-stage") for line in rendered(tmp_path / "reports"))
    assert known_ids(cluster) - before
    store = Store(tmp_path / "results")
    assert all(len(store.attempts(record)) == 1 for record in store.records())

    after = known_ids(cluster)
    door(tmp_path, *command)
    assert known_ids(cluster) <= after


def test_two_drivers_of_one_table_run_every_job_once_and_make_the_same_table(cluster, calm):
    store = Store(calm / "results")
    assert {record.key: len(store.attempts(record)) for record in store.records()} == dict.fromkeys(
        recorded(calm / "results"), 1
    )
    assert rendered(calm / "reports") == rendered(calm / "reports2")


def running(folder: Path) -> list[tuple[Record, Attempt]]:
    """Jobs at work now, with their newest attempts."""
    store = Store(folder / "results")
    newest = [(record, attempts[-1]) for record in store.records() if (attempts := store.attempts(record))]
    return [
        (record, it) for record, it in newest if not store.is_done(record) and it.failure is None and it.owner.alive()
    ]


def at_work(folder: Path, cluster: Cluster) -> tuple[str, str] | None:
    """(scheduler id, node) of a job at work that the scheduler, too, has running. One that was submitted just before a
    controller was killed is at work and forgotten."""
    known = {words[0]: words for words in queued(cluster, "R")}
    ids = [attempt.owner.scheduler_id for _, attempt in running(folder)]
    return next(((id_, known[id_][3]) for id_ in ids if id_ in known), None)


def to_one_at_work(folder: Path, cluster: Cluster, *command: str) -> None:
    """A command of the scheduler, to a job at work; to another one if that has just ended."""

    def obeyed() -> bool:
        if (found := at_work(folder, cluster)) is None:
            return False
        cluster.run(*command, found[0])
        return True

    until(obeyed, 180)


def kill_one_that_writes(folder: Path, cluster: Cluster) -> None:
    """-9 to a training that has begun to write its result and has not published it."""

    def killed() -> bool:
        for job, attempt in running(folder):
            if job.kind == "train" and (attempt.out / "model.safetensors").exists():
                with suppress(ProcessLookupError):
                    os.kill(attempt.owner.pid, signal.SIGKILL)
                    return True
        return False

    until(killed, 180)


def requeue_one(folder: Path, cluster: Cluster) -> None:
    to_one_at_work(folder, cluster, "scontrol", "requeue")


def cancel_one(folder: Path, cluster: Cluster) -> None:
    to_one_at_work(folder, cluster, "scancel")


def restart_the_controller(folder: Path, cluster: Cluster) -> None:
    until(lambda: running(folder), 180)
    cluster.stop_controller(hard=True)
    time.sleep(5)
    cluster.start_controller()


def refuse_writing(folder: Path, cluster: Cluster) -> None:
    until(lambda: running(folder), 180)
    with read_only(folder / "results"):
        time.sleep(4)


def fill_the_disk(folder: Path, cluster: Cluster) -> None:
    until(lambda: running(folder), 180)
    with full(folder / "results"):
        time.sleep(4)


def take_its_node(folder: Path, cluster: Cluster) -> None:
    """The daemon of a node on which a job is at work dies, and comes back when the scheduler has given the job up."""
    id_, node = until(lambda: at_work(folder, cluster), 180)
    cluster.stop_node(node)
    until(lambda: entry(cluster, id_)[1] != "RUNNING")
    cluster.start_node(node)


FAULTS: list[Callable[[Path, Cluster], None]] = [
    refuse_writing, requeue_one, kill_one_that_writes, fill_the_disk, restart_the_controller, take_its_node, cancel_one
]  # fmt: skip


def test_a_table_made_under_every_fault_is_the_undisturbed_one(cluster, calm, tmp_path):
    with mounted(tmp_path / "results", "size=1g"):
        driver = called(tmp_path, *table(tmp_path, "blink"))
        try:
            for fault in FAULTS:
                fault(tmp_path, cluster)
            driver.communicate(timeout=900)
        except AssertionError as error:
            driver.kill()
            raise AssertionError(f"{error}\nin {fault.__name__}; the driver said\n{driver.communicate()[0]}") from error
        finally:
            driver.kill()
        cluster.wait_for_nodes()
        door(tmp_path, *table(tmp_path, "blink"))  # what was cancelled by hand is done when somebody asks again
        ours, theirs = tmp_path / "results", calm / "results"
        assert measured(ours) == measured(theirs) and len(measured(ours)) >= 12
        assert rendered(tmp_path / "reports") == rendered(calm / "reports")
        assert recorded(ours) == recorded(theirs) and len(set(recorded(ours))) == len(recorded(ours))
        store = Store(ours)
        assert sum(len(store.attempts(record)) - 1 for record in store.records()) >= 2, "the faults did meet jobs"


def test_a_later_shell_sees_why_a_cell_waits_takes_it_out_of_the_queue_and_runs_one_job_again(cluster, tmp_path):
    held, before = on_slurm(tmp_path, ", sbatch: {hold: true}"), known_ids(cluster)
    door(tmp_path, "experiments/table3c.yaml", *held, *CHOSEN, "--reports", str(tmp_path / "reports"), "--detach")
    waiting = known_ids(cluster, "PD") - before
    why = door(tmp_path, "why", "Stage 1 Only/mmvp", "experiments/table3c.yaml", *held)
    assert "submitted" in why and "held by its user" in why
    assert "from the cluster's queue" in door(tmp_path, "cancel")
    until(lambda: not known_ids(cluster, "PD") & waiting)
    assert len(waiting) > 3

    data = next(record for record in Store(tmp_path / "results").records() if record.kind == "data")
    door(tmp_path, "retry", data.key[:12], *on_slurm(tmp_path))
    assert Store(tmp_path / "results").is_done(data)
    logs = door(tmp_path, "logs", data.key[:12])
    assert "done after" in logs and "slurm job" in logs
