"""The same numbers for other programs and for a paper: JSON, CSV, the tabular alone, DataFrames."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from harness import load
from harness.frames import TableFrames, experiment
from harness.report import paths, render, up_to_date
from harness.spec.errors import SpecError
from harness.store import Store
from tests.harness.cli.test_programs import described
from tests.harness.report.world import fill, make_plan

ROW = "Two-stage (Ours)"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    plan, store = make_plan(folder, n=120, seeds=2), Store(folder / "results")
    fill(store, plan, n=120, skip=("stage2-teacher-random-seed0-mmvp-paper-", "stage2-teacher-random-seed1-mmvp-paper-"))
    render(plan, store, folder / "reports")
    return plan, store, folder / "reports"


@pytest.fixture(scope="module")
def written(world):
    plan, _, reports = world
    files = paths(plan, reports)
    return json.loads(files["json"].read_text()), pd.read_csv(io.StringIO(files["csv"].read_text())), files


def test_json_and_csv_hold_the_markdown_tables_numbers(written):
    text, table, files = written
    cell = next(c for c in text["cells"] if (c["row"], c["column"], c["protocol"], c["latents"]) == (ROW, "mmvp", "paper", "own"))
    assert f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" in files["md"].read_text()
    assert cell["n"] == 120 and cell["seeds"] == 2 and len(cell["jobs"]) == 4 and cell["reported"] == "72.3"
    assert len(table) == len(text["cells"])
    line = table[(table.row == ROW) & (table.column == "mmvp") & (table.protocol == "paper") & (table.latents == "own")]
    assert line.value.item() == pytest.approx(cell["value"])


def test_the_files_have_the_fields_that_their_description_names_and_no_others(written):
    text, table, _ = written
    told = described("NAME.json")
    assert set(text) == told["object"] and set(text["claims"][0]) == told["a claim"]
    assert all(set(one) == told["a comparison"] for one in text["comparisons"])
    own = [cell for cell in text["cells"] if cell["latents"] == "own"]
    assert own and all(set(cell) == told["a cell"] for cell in own)
    assert set(table.columns) == told["a cell"] and all(set(cell) < told["a cell"] for cell in text["cells"] if cell not in own)


def test_a_cell_without_a_value_is_there_and_says_why(written):
    text, _, _ = written
    cell = next(c for c in text["cells"] if (c["row"], c["column"], c["protocol"]) == ("Stage 2 Only", "mmvp", "paper"))
    assert cell["value"] is None and cell["state"] == "not run" and "not run" in cell["note"]


def test_only_declared_comparisons_have_a_corrected_p(written):
    text, _, _ = written
    declared = [one for one in text["comparisons"] if one["declared"]]
    others = [one for one in text["comparisons"] if not one["declared"]]
    assert declared and others
    assert all(one["p_holm"] >= one["p"] for one in declared) and all(one["p_holm"] is None for one in others)
    assert {claim["reported"] for claim in text["claims"]} <= {"holds", "fails", "undetermined", "not judged"}


def test_the_tabular_alone_has_every_row_and_no_float(written):
    text = written[2]["main"].read_text()
    assert text.count(r"\begin{tabular}") == 1 and r"\begin{table}" not in text
    assert "Two-stage (Ours) & " in text and "Stage 2 Only & not run & 68.4 & " in text


def test_the_tabular_alone_says_that_it_is_of_the_proxy_scale_and_has_the_papers_values(written):
    head, paper, row = (line for line in written[2]["main"].read_text().splitlines() if line.startswith((" & ", "{}Two-stage")))
    assert head == r" & \multicolumn{2}{c}{MMVP} & \multicolumn{2}{c}{HRBench-4K} & \multicolumn{2}{c}{BLINK} \\"
    assert paper == r" & proxy & paper & proxy & paper & proxy & paper \\"
    assert row.removesuffix(r" \\").split(" & ")[2::2] == ["72.3", "72.6", "56.4"]


def test_bold_is_only_the_row_that_is_shown_to_be_above_all_others(tmp_path):
    from tests.harness.report import world as invented

    plan, store = make_plan(tmp_path, n=400, seeds=2), Store(tmp_path / "results")
    before = dict(invented.SKILL)
    invented.SKILL["stage2"] = 0.95
    try:
        fill(store, plan, n=400)
    finally:
        invented.SKILL.update(before)
    render(plan, store, tmp_path / "reports", formats=("main", "json"), tabular="half")
    best = [c for c in json.loads((tmp_path / "reports" / "table3c.json").read_text())["cells"] if c.get("best_shown")]
    assert best and {cell["row"] for cell in best} == {ROW}
    bold = [line for line in (tmp_path / "reports" / "table3c-main.tex").read_text().splitlines() if r"\textbf" in line]
    assert len(bold) == 1 and bold[0].startswith("{}Two-stage") and r"$\pm$" in bold[0]


def test_a_table_with_other_values_beside_is_not_taken_for_the_default_one(world, tmp_path):
    plan, store, _ = world
    render(plan, store, tmp_path, tabular="half")
    assert up_to_date(plan, store, tmp_path, "half")
    assert not up_to_date(plan, store, tmp_path) and not up_to_date(plan, store, tmp_path, "none")
    render(plan, store, tmp_path)
    assert up_to_date(plan, store, tmp_path) and not up_to_date(plan, store, tmp_path, "half")


def test_nothing_is_bold_where_nothing_is_shown(written):
    text, _, files = written
    assert not any(cell.get("best_shown") for cell in text["cells"])
    assert r"\textbf" not in files["main"].read_text()


@pytest.fixture
def table(world) -> TableFrames:
    plan, store, _ = world
    return TableFrames(plan, store)


def test_the_frame_is_the_csv(table, written):
    frame = table.frame()
    assert list(frame.columns) == list(written[1].columns) and len(frame) == len(written[1])


def test_samples_and_curves_have_a_line_for_each_question_and_seed(table):
    samples = table.samples("Two-stage", "mmvp")
    assert len(samples) == 240 and set(samples.seed) == {0, 1}
    value = table.frame().query(f"row == {ROW!r} and column == 'mmvp' and protocol == 'paper' and latents == 'own'").value.item()
    assert 100 * samples.correct.mean() == pytest.approx(value)
    with pytest.raises(LookupError, match="nothing is done"):
        table.samples("Stage 2 Only", "mmvp")
    with pytest.raises(SpecError, match="no column"):
        table.samples(ROW, "mmwp")


def test_a_table_is_found_by_the_papers_name_its_files_name_or_a_path():
    assert experiment("3c") == experiment("table3c") and experiment("3c").name == "table3c.yaml"
    with pytest.raises(SpecError, match="no experiment"):
        experiment("3z")
    with pytest.raises(FileNotFoundError, match="no results folder"):
        load("nowhere")


def test_a_report_names_its_spec_as_a_person_types_it(tmp_path):
    from harness.report.numbers.study import typed
    from harness.spec.files import EXPERIMENTS

    assert typed(EXPERIMENTS / "related" / "cards.yaml") == "experiments/related/cards.yaml"
    assert typed(tmp_path / "mine" / "table.yaml") == "mine/table.yaml"
