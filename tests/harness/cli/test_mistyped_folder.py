"""A results folder that is mistyped: one line, nothing created, nothing replaced."""

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks.invented import leave
from harness.cli import main
from harness.jobs import Job
from harness.store import Store

VERBS = [
    ["status"],
    ["status", "table.yaml"],
    ["logs", "abcdef"],
    ["why", "Joint/mmvp", "table.yaml"],
    ["samples", "table.yaml"],
    ["cancel", "abcdef"],
    ["retry", "abcdef"],
    ["retry", "abcdef", "--damaged"],
    ["export", "table.yaml", "--to", "bundle.zip"],
    ["tag"],
    ["tag", "name", "abcdef"],
    ["gc", "table.yaml"],
    ["release", "abcdef"],
]


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_a_verb_that_reads_results_wants_a_folder_that_exists(desk, capsys, arguments):
    desk.table()
    before = sorted(desk.folder.rglob("*"))
    assert main([*arguments, "--results", "reuslts"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "reuslts: no such results folder; name one that exists: --results DIR\n"
    assert sorted(desk.folder.rglob("*")) == before


@pytest.mark.parametrize("arguments", [*VERBS, ["verify"]], ids=" ".join)
def test_a_folder_in_which_no_run_left_anything_is_not_taken_for_a_store_without_jobs(desk, capsys, arguments):
    desk.table()
    assert main([*arguments, "--results", "profiles"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "profiles: is not a results folder: no run has left anything there; name another: --results DIR\n"


@pytest.mark.parametrize("holds", [None, "README.md", ".locks"])
def test_a_results_folder_without_a_job_is_one_in_which_nothing_failed(desk, capsys, holds):
    new = desk.folder / "new"
    new.mkdir()
    if holds:
        (new / holds).touch()
    assert main(["status", "--results", "new"]) == 0
    assert capsys.readouterr().out == "new: no jobs yet\n"
    assert main(["verify", "--results", "new"]) == 0


def test_a_store_copied_without_its_hidden_folders_is_a_results_folder(desk, capsys):
    job = Job("data", {"n": 1}, slug="scenes-1")
    leave(Store(desk.folder / "results"), job)
    (desk.folder / "copy").mkdir()
    shutil.copytree(desk.folder / "results" / "data", desk.folder / "copy" / "data", symlinks=True)
    assert main(["verify", "--results", "copy"]) == 0
    assert capsys.readouterr().out.startswith("1 finished job unchanged")


@pytest.fixture
def drawn(desk, capsys):
    """A report with one value, as if its result had been stored."""
    table = desk.table()
    assert main(["report", str(table)]) == 0
    report = Path("reports/table3c.json")
    content = json.loads(report.read_text())
    content["stamp"], content["cells"][0]["value"] = "", 67.4
    report.write_text(json.dumps(content))
    capsys.readouterr()
    return table


@pytest.mark.parametrize(("folder", "why"), [("reuslts", "no such results folder"), ("profiles", "holds no result of these tables")])
def test_report_does_not_replace_values_by_nothing(drawn, capsys, folder, why):
    before = {path: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()}
    assert main(["report", str(drawn), "--results", folder]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"{folder}: {why}, and reports/table3c.html would lose every value; name the folder with the results (--results DIR)")
    assert {path: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()} == before and not Path("reuslts").exists()


def test_report_replaces_values_by_nothing_when_told_to(drawn):
    assert main(["report", str(drawn), "--results", "profiles", "--empty"]) == 0
    assert all(cell["value"] is None for cell in json.loads(Path("reports/table3c.json").read_text())["cells"])
    assert main(["report", str(drawn), "--results", "profiles"]) == 0, "an empty report loses nothing"


@pytest.mark.parametrize("arguments", [["status"], ["verify"], ["plan", "table.yaml"], ["report", "table.yaml"], ["logs", "abcdef"]], ids=" ".join)
def test_a_results_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(desk, capsys, monkeypatch, arguments):
    desk.table()
    (desk.folder / "theirs").mkdir()
    access = os.access  # root may read everything, so the test says no in its place
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "theirs" and access(path, mode))
    assert main([*arguments, "--results", "theirs"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "theirs: cannot be read (Permission denied); ask its owner, or choose another: --results DIR\n"


def test_a_folder_of_experiments_that_may_not_be_read_is_not_taken_for_an_empty_one(desk, capsys, monkeypatch):
    (desk.folder / "theirs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["plan", "theirs"]) == 2
    assert capsys.readouterr().err == "theirs: cannot be read (Permission denied)\n"


@pytest.mark.parametrize("flag", ["--results", "--reports"])
@pytest.mark.parametrize("inside", ["", "/deeper"])
def test_a_link_to_nowhere_is_named_before_a_run_begins(desk, capsys, flag, inside):
    table = desk.table()
    link = desk.folder / "link"
    link.symlink_to("unmounted/disk")
    why = f"{link}: is a symbolic link to unmounted/disk, which does not exist; create that folder, or choose another: {flag} DIR"
    assert main([str(table), flag, f"{link}{inside}"]) == 2
    assert capsys.readouterr().err == why + "\n"
    assert main(["doctor", flag, f"{link}{inside}"]) == 1
    said = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["error", flag.removeprefix("--"), why] in said
    assert link.is_symlink() and not link.exists()
    assert main(["plan", str(table), "--results", str(desk.folder / "new")]) == 0  # a folder that is still to be made is no fault
