"""How a job's end is explained: by its log, by the scheduler, or by neither."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.dispatch.slurm.queue import why
from harness.dispatch.slurm.task import Assignment, NotDone, perform
from harness.jobs import Job
from harness.store import State, Store, leases
from tests.harness.dispatch.slurm.pretended import NEEDS, driver_of, job_of, put, slurm_owner


@pytest.mark.parametrize(
    ("last", "cause", "begun"),
    [
        ("loading\nsrun: error: n1: task 0: User defined signal 2\n", "", "stopped before it began: User defined"),
        (
            "slurm_script: line 20: 99 Terminated   srun --unbuffered python\n",
            "",
            "stopped before it began: Terminated",
        ),
        ("Terminated workers are restarted\nModuleNotFoundError: x\n", "code", "failed before it began"),
        (
            "srun: error: n1: task 1: Exited with exit code 1\nsrun: error: n1: task 0: Terminated\n",
            "code",
            "failed before it began",
        ),
    ],
)
def test_a_signal_before_python_can_catch_it_is_an_interruption(last, cause, begun):
    found = why("FAILED", last, begun=False, any_begun=False)
    assert found[0] == cause and begun in found[2]


def test_a_job_that_never_began_leaves_the_end_of_its_log_and_is_not_tried_for_ever(cluster, tmp_path):
    job, log = job_of(), tmp_path / "log"
    driver = driver_of(cluster, tmp_path / "store", job)
    log.write_text("importing\nsrun: error: n1: task 0: User defined signal 2\n")
    cluster.lines = ["7|FAILED|0|NonZeroExitCode|vr-s-count|"]
    driver.run.retries.grant(job, driver.store.status(job))
    for i in range(1, 4):
        lease = put(driver.store, job, slurm_owner("7"), log=str(log))
        leases.drop(driver.store, lease.id)
        leases.write(driver.store, replace(lease, id=f"s-{i}"))
        status = driver.look()[job.key]
        driver.run.retries.grant(job, status)
        assert status.state is State.INTERRUPTED and status.attempt.number == i
        assert status.attempt.log.read_text() == log.read_text()
    assert "interrupted 3 times without progress" in driver.run.retries.given_up(job)


OOM_LOG = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0. Some of your processes may have been killed\n"


@pytest.mark.parametrize(
    ("state", "log", "cause"),
    [
        ("OUT_OF_MEMORY", "", "memory"),
        ("FAILED", OOM_LOG, "memory"),
        ("FAILED", "RuntimeError: CUDA out of memory, says a library that gave up later\n", "code"),
        ("COMPLETED", OOM_LOG, "code"),
    ],
)
def test_a_lost_connection_is_no_error_of_ours_where_the_scheduler_killed_the_other_process_for_memory(cluster, tmp_path, state, log, cause):
    job = job_of()
    driver, path = driver_of(cluster, tmp_path / "store", job), tmp_path / "log"
    path.write_text(log)
    driver.run.retries.grant(job, driver.store.status(job))
    lease = put(driver.store, job, slurm_owner("7"), log=str(path), current=job.key)
    cluster.lines = ["7|RUNNING|0|None|vr-s-count|"]
    attempt = driver.store.begin_attempt(job, owner=slurm_owner("7"), lease=lease.id)
    attempt.fail("code", "RuntimeError", "rank 1: connection reset by peer", "Traceback: reset", 8)
    assert driver.run.retries.grant(job, driver.look()[job.key]) == 0, "the scheduler has not said yet how it ended"
    cluster.lines = [f"7|{state}|0|None|vr-s-count|"]
    status = driver.look()[job.key]
    assert status.attempt.failure.cause == cause and "connection reset by peer" in status.reason
    assert status.attempt.failure.traceback.read_text() == "Traceback: reset"
    assert (driver.run.retries.grant(job, status) == 2) == (cause == "memory"), "again, with more memory"


@pytest.mark.parametrize(("processes", "left"), [(1, 0), (2, 1)])
def test_an_error_in_one_of_several_processes_waits_for_the_schedulers_word(tmp_path, monkeypatch, processes, left):
    store, job = Store(tmp_path), Job("raise", {}, slug="raise")
    lease = put(store, job, slurm_owner("7"))
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": str(processes), "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    folder = str(store.folder(job).relative_to(store.root))
    with pytest.raises(NotDone, match="divides by zero"):
        perform(Assignment(str(store.root), (folder,), lease.id, "s", NEEDS.model_dump(), processes=processes))
    kept = leases.read(store, lease.id)
    assert (kept.remaining if kept else ()) == (job.key,) * left
