"""A results folder that is mistyped: one line, nothing created, nothing replaced."""

import json
import os
from pathlib import Path

import pytest

from harness.cli import main

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
    assert said.out == "" and said.err == "theirs: may not be read (Permission denied); ask its owner, or choose another: --results DIR\n"


def test_a_folder_of_experiments_that_may_not_be_read_is_not_taken_for_an_empty_one(desk, capsys, monkeypatch):
    (desk.folder / "theirs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["plan", "theirs"]) == 2
    assert capsys.readouterr().err == "theirs: may not be read (Permission denied)\n"
