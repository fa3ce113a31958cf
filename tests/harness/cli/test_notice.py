"""The user's own command hears how a run ended, and cannot harm it."""

from __future__ import annotations

import json

import pytest

from harness.cli import main, notice
from harness.cli.notice import Notice
from harness.dispatch import Outcome
from harness.dispatch.driver.outcome import Ended
from harness.jobs import Job, Source
from harness.report import render
from harness.store import State, Store
from tests.harness.report.world import fill, make_plan

HEAR = 'cat > heard.json; echo "$HARNESS_OUTCOME|$HARNESS_TEXT" > heard.txt'
JOB = Job("train", {"n": 1}, {"init": Source("b", "b")}, "stage1")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_reads_outcome_conclusion_and_page(desk):
    plan, store = make_plan(desk, n=40), Store(desk / "results")
    fill(store, plan, n=40)
    render(plan, store, desk / "reports", formats=("html", "json"))
    outcome = Outcome({}, ran=tuple(job.key for job in plan.graph), seconds=3.0)
    Notice(HEAR, True, [plan], desk / "reports", outcome).send(0)
    heard = json.loads((desk / "heard.json").read_text())
    assert heard["outcome"] == "done" and heard["jobs"] == len(plan.graph) and heard["problems"] == []
    assert heard["tables"] == [
        {
            "name": "table3c",
            "conclusion": json.loads((desk / "reports" / "table3c.json").read_text())["conclusion"],
            "page": str(desk / "reports" / "table3c.html"),
        }
    ]
    assert (desk / "heard.txt").read_text().startswith(f"done|table3c: done, {len(plan.graph)} jobs in ")


@pytest.mark.parametrize(
    ("code", "detached", "word"),
    [(0, False, "done"), (1, False, "failed"), (130, False, "interrupted"), (0, True, "submitted")],
)
def test_the_outcome_is_one_word(desk, code, detached, word):
    ended = (Ended(JOB, State.FAILED, "loss is NaN at hf_abcdefghijklmnopqrstuvwxyz"),) * (code == 1)
    Notice(HEAR, True, outcome=Outcome({}, ended, detached=detached)).send(code)
    heard = json.loads((desk / "heard.json").read_text())
    assert heard["outcome"] == word
    assert [line.partition(": ")[2] for line in heard["problems"]] == ["failed: loss is NaN at ***"] * (code == 1)


def test_what_ended_a_run_before_its_jobs_is_told(desk):
    Notice(HEAR, True, error="results: no space left to write\nmore").send(1)
    assert json.loads((desk / "heard.json").read_text())["problems"] == ["results: no space left to write"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo no such channel >&2; exit 7", "the notification failed with exit code 7: no such channel"),
        ("no-such-program-here", "the notification failed with exit code 127"),
        ("sleep 5", "the notification did not end in 0 s"),
        ("exec <&-", ""),
        ("a\0b", "the notification could not be started (ValueError)"),
    ],
)
def test_a_command_that_fails_costs_one_line(desk, monkeypatch, capsys, command, said):
    monkeypatch.setattr(notice, "PATIENCE_SECONDS", 0.3)
    Notice(command, True).send(0)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") <= 1


def test_nobody_is_told_that_there_was_nothing_to_do(desk):
    Notice(HEAR).send(0)
    assert main(["run", "nowhere.yaml", "--notify", HEAR]) == 2, "nor of a mistake that ended it before anything began"
    assert not (desk / "heard.json").exists()
