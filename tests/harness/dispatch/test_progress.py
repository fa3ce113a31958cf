"""What a person sees while a run goes on."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from harness.dispatch.driver.outcome import Ended
from harness.dispatch.driver.progress import LiveDisplay, PlainDisplay, Running, Snapshot
from harness.jobs import Job
from harness.store import State, Status, Store

LINE = {"step": 40, "total": 125, "time": 1.0, "values": {"loss": 1.8234, "lr": 6e-4, "seconds_per_step": 2.13, "grad_norm": 3.0}}


@pytest.fixture
def going(tmp_path):
    """(a snapshot with one job running, one done, one failed; the three jobs)"""
    store = Store(tmp_path / "results")
    jobs = [Job("train", {"n": n}, slug=f"stage{n}") for n in range(3)]
    attempts = []
    for job in jobs:
        store.ensure(job)
        attempts.append(store.begin_attempt(job))
        attempts[-1].log.write_text("")
    statuses = {
        jobs[0].key: Status(State.RUNNING, "this host", attempts[0]),
        jobs[1].key: Status(State.DONE),
        jobs[2].key: Status(State.FAILED, "ValueError: box is inverted", attempts[2]),
    }
    changed = [(job, statuses[job.key]) for job in jobs]
    return Snapshot(statuses, [Running(jobs[0], LINE, 185.0, attempts[0])], changed, 605.0), jobs


def test_in_a_log_each_event_is_one_short_line_and_a_failure_names_its_log(going):
    snapshot, jobs = going
    stream = io.StringIO()
    PlainDisplay(stream).show(snapshot)
    running, done, failed = (re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines())
    assert running == f"running     train {jobs[0].name}"
    assert done == f"done        train {jobs[1].name}  1 of 3 done, about 10 min 05 s left"
    assert failed.startswith(f"failed      train {jobs[2].name}: ValueError: box is inverted  [log ") and failed.endswith("/log]")
    assert max(len(running), len(done)) < 100


def test_on_a_terminal_a_running_job_has_its_step_loss_and_time_left(going, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    snapshot, jobs = going
    display = LiveDisplay(stream := Terminal())
    display.show(snapshot)
    display.live.refresh()
    display.close()
    assert re.search(rf"train {jobs[0].name} +step 40/125  loss 1.82  lr 0.0006  2.1 s/step +3 min 05 s left", stream.getvalue())
    assert "1 of 3 done" in stream.getvalue() and "about 10 min 05 s left" in stream.getvalue()


def test_a_job_that_was_not_begun_is_named_without_an_empty_reason():
    job = Job("mirror", {"benchmark": "mmvp"})
    assert str(Ended(job, State.READY, "")) == f"mirror {job.name}: ready"
    assert str(Ended(job, State.FAILED, "no space", log=Path("log"))) == f"mirror {job.name}: failed: no space  [log log]"
