"""The verbs that carry results away, bring them in, name them and tidy up, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.plan import plan_experiment
from harness.store import Store
from tests.harness.conftest import Desk


def said(capsys: pytest.CaptureFixture, *arguments: str, code: int = 0) -> str:
    assert main([str(a) for a in arguments]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.out + captured.err


def everything_done(table: Path, results: str = "results") -> int:
    """Mark every job of the table as done; how many there are."""
    store, plan = Store(results), plan_experiment(table, "proxy")
    for job in plan.graph:
        store.ensure(job)
        attempt = store.begin_attempt(job)
        (attempt.out / "result.json").write_text(f'"{job.key12}"')
        assert store.publish(attempt, seconds=1.0)
    return len(plan.graph)


def test_a_table_travels_to_another_store_where_nothing_of_it_is_left_to_run(desk: Desk, capsys):
    table = desk.table()
    everything_done(table)
    assert "whole" in said(capsys, "export", table, "--to", "b.zip")
    assert "as they were exported" in said(capsys, "verify", "b.zip")
    assert " imported, 0 already here" in said(capsys, "import", "b.zip", "--results", "theirs")
    assert "0 jobs imported" in said(capsys, "import", "b.zip", "--results", "theirs")
    store, plan = Store("theirs"), plan_experiment(table, "proxy")
    assert not [job for job in plan.graph.needed(store.is_done) if not store.is_done(job)]


def test_an_export_of_nothing_and_over_a_file_are_one_line(desk: Desk, capsys):
    table = desk.table()
    assert "none of the" in said(capsys, "export", table, "--to", "b.zip", code=2)
    everything_done(table)
    Path("b.zip").write_text("mine")
    assert "exists already" in said(capsys, "export", table, "--to", "b.zip", code=2)
    assert Path("b.zip").read_text() == "mine"
    assert "is not a bundle" in said(capsys, "verify", "b.zip", code=2)
    assert "two commands" in said(capsys, "verify", "b.zip", table, code=2)


def test_tidying_shows_first_and_deletes_only_when_asked_to(desk: Desk, capsys):
    table = desk.table()
    n = everything_done(table)
    rows = ["--rows", "Stage 1 Only"]
    assert "nothing was deleted" in said(capsys, "gc", table, *rows)
    assert f"{n} jobs: {n} done" in said(capsys, "status")
    assert "deleted" in said(capsys, "gc", table, *rows, "--delete")
    plan = plan_experiment(table, "proxy", rows=["Stage 1 Only"])
    store = Store("results")
    assert all(store.is_done(job) for job in plan.graph)
    assert "everything in it is needed" in said(capsys, "gc", table, *rows)


def test_a_tag_keeps_a_job_and_is_listed_with_its_note(desk: Desk, capsys):
    table = desk.table()
    everything_done(table)
    kept = plan_experiment(table, "proxy").checkpoints["Two-stage (Ours)"][0]
    said(capsys, "tag", "best", kept.key12, "--note", "the one to keep")
    assert "the one to keep" in said(capsys, "tag")
    said(capsys, "gc", table, "--rows", "Stage 1 Only", "--delete")
    assert Store("results").is_done(kept)
    assert "no such job" in said(capsys, "tag", "best", "0000ffff", code=2)
    assert "no job was named" in said(capsys, "tag", "best", code=2)
    assert "still there" in said(capsys, "tag", "best", "--remove")
    assert "no tags yet" in said(capsys, "tag")
