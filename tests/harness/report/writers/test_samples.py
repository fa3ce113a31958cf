"""Two rows question by question, over a real mirror and invented answers."""

from __future__ import annotations

import json
import re

import pytest

from harness.cli.samples import slug
from harness.report.writers.samples import chosen_of, columns_of, compare, page, row_label
from harness.spec.errors import SpecError
from harness.store import Store
from harness.store import store as store_module
from models.proxy.mirrors import write_mirror
from tests.harness.report.test_report import Page
from tests.harness.report.world import fill, make_plan

ROWS = ("Two-stage (Ours)", "Joint Train")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    folder = tmp_path_factory.mktemp("samples")
    plan, store = make_plan(folder, n=40), Store(folder / "results")
    fill(store, plan, n=40, skip=("stage2-teacher-random",))
    mirror = plan.cell(ROWS[0], "mmvp").by_seed()[0].inputs["mirror"]
    write_mirror(store.outputs(mirror), "mmvp", n=40, seed=0, split="test")
    patch.undo()
    return plan, store, folder


def test_the_page_shows_the_questions_on_which_the_rows_differ_and_counts_the_rest(world):
    plan, store, folder = world
    (column,) = columns_of(plan, "mmvp")
    found = compare(plan, store, column, ROWS, "paper", folder / "reports", most=6)
    rows = [
        [json.loads(line) for line in (store.outputs(plan.cell(row, "mmvp").by_seed()[0]) / "samples.jsonl").open()]
        for row in ROWS
    ]
    differing = {a["doc_id"] for a, b in zip(*rows) if a["correct"] != b["correct"]}
    assert found.differing == len(differing) and found.n == 40
    assert found.both_right + found.differing + found.both_wrong_alike + found.both_wrong_apart == 40
    assert len(found.shown) == min(6, len(differing)) and {one.doc_id for one in found.shown} <= differing
    assert all(one.first.correct != one.second.correct for one in found.shown)
    text = page(plan, ROWS, "paper", [found])
    for one in found.shown:
        assert one.question.replace("'", "&#39;") in text and len(one.options) == 2 and one.pictures[0][2]
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == [] and len(parsed.loads) >= len(found.shown)
    assert all(source.startswith("data:image/png;base64,") for source in parsed.loads)
    address = re.search(r'href="([^"]+samples.jsonl)"', text)[1]
    assert (folder / "reports" / address).resolve().is_file()


def test_a_row_is_named_by_any_part_that_fits_one_and_a_wrong_name_gets_the_nearest(world):
    plan = world[0]
    assert row_label(plan, "two-stage") == "Two-stage (Ours)" and row_label(plan, "base") == "Base model"
    with pytest.raises(SpecError, match='no row "Joint Tain"; did you mean "Joint Train"'):
        row_label(plan, "Joint Tain")
    with pytest.raises(SpecError, match='row "stage" fits .* write more of the name'):
        row_label(plan, "stage")
    with pytest.raises(SpecError, match='no column "mnvp"; did you mean "mmvp"'):
        columns_of(plan, "mnvp")


def test_an_evaluation_that_was_not_run_is_one_line(world):
    plan, store, folder = world
    (column,) = columns_of(plan, "mmvp")
    with pytest.raises(SpecError, match="Stage 2 Only on mmvp: stage2-teacher-random.* is .*; run it first"):
        compare(plan, store, column, ("Stage 2 Only", "Joint Train"), "paper", folder, most=6)


def test_what_is_shown_keeps_the_proportion_and_never_hides_one_side():
    gained, lost = [("t", i) for i in range(90)], [("t", 100 + i) for i in range(3)]
    chosen = chosen_of(gained, lost, 10)
    assert len(chosen) == 10 and sum(doc >= 100 for _, doc in chosen) == 1
    assert chosen_of(gained[:2], lost, 10) == gained[:2] + lost
    assert chosen_of([], lost, 2) == lost[:2]


def test_a_page_of_another_protocol_or_seed_is_another_file():
    names = [slug("table3c", "Two-stage (Ours)", "Joint Train", *more) for more in (["", "", ""], ["", "stock", ""], ["", "", "seed 1"])]
    assert names[0] == "table3c-two-stage-ours-joint-train"
    assert names[1:] == [f"{names[0]}-stock", f"{names[0]}-seed-1"]
