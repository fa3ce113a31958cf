"""Benchmarks run for minutes: an argument that cannot be used ends them at once, in one line that says what can be."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import pytest

from benchmarks import many_cells, page
from harness.store import files as store_files

WRONG = [
    ("slurm_load", "--jobs", "0", "give a whole number, 1 or more"),
    ("slurm_load", "--rounds", "-1", "give a whole number, 1 or more"),
    ("slurm_load", "--against", "nosuchcommit", "is no commit of"),
    ("many_cells", "--tables", "0", "give a whole number, 1 or more"),
    ("many_cells", "--rows", "many", "give a whole number, 1 or more"),
    ("many_cells", "--against", "", "is no commit of"),
    ("gpu", "--steps", "0", "give a whole number, 1 or more"),
    ("gpu", "--minutes", "nan", "give a number above 0"),
    ("gpu", "--out", "/nonexistent/page.md", "its folder /nonexistent does not exist; create it"),
    ("ratios", "--questions", "12", "give a multiple of 8, 8 or more"),
    ("ratios", "--samples", "0", "give a whole number, 1 or more"),
    ("zoom", "--questions", "0", "give a whole number, 1 or more"),
    ("evidence", "--seed", "-1", "give a whole number, 0 or more"),
    ("evidence", "--share", "1.5", "give 1 or less"),
    ("evidence", "--share", "0", "give a number above 0"),
    ("evidence", "--to", ".", "is no file; name one"),
    ("faults", "--kills", "0", "give a whole number, 1 or more"),
    ("clip_memory", "--frames", "1", "give a whole number, 2 or more"),
    ("clip_memory", "--height", "721", "give a multiple of 2, 64 or more"),
    ("data_reader", "--rows", "2", "give a whole number, 3 or more"),
]


@pytest.mark.parametrize(("name", "flag", "value", "remedy"), WRONG)
def test_an_argument_that_cannot_be_used_ends_a_benchmark_at_once(monkeypatch, capsys, name, flag, value, remedy):
    monkeypatch.setattr(sys, "argv", [name, f"{flag}={value}"])
    with pytest.raises(SystemExit) as ended:
        import_module(f"benchmarks.{name}").main()
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {flag}: " in last and remedy in last


def test_arguments_that_can_be_used_are_read(tmp_path):
    assert (page.positive("7"), page.whole(0)("0"), page.whole(8, multiple=8)("16"), page.above_zero("0.5")) == (7, 0, 16, 0.5)
    assert page.page_file(str(tmp_path / "new.md")) == tmp_path / "new.md"


def test_a_kept_folder_tells_its_own_tables_and_rows(tmp_path, monkeypatch):
    for name in ("synced", "sync_file_system"):
        monkeypatch.setattr(store_files, name, getattr(store_files, name))  # `fill` replaces them; puts them back
    folder = tmp_path / "cells"
    assert many_cells.kept(folder, None, 60) is None
    folder.mkdir()
    assert many_cells.kept(folder, 3, 60) is None
    many_cells.fill(folder, 1, 2)
    assert many_cells.kept(folder, None, None) == many_cells.kept(folder, 1, 2) == (1, 2)
    with pytest.raises(SystemExit, match="holds 1 tables of 2 rows; leave --tables and --rows out"):
        many_cells.main(["--keep", str(folder), "--rows", "60"])
    (folder / many_cells.FILLED).unlink()
    with pytest.raises(SystemExit, match="holds no complete results of this benchmark; remove it"):
        many_cells.main(["--keep", str(folder)])
    (folder / many_cells.FILLED).write_text(json.dumps([1, 2]))
    with pytest.raises(SystemExit, match="name another folder with --keep"):
        many_cells.main(["--keep", str(folder / many_cells.FILLED / "inside")])
