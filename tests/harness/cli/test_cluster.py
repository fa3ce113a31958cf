"""What verbs say of jobs that a cluster has, or had: they take one look at its scheduler, which is a script here."""

from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.stored import _slurm_queue, open_store
from harness.jobs import Job
from harness.plan import plan_experiment
from harness.store import Owner, Store, leases
from harness.store.leases import Lease
from tests.harness.conftest import Desk

NAME = "vr-a-data"
ALIVE = ("PENDING", "RUNNING", "COMPLETING", "NODE_FAIL", "PREEMPTED")
ENDED = ("CANCELLED", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "COMPLETED")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call it with what squeue is to say from now on, None for no answer."""
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")

    def say(text: str | None) -> None:
        script.write_text("#!/bin/sh\n" + ("exit 1\n" if text is None else f"echo '{text}'\n"))
        script.chmod(0o755)
        _slurm_queue.cache_clear()  # a verb is a process of its own

    yield say
    _slurm_queue.cache_clear()


def line(state: str) -> str:
    return f"7_0|{state}|0|None|{NAME}|"


def queued(desk: Desk) -> Job:
    """The table's training set, in the hands of a cluster's job 7_0 and not begun."""
    job = next(job for job in plan_experiment(desk.table(), "proxy").graph if job.kind == "data")
    store = Store("results")
    store.ensure(job)
    owner = Owner(scheduler="slurm", scheduler_id="7_0", scheduler_name=NAME)
    leases.write(store, Lease("a-1", owner, None, ".slurm/a", remaining=(job.key,)))
    return job


def begun(job: Job) -> None:
    """The same job, begun on a node."""
    Store("results").begin_attempt(job, Owner("node1", "boot", 5, 6, "slurm", "7_0", NAME))


def said(capsys: pytest.CaptureFixture, *arguments: object, code: int = 0) -> str:
    assert main([str(a) for a in arguments]) == code
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("state", [*ALIVE, *ENDED, "", None])
def test_one_look_tells_what_the_scheduler_has_from_what_has_ended(state, desk: Desk, capsys, squeue):
    job = queued(desk)
    squeue(None if state is None else line(state) if state else "")
    held = state in ALIVE or state is None  # of no answer nothing follows
    assert ("1 submitted" in said(capsys, "status")) is held
    plan = next(row for row in said(capsys, "plan", "table.yaml").splitlines() if job.name in row and "for all rows" in row)
    assert ("submitted" in plan) is held
    why = next(row for row in said(capsys, "why", "Joint Train/mmvp", "table.yaml").splitlines() if job.name in row)
    assert why.split()[2] == ("submitted" if held else "ready")


@pytest.mark.parametrize("state", [*ENDED, ""])
def test_a_job_whose_scheduler_job_has_ended_needs_no_release(state, desk: Desk, capsys, squeue):
    begun(job := queued(desk))
    squeue(line(state) if state else "")
    assert "no process holds it; the next run takes it over automatically" in said(capsys, "release", job.key12)
    assert "1 interrupted" in said(capsys, "status")


@pytest.mark.parametrize("state", ALIVE[1:])
def test_a_job_that_may_go_on_is_not_released(state, desk: Desk, capsys, squeue):
    begun(job := queued(desk))
    squeue(line(state))
    assert "is alive; stop it first" in said(capsys, "release", job.key12, code=2)


def test_who_looks_again_waits_until_the_last_files_are_visible(desk: Desk, squeue):
    begun(job := queued(desk))
    squeue(line("COMPLETED"))
    (attempt,) = Store("results").attempts(job)
    assert attempt.alive(open_store(Path("results"), one_look=True).schedulers) is False
    assert attempt.alive(open_store(Path("results")).schedulers) is True


def test_why_a_job_will_not_begin_is_said(desk: Desk, capsys, squeue):
    queued(desk)
    squeue(f"7_0|PENDING|0|JobHeldUser|{NAME}|")
    assert "slurm job 7_0: held by its user" in said(capsys, "status")
