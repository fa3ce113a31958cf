"""Line plots and rows without seeds, on small hand-made results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from harness.report.numbers.results import BASE, Results, common_seeds
from harness.report.numbers.study import settled, study_of
from harness.report.sections.attention import Maps, sentences, share
from harness.report.sections.types import Chart, Mark, Panel
from harness.report.writers.chart import _block, _curve, _rows, draw
from harness.stats import Interval
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report.world import fill, make_plan

PLACES = {"S = 4": 4.0, "S = 1": 1.0, "S = 2": 2.0, "S = 8": 8.0}


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch):
    monkeypatch.setattr(store_module.files, "sync_file_system", lambda path: None)


def drawn(marks, measured=True):
    axis = Figure().add_subplot()
    panel = Panel("MMVP", marks if measured else (), () if measured else marks, 50.0, None)
    _curve(axis, panel, PLACES, marks, measured, Chart("t", tuple(PLACES), (panel,), "m", "r", x_label="S", x_log=True))
    return axis


def test_a_curve_goes_from_left_to_right_and_is_broken_where_a_row_has_no_value():
    marks = tuple(Mark(row, value, Interval(value - 3, value + 3)) for row, value in (("S = 4", 60.0), ("S = 1", 52.0), ("S = 8", 63.0)))
    axis = drawn(marks)
    x, y = axis.lines[0].get_xdata(), axis.lines[0].get_ydata()
    assert list(x) == [1, 2, 4, 8] and list(y[[0, 2, 3]]) == [52, 60, 63] and math.isnan(y[1])
    assert [(text.get_text(), text.xy[0]) for text in axis.texts if text.get_text() == "no result"] == [("no result", 2.0)]
    bars = sorted(tuple(line.get_ydata()) for line in axis.lines[1:4])
    assert bars == [(49.0, 55.0), (57.0, 63.0), (60.0, 66.0)]


def test_reported_values_stand_as_they_are_printed():
    axis = drawn((Mark("S = 1", 15.0, text="~15"), Mark("S = 2", 35.0, text="~35")), measured=False)
    assert [text.get_text() for text in axis.texts] == ["~15", "~35", "not reported", "not reported"]


def block(chart, measured=True, rows=None, lines=1, across=2):
    part = Figure(figsize=(9, 4)).subfigures(1, 1)
    _block(part, chart, "Measured", rows or chart.rows, measured, lines, across)
    return part


def curves(**fields):
    def panel(title, start):
        marks = tuple(Mark(row, start + at, Interval(start + at - 2, start + at + 2)) for at, row in enumerate(PLACES))
        return Panel(title, marks, (), 25.0, start + 1.0)

    return Chart("t", tuple(PLACES), (panel("MMVP", 80.0), panel("BLINK", 50.0)), "m", "r", x=tuple(PLACES.values()), **fields)


def test_reference_values_are_said_above_the_panel_where_no_point_can_be():
    part = block(curves())
    said = [[text.get_text() for text in axis.texts if "base" in text.get_text()] for axis in part.axes]
    assert said == [["dashed: base 81.0 · guessing 25.0: below"], ["dashed: base 51.0 · guessing 25.0: below"]]
    assert all(text.xy[1] == 1 for axis in part.axes for text in axis.texts if "base" in text.get_text())


def test_panels_of_curves_share_a_span_and_not_a_range():
    low, high = zip(*(axis.get_ylim() for axis in block(curves()).axes))
    assert high[0] - low[0] == pytest.approx(high[1] - low[1]) and low[0] > 70 and high[1] < 62


def test_rows_without_any_result_are_named_once_instead_of_left_empty():
    chart = Chart("t", ("A", "B"), (Panel("MMVP", (Mark("A", 60.0, Interval(58, 62)),), ()),) * 2, "m", "r")
    part = block(chart, rows=_rows(chart, True))
    assert "No result: B" in part._suptitle.get_text()
    assert [label.get_text() for label in part.axes[0].get_yticklabels()] == ["A"]


def test_a_chart_of_ten_panels_is_broken_into_lines_of_at_most_four():
    chart = Chart("t", ("A",), (Panel("MMVP", (Mark("A", 60.0, Interval(58, 62)),), ()),) * 10, "m", "r")
    wide, high = (int.from_bytes(draw(chart, "0" * 64)[at : at + 4]) for at in (16, 20))
    assert wide < 2400 and high > 600


def test_a_box_that_reaches_over_the_edge_ends_there():
    values = np.full((4, 4), 1 / 16)
    assert share(values, [[-0.3, -0.1, 0.5, 0.25]]) == pytest.approx(2 / 16)
    assert share(values, [[0.75, 0.75, 1.2, 1.4]]) == pytest.approx(1 / 16)


def test_a_share_over_fewer_samples_says_over_how_many():
    sample = {"in_box": {"teacher": 0.9}, "box_area": 0.1}
    maps = Maps(None, None, "mmvp", [sample, sample | {"in_box": {"teacher": 0.8, "student": 0.4}}], {})
    (said,) = sentences("Ours", maps)
    assert "teacher (BCM) 85.0% and student (DAC) 40.0% (of the 1 that opened a latent segment)" in said


@pytest.fixture
def three_seeds(tmp_path):
    plan, store = make_plan(tmp_path, n=40, seeds=3, table="table3c", columns=["mmvp"], protocols=["paper"]), Store(tmp_path / "r")
    fill(store, plan, n=40)
    return Results(settled(study_of(plan), store), store, tmp_path)


def test_a_model_that_is_not_trained_here_has_one_evaluation_and_no_seed_noise(tmp_path):
    plan, store = make_plan(tmp_path, n=40, seeds=3, table="controls", columns=["mmvp"], rows=["Base", "Vanilla"]), Store(tmp_path / "r")
    fill(store, plan, n=40)
    results = Results(settled(study_of(plan), store), store, tmp_path)
    base, trained = results.estimate("Base model", "mmvp"), results.estimate("Vanilla SFT", "mmvp")
    assert (base.seeds, trained.seeds) == (1, 3) and base.seed_sd is None and trained.seed_sd is not None
    assert set(results.found("Base model", "mmvp").by_seed) == {0, 1, 2}
    pair = results.pair("Vanilla SFT", "Base model", "mmvp")
    assert pair.seeds == 3 and pair.variance.seed == pytest.approx(trained.variance.seed), "one side's noise, not two"


def test_two_models_without_seeds_are_compared_once(tmp_path):
    choice = {"columns": ["mmvp"], "rows": ["Qwen", "GPT"], "table": "table1"}
    plan, store = make_plan(tmp_path, n=40, seeds=3, **choice), Store(tmp_path / "r")
    fill(store, plan, n=40)
    results = Results(settled(study_of(plan), store), store, tmp_path)
    again = results.found("Qwen2.5-VL-7B", "mmvp")
    assert again.seedless and [len(runs) for runs in common_seeds([again, again])] == [1, 1]


def test_the_plans_own_base_model_is_compared_with_every_seed(three_seeds):
    assert three_seeds.estimate(BASE, "mmvp").seeds == 1
    pair, ours = three_seeds.pair("Joint Train", BASE, "mmvp"), three_seeds.estimate("Joint Train", "mmvp")
    assert pair.seeds == 3 and pair.variance.seed > 0
    assert pair.difference == pytest.approx(ours.mean - three_seeds.estimate(BASE, "mmvp").mean)
