"""A table of very many rows: what is left out, and that the report says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.many_cells import invent, write_tables
from harness.plan import plan_experiment
from harness.report.numbers.families import declared, exploratory, uncompared
from harness.report.numbers.results import Results
from harness.report.numbers.study import study_of
from harness.report.sections.build import CHART_ROWS, chart
from harness.report.sections.pairs import uncompared_note
from harness.spec.comparisons import MOST_ROWS, Pair, comparisons_of
from harness.store import Store


def results_of(folder: Path, rows: int) -> Results:
    (file,) = write_tables(folder / "specs", 1, rows)
    plan, store = plan_experiment(file, "many", columns=["mmvp"]), Store(folder / "results")
    store.ensure_all(plan.graph)
    for job in plan.graph:
        invent(store, job)
    return Results(study_of(plan), store, folder)


@pytest.mark.parametrize(("rows", "few"), [(MOST_ROWS, True), (MOST_ROWS + 1, False)])
def test_all_pairs_are_compared_up_to_so_many_rows_and_beyond_the_report_says_what_to_do(tmp_path, rows, few):
    results = results_of(tmp_path, rows)
    pairs = math.comb(rows, 2)
    asked = [one for one in comparisons_of(results.study.experiment) if isinstance(one, Pair)]
    assert len(asked) == (pairs if few else 0)
    assert len(declared(results).pairs) == (pairs if few else 0) + rows * bool(results.study.base)
    assert exploratory(results) == {} and uncompared(results) == (0 if few else rows)
    said = " ".join(uncompared_note(results))
    assert said == "" if few else f"{rows} rows make {pairs:,} pairs" in said and "comparisons:" in said


def test_the_chart_shows_what_a_page_holds_and_says_of_how_many(tmp_path):
    drawn = chart(results_of(tmp_path, CHART_ROWS + 5))
    assert len(drawn.rows) == len(drawn.panels[0].measured) == CHART_ROWS
    assert f"first {CHART_ROWS} of {CHART_ROWS + 5} rows" in drawn.measured_title
