"""Which rows get a causal card, of what, and that a table which asks for none is as it was."""

from __future__ import annotations

import pytest

from harness.cli.tracking import uses
from harness.spec import load_experiment
from harness.spec.errors import SpecError
from models.config import CardSpec
from tests.harness.report.world import make_plan

SPEC = """\
table: "x"
title: invented
columns: [mmvp, blink]
{card}rows:
  - Base: {{stages: []}}
  - SFT: {{stages: [sft]}}
  - Stage 1: {{stages: [stage1]}}
  - Reflect: {{stages: [reflect]}}
"""


@pytest.fixture
def planned(tmp_path):
    from harness.plan import plan_experiment
    from harness.spec import load_profile
    from tests.harness.report.world import PROFILE

    def plan(card: str, **options):
        profile = PROFILE.format(n=16, seeds=2, side_seeds="null", side_benchmarks="null", proxy="true")
        (tmp_path / "invented.yaml").write_text(options.pop("profile", lambda text: text)(profile))
        (tmp_path / "x.yaml").write_text(SPEC.format(card=card))
        tasks = lambda benchmark, protocol: {f"{protocol}_{benchmark}": "0" * 64}
        return plan_experiment(tmp_path / "x.yaml", load_profile(str(tmp_path / "invented.yaml")), tasks=tasks, **options)

    return plan


def cards(plan):
    return [job for job in plan.graph if job.kind == "card"]


def test_only_a_table_that_asks_has_cards_and_its_other_jobs_keep_their_keys(planned):
    without, asked = planned(""), planned("card: true\n")
    assert not cards(without) and len(cards(asked)) == 2
    added = {job.key for job in asked.graph} - {job.key for job in without.graph}
    assert {job.key for job in without.graph} < {job.key for job in asked.graph}
    assert sorted(job.kind for job in asked.graph if job.key in added) == ["card", "card", "mirror"]


def test_rows_with_latents_get_one_of_the_first_seed_on_twins_whatever_their_method(planned):
    plan = planned("card: true\n")
    assert {row for job in cards(plan) for row in plan.rows_of(job)} == {"Stage 1", "Reflect"}
    for job in cards(plan):
        assert job.inputs["checkpoint"].payload.get("seed", 0) == 0
        assert job.inputs["mirror"].payload["source"] == "twins" and job.inputs["mirror"].payload["n"] == 16
        assert CardSpec.model_validate(job.payload).decode.start == "forced"
    oracle = {row: CardSpec.model_validate(job.payload).oracle for job in cards(plan) for row in plan.rows_of(job)}
    assert oracle["Stage 1"], "its BCM can look at a box"


def test_a_card_belongs_to_a_table_with_columns(tmp_path):
    (tmp_path / "x.yaml").write_text('figure: "9"\ntitle: t\nmaps: {benchmarks: [mmvp]}\ncard: true\nrows:\n  - a: {stages: [stage1]}\n')
    with pytest.raises(SpecError, match="card: belongs to a table with columns"):
        load_experiment(tmp_path / "x.yaml")


@pytest.mark.parametrize("table", ["related/cards", "table3e"])
def test_jobs_that_answer_no_benchmark_are_named_in_mlflow_too(table, tmp_path):
    plan = make_plan(tmp_path, table=table)
    used = uses(plan)
    assert all(used[job.key][0].name for job in plan.graph if job.kind in ("card", "measure"))
    assert {job.kind for job in plan.graph} & {"card", "measure"}


def test_the_shipped_table_of_cards_plans_one_for_each_row(tmp_path):
    plan = make_plan(tmp_path, table="related/cards")
    assert {row for job in cards(plan) for row in plan.rows_of(job)} == {"Stage 1 Only", "Stage 2 Only", "Joint Train", "Two-stage (Ours)"}
