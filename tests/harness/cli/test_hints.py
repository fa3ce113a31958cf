"""A command that the tool names does what the person means: it has the store and the profile of what it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.words import command
from harness.dispatch.driver.outcome import Outcome
from harness.jobs import Job
from harness.plan import plan_experiment
from harness.store import Owner, Store
from harness.tracking import Use, save_labels
from tests.harness.conftest import Desk


def said(capsys: pytest.CaptureFixture, *words: object, code: int = 2) -> str:
    assert main([str(word) for word in words]) == code
    told = capsys.readouterr()
    return told.out + told.err


def failed(desk: Desk, owner: Owner | None = None, results: str = "results") -> tuple[Store, Job]:
    job = plan_experiment(desk.table(), "proxy").checkpoints["Joint Train"][0]
    store = Store(results)
    store.ensure(job)
    store.begin_attempt(job, owner).fail("code", "ValueError", "box is inverted")
    return store, job


@pytest.mark.parametrize(
    ("words", "choices", "text"),
    [
        (("status",), {"results": Path("results"), "profile": "proxy"}, "run.py status"),
        (("report", "FILE"), {"profile": "my/lab.yaml"}, "run.py report FILE --profile my/lab.yaml"),
        (("tag", "NAME", "KEY…"), {"results": Path("old results")}, "run.py tag NAME KEY… --results 'old results'"),
    ],
)
def test_a_command_has_the_choices_that_are_not_the_defaults(words, choices, text):
    assert command(*words, **choices) == text


def test_damage_in_another_store_names_that_store_in_its_remedy(desk: Desk, capsys):
    store, job = failed(desk, results="other")
    assert store.publish(store.begin_attempt(job), seconds=1.0)
    (store.folder(job) / "DONE.json").write_text("{}")
    line = said(capsys, "status", "--results", "other")
    assert f"run.py retry {job.key12} --damaged --results other" in line
    assert main(["retry", job.key12, "--damaged", "--results", "other"]) == 0


def test_a_misspelt_job_names_the_nearest(desk: Desk, capsys):
    _, job = failed(desk)
    near = job.name.replace("joint", "jiont")
    for verb in (["logs", near], ["retry", near], ["cancel", near], ["release", near], ["tag", "mine", near]):
        assert f'no such job; did you mean "{job.name}"?' in said(capsys, *verb)
    assert "run.py status --all lists them" in said(capsys, "logs", "zzzz")


@pytest.fixture
def dispatched(monkeypatch):
    """What `retry` hands to the dispatcher: (profile's kind of dispatch, names of jobs)."""
    found = []

    def run_profile(graph, store, profile, **how):
        found.append((profile.dispatch.kind, [job.name for job in graph], how["detach"]))
        return Outcome({})

    monkeypatch.setattr("harness.dispatch.run_profile", run_profile)
    return found


def test_a_job_is_retried_where_the_profile_of_its_table_says(desk: Desk, capsys, dispatched):
    store, job = failed(desk)
    save_labels(store, "table3c", "a800", {job.key: [Use("Joint Train / mmvp")]})
    assert "run.py FILE --profile a800 continues" in said(capsys, "retry", "--detach", code=0)
    assert dispatched[0][0] == "slurm" and dispatched[0][1][-1] == job.name and dispatched[0][2]
    assert "run.py FILE continues" in said(capsys, "retry", "--profile", "proxy", code=0)
    assert dispatched[1][0] == "local"


def test_a_job_of_a_cluster_is_not_retried_here_because_no_profile_was_named(desk: Desk, capsys, dispatched):
    _, job = failed(desk, Owner(host="node", scheduler="slurm", scheduler_id="17"))
    line = said(capsys, "retry")
    assert f"run.py retry {job.key12} --profile NAME" in line and line.count("\n") == 1 and not dispatched


def test_a_job_of_a_persons_own_profile_is_retried_with_its_file(desk: Desk, capsys, dispatched):
    store, job = failed(desk)
    save_labels(store, "table3c", "mine", {job.key: [Use("Joint Train / mmvp")]})
    line = said(capsys, "retry")
    assert f"ran under profile mine, which is none of the project's; give its file: run.py retry {job.key12} --profile FILE" in line and not dispatched
    file = desk.write("elsewhere/mine.yaml", "extends: smoke\ntitle: mine\n")
    assert "mine.yaml continues" in said(capsys, "retry", "--profile", str(file), code=0) and dispatched[0][0] == "local"


def test_a_job_of_two_profiles_is_retried_under_the_one_that_is_named(desk: Desk, capsys, dispatched):
    store, job = failed(desk)
    for profile in ("a800", "proxy"):
        save_labels(store, "table3c", profile, {job.key: [Use("Joint Train / mmvp")]})
    assert "was run for a800 and proxy; run.py retry" in said(capsys, "retry") and not dispatched
