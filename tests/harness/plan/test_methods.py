"""Rows of several recipes in one experiment: each is the job it would be in an experiment of its own recipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.diff import difference, side
from harness.cli.export import specs
from harness.plan import Plan, plan_experiment
from harness.report.numbers.study import study_of
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, REPOSITORY
from tests.harness.conftest import fake_digest

METHODS = EXPERIMENTS / "methods.yaml"
ALONE = """\
table: alone
title: One method
recipe: {recipe}
columns: [mmvp]
rows:
  - Row: {{stages: [{stages}]}}
"""
OWN = {
    "Vanilla SFT ×2": ("visreflect", "sft"),
    "V-Reflection (release)": ("vreflection-release", "stage1, stage2"),
    "LVR (supervised stage)": ("lvr", "lvr"),
    "VisReflect image (paper)": ("visreflect", "reflect"),
    "VisReflect image (release)": ("visreflect-release", "reflect"),
}


def planned(path: Path = METHODS, profile: str = "proxy", **choices) -> Plan:
    return plan_experiment(path, profile, tasks=fake_digest, **choices)


@pytest.mark.parametrize("row", OWN)
def test_a_row_of_another_recipe_is_the_job_that_a_table_of_that_recipe_would_make(row, tmp_path):
    recipe, stages = OWN[row]
    (tmp_path / "alone.yaml").write_text(ALONE.format(recipe=recipe, stages=stages))
    alone, among = planned(tmp_path / "alone.yaml", seeds=1), planned(seeds=1)
    assert among.checkpoints[row][0].key == alone.checkpoints["Row"][0].key
    assert among.cell(row, "mmvp").jobs[0, "own"].key == alone.cell("Row", "mmvp").jobs[0, "own"].key


def test_rows_without_a_recipe_share_their_jobs_with_the_papers_tables():
    methods, stages = planned(), planned(EXPERIMENTS / "table3c.yaml")
    assert methods.checkpoints["V-Reflection (paper)"] == stages.checkpoints["Two-stage (Ours)"]
    assert methods.base == stages.base


def test_only_the_chosen_rows_recipes_are_named_and_travel_with_an_export():
    every, some = planned(), planned(rows=["Vanilla SFT", "LVR"])
    assert [recipe.path.stem for recipe in every.recipes] == ["vreflection", "visreflect", "vreflection-release", "lvr", "visreflect-release"]
    assert study_of(some).recipe_text == "recipes vreflection, lvr"
    assert {f"recipes/{recipe.path.name}" for recipe in every.recipes} <= specs([every]).keys()


def test_another_recipe_on_the_command_line_leaves_rows_with_their_own_alone():
    usual, other = planned(seeds=1), planned(seeds=1, recipe="vreflection-release")
    changed = {row for row, seeds in usual.checkpoints.items() if seeds[0].key != other.checkpoints[row][0].key}
    assert changed == {"Vanilla SFT", "V-Reflection (paper)"}
    with pytest.raises(SpecError, match="--recipe lvr: no row uses it"):
        planned(rows=["LVR", "VisReflect image (paper)"], recipe="lvr")


def test_an_option_of_one_method_may_be_overridden_beside_rows_that_lack_it():
    usual, other = planned(seeds=1), planned(seeds=1, overrides=["lvr.lambda_lvr=1"])
    changed = {row for row, seeds in usual.checkpoints.items() if seeds[0].key != other.checkpoints[row][0].key}
    assert changed == {"LVR (supervised stage)"}


def test_diff_compares_rows_of_two_methods():
    said = difference(side(f"{METHODS}:LVR", None), side(f"{METHODS}:VisReflect image (paper)", None))
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()[1:]}
    assert lines["stages"] == ["[lvr]", "[reflect]"] and lines["lvr.lambda_lvr"] == ["0.1", "–"] and lines["decode.start"] == ["emitted", "forced"]


def test_a_row_may_sweep_an_option_of_its_own_recipe(tmp_path):
    text = ALONE.format(recipe="vreflection", stages="sft") + "  - λ = {lambda_lvr}: {recipe: lvr, stages: [lvr], sweep: {lvr.lambda_lvr: [0.1, 1]}}\n"
    (tmp_path / "swept.yaml").write_text(text)
    swept, methods = planned(tmp_path / "swept.yaml", seeds=1), planned(seeds=1)
    assert swept.checkpoints["λ = 0.1"] == methods.checkpoints["LVR (supervised stage)"] != swept.checkpoints["λ = 1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["methods", "collapse"])
def test_the_table_runs_whole_at_the_smallest_scale(name, tmp_path):
    words = [sys.executable, "run.py", f"experiments/{name}.yaml", "--profile", "smoke", "--results", str(tmp_path / "results")]
    done = subprocess.run([*words, "--reports", str(tmp_path / "reports")], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = next((tmp_path / "reports").glob("*.md")).read_text()
    rows = [row.label for row in planned(EXPERIMENTS / f"{name}.yaml", "smoke").rows]
    assert all(f"| {row} " in page for row in rows) and "not run" not in page
