"""A report of rows of several recipes, of which no paper prints a number."""

import re
from pathlib import Path

import pytest

from harness.report import render
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report.world import fill, make_plan


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch):
    monkeypatch.setattr(store_module.files, "sync_file_system", lambda path: None)


def page(folder: Path, n: int, columns: tuple[str, ...] = ()) -> str:
    plan, store = make_plan(folder, n=n, table="methods", columns=columns), Store(folder / "results")
    fill(store, plan, n=n)
    render(plan, store, folder / "reports", formats=("md",))
    return next((folder / "reports").glob("*.md")).read_text()


def test_a_table_of_several_recipes_names_them_and_has_no_column_for_values_that_nobody_reported(tmp_path):
    made = page(tmp_path, 60)
    assert "· recipes vreflection, visreflect, vreflection-release, lvr, visreflect-release ·" in made
    header = next(line for line in made.splitlines() if line.startswith("| Row | Slots in training"))
    assert header.count(": proxy") == 3 and ": paper" not in header
    assert "what was claimed" not in made
    silent = made[made.index("The source of the recipe named first is silent") :]
    assert "- lvr: latent\\_steps = 8" in silent and "- vreflection: tau = 1" in silent and "\n- tau" not in silent
    assert "Between rows: none of 18 declared differences is shown." in made.partition("<details>")[0]


def test_a_table_without_claims_concludes_with_the_largest_declared_difference_that_is_shown(tmp_path):
    head = page(tmp_path, 1600, columns=("mmvp",)).partition("<details>")[0]
    assert re.search(r"Between rows: \d of 6 declared differences shown, largest V-Reflection \(\w+\) − Vanilla SFT\b.* on MMVP \+\d", head)
