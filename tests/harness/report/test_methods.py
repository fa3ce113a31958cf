"""A report of rows of several recipes, of which no paper prints a number."""

from harness.report import render
from harness.store import Store
from tests.harness.report.world import fill, make_plan


def test_a_table_of_several_recipes_names_them_and_has_no_column_for_values_that_nobody_reported(tmp_path):
    plan, store = make_plan(tmp_path, n=60, table="methods"), Store(tmp_path / "results")
    fill(store, plan, n=60)
    render(plan, store, tmp_path / "reports", formats=("md",))
    page = (tmp_path / "reports" / "tablemethods.md").read_text()
    assert "· recipes vreflection, visreflect, vreflection-release, lvr, visreflect-release ·" in page
    header = next(line for line in page.splitlines() if line.startswith("| Row | Slots in training"))
    assert header.count(": proxy") == 3 and ": paper" not in header
    assert "what was claimed" not in page
    silent = page[page.index("The source of the recipe named first is silent") :]
    assert "- lvr: latent\\_steps = 8" in silent and "- vreflection: tau = 1" in silent and "\n- tau" not in silent
