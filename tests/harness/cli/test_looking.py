"""What `status` and `logs` show of a job that runs."""

from __future__ import annotations

import json
import threading
import time

import pytest

from harness.cli import main, status
from harness.jobs import Job, Source
from harness.store import Owner, Store, files


def reported(step: int) -> str:
    values = {"loss": 1.8234, "lr": 6e-4, "seconds_per_step": 2.13, "grad_norm": 3.0}
    return json.dumps({"time": 1.0, "step": step, "total": 125, "values": values}) + "\n"


@pytest.fixture
def running(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    job = Job("train", {"n": 1}, {"init": Source("b", "b")}, "stage1")
    store.ensure(job)
    attempt = store.begin_attempt(job, Owner.here())
    attempt.log.write_text("begun\n")
    files.append(attempt.metrics, reported(40))
    return store, job, attempt


def test_status_says_the_same_to_a_program(running, capsys):
    _, job, _ = running
    assert main(["status", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["key"], record["state"], record["step"], record["total"]) == (job.key, "running", 40, 125)
    assert main(["status", "--json", "--watch"]) == 2


def test_status_of_an_empty_store_is_an_empty_list_for_a_program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_watching_looks_again_until_it_is_interrupted(running, monkeypatch, capsys):
    looks, look = [], status.show

    def counted(options) -> int:
        if len(looks) == 3:
            raise KeyboardInterrupt
        looks.append(look(options))
        return looks[-1]

    monkeypatch.setattr(status, "show", counted)
    monkeypatch.setattr(status, "WATCH_SECONDS", 0.01)
    assert main(["status", "--watch"]) == 130
    assert looks == [0, 0, 0] and capsys.readouterr().out.count("1 job: 1 running") == 3


def test_logs_show_the_reported_steps_after_what_was_printed(running, capsys):
    _, job, _ = running
    assert main(["logs", job.key[:8]]) == 0
    assert capsys.readouterr().out == "begun\nstep 40/125  loss 1.82  lr 0.0006  2.1 s/step\n"


def test_following_a_log_shows_new_lines_and_steps_once_and_ends_with_the_job(running, capsys):
    store, job, attempt = running

    def goes_on() -> None:
        time.sleep(0.7)
        files.append(attempt.metrics, reported(41))
        files.append(attempt.log, "nearly\n")
        time.sleep(0.7)
        (attempt.out / "w").write_text("w")
        files.append(attempt.metrics, reported(42))
        store.publish(attempt, seconds=1.0)

    worker = threading.Thread(target=goes_on)
    worker.start()
    assert main(["logs", "-f", job.key[:8]]) == 0
    worker.join()
    out = capsys.readouterr().out
    assert [out.count(text) for text in ("begun", "nearly", "step 40/", "step 41/", "step 42/")] == [1, 1, 1, 1, 1]
