"""The questions one by one: what a viewer is given, over a real mirror and invented answers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from harness.cli.samples import record, slug
from harness.report.numbers.results import Results
from harness.report.numbers.study import settled, study_of
from harness.report.viewer.answers import UNREADABLE, Answer, Run, Sheet, columns_of, kinds, row_label, sheet, spread
from harness.report.viewer.files import FRAME_SIDE, FRAMES, PART_BYTES, SIDE, reduced, write
from harness.spec.errors import SpecError
from harness.store import Store
from harness.store import store as store_module
from models.proxy.clip_mirror import write_clip_mirror
from models.proxy.mirrors import write_mirror
from tests.harness.cli.test_programs import described
from tests.harness.report.test_report import Page
from tests.harness.report.world import fill, make_plan

ROWS = ("Two-stage (Ours)", "Joint Train")
HEAD = {"label": "Table 3c", "title": "A title", "profile": "invented", "protocol": "paper"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    folder = tmp_path_factory.mktemp("viewer")
    plan, store = make_plan(folder, n=40, seeds=2), Store(folder / "results")
    fill(store, plan, n=40, skip=("stage2-teacher-random",))
    mirror = plan.cell(ROWS[0], "mmvp").by_seed()[0].inputs["mirror"]
    write_mirror(store.outputs(mirror), "mmvp", n=40, seed=0, split="test")
    patch.undo()
    return plan, store, Results(settled(study_of(plan), store), store, folder / "reports" / "samples")


@pytest.fixture(scope="module")
def mmvp(world):
    plan, _, results = world
    (column,) = columns_of(plan, "mmvp")
    return sheet(results, column, "paper", 1000)


def delivered(path):
    """The value of a data file."""
    text = path.read_text()
    name, _, value = text.removeprefix("deliver(").removesuffix(");\n").partition(",")
    return json.loads(name), json.loads(value)


def test_every_evaluation_is_there_once_and_what_was_not_run_is_named(world, mmvp):
    plan, store, _ = world
    seen = [(run.row, run.latents, run.seed) for run in mmvp.runs]
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one[0] == "Base model"] == [("Base model", "own", 0)], "one evaluation stands for both seeds"
    assert {latents for row, latents, _ in seen if row == "Joint Train"} == {"own", "zeroed", "shuffled", "oracle"}
    assert any(one.startswith("Stage 2 Only, own latents, seed 0: ") for one in mmvp.missing)
    run = mmvp.of("Joint Train", 1)
    rows = [json.loads(line) for line in (store.outputs(plan.cell("Joint Train", "mmvp").by_seed()[1]) / "samples.jsonl").open()]
    assert [answer.right for answer in run.answers] == [row["correct"] for row in rows]
    assert [answer.prediction for answer in run.answers] == [row["prediction"] or UNREADABLE for row in rows]


def test_the_base_model_is_compared_with_any_seed_of_a_row(mmvp):
    assert mmvp.of("Base model", 1) == mmvp.of("Base model") and mmvp.of("Joint Train", 1).seed == 1
    assert mmvp.of("Joint Train", 7) is None
    assert mmvp.words(("Base model", "Joint Train"), 1).startswith(f"{mmvp.title}: 40 questions")


def test_a_line_for_the_terminal_counts_right_and_wrong(mmvp):
    first, second = (mmvp.of(row) for row in ROWS)
    only = sum(a.right and not b.right for a, b in zip(first.answers, second.answers))
    assert mmvp.words(ROWS).startswith(f"{mmvp.title}: 40 questions; both right ") and f"only the first {only}," in mmvp.words(ROWS)


def test_a_program_gets_the_questions_on_which_two_rows_differ(mmvp, tmp_path):
    written = write(tmp_path / "page.html", HEAD, [mmvp])
    said = record(ROWS, None, "paper", tmp_path / "page.html", [mmvp], written.questions)
    (column,), told = said["columns"], described("samples FILE ROW ROW")
    assert set(said) == told["object"] and set(column) == told["a column"]
    assert len(column["questions"]) == column["only_first"] + column["only_second"] > 0
    for one in column["questions"]:
        assert set(one) == told["a question"] and set(one["first"]) == told["first, second"]
        assert one["first"]["correct"] != one["second"]["correct"] and one["question"] and set(one["options"]) == {"A", "B"}


def test_the_files_hold_every_answer_and_its_text_and_each_picture_once(world, mmvp, tmp_path):
    path = tmp_path / "samples" / "table3c.html"
    written = write(path, HEAD, [mmvp])
    name, data = delivered(path.with_suffix("") / "mmvp.js")
    assert name == "mmvp" and len(data["questions"]) == 40 and len(data["runs"]) == len(mmvp.runs)
    for run, given in zip(mmvp.runs, data["runs"]):
        assert given["right"] == "".join("01"[answer.right] for answer in run.answers)
        assert [data["said"][at] for at in given["said"]] == [answer.prediction for answer in run.answers]
    _, part = delivered(path.with_suffix("") / "mmvp-0.js")
    assert part["texts"][part["answers"][0][0][0]] == "<|lvr_start|>A<|im_end|>" and part["answers"][0][0][1] == 8
    question = data["questions"][3]
    assert question["text"] and len(question["options"]) == 2 and question["target"] in ("A", "B")
    file, width, height, boxes, below = question["pictures"][0]
    assert below == "" and question["lost"] == ""
    with Image.open(path.with_suffix("") / file) as picture:
        assert picture.size == (width, height) and all(0 <= side <= 100 for side in boxes[0])
    on_disk = {str(one.relative_to(path.with_suffix(""))) for one in path.with_suffix("").rglob("*") if one.is_file()}
    assert on_disk == written.names and sum(name.startswith("pictures/") for name in on_disk) <= 40
    page = Page()
    page.feed(path.read_text())
    assert page.open == [] and page.loads == []


def test_what_an_earlier_viewer_left_is_gone(mmvp, tmp_path):
    stale = tmp_path / "table3c" / "gone.js"
    stale.parent.mkdir()
    stale.write_text("deliver('gone', 1)")
    write(tmp_path / "table3c.html", HEAD, [mmvp])
    assert not stale.exists()


def test_kinds_are_what_tells_questions_apart_and_can_be_chosen_from():
    rows = [{"task": "t", "groups": {"pair": str(k), "category": "odd" if k % 2 else "even", "same": "x"}} for k in range(40)]
    assert set(kinds(rows)) == {(("category", "odd"),), (("category", "even"),)}
    rows = [{"task": f"t{k % 2}", "groups": {"task": f"t{k % 2}"}} for k in range(4)]
    assert kinds(rows)[0] == (("task", "t0"),), "a group that repeats the task is no other kind"
    assert kinds([{"task": "t"}] * 3) == ((), (), ())


def test_fewer_questions_are_spread_evenly_over_all():
    keys = [("t", at) for at in range(1000)]
    assert spread(keys, 4) == [("t", 0), ("t", 250), ("t", 500), ("t", 750)] and spread(keys, 2000) == keys


def test_a_large_picture_is_reduced_and_a_drawing_keeps_its_colours():
    name, _, size = reduced(Image.effect_noise((4000, 2000), 80))
    assert size == (SIDE, SIDE // 2) and name.endswith(".jpg")
    name, _, size = reduced(Image.new("RGBA", (64, 64), "#336699"))
    assert size == (64, 64) and name.endswith(".png")


def test_long_answers_are_cut_with_a_word_and_their_files_stay_small(world, mmvp, tmp_path):
    from dataclasses import replace

    long = tuple(replace(run, answers=tuple(replace(a, response=f"{k} " * 5000, prediction="y" * 500) for k, a in enumerate(run.answers))) for run in mmvp.runs)
    write(tmp_path / "long.html", HEAD, [replace(mmvp, runs=long)])
    parts = sorted((tmp_path / "long").glob("mmvp-*.js"))
    assert len(parts) > 1 and max(part.stat().st_size for part in parts) < 2 * PART_BYTES
    assert "more characters)" in parts[0].read_text() and "(440 more characters)" in (tmp_path / "long" / "mmvp.js").read_text()


def test_a_row_is_named_by_any_part_that_fits_one_and_a_wrong_name_gets_the_nearest(world):
    plan = world[0]
    assert row_label(plan, "two-stage") == "Two-stage (Ours)" and row_label(plan, "base") == "Base model"
    with pytest.raises(SpecError, match='no row "Joint Tain"; did you mean "Joint Train"'):
        row_label(plan, "Joint Tain")
    with pytest.raises(SpecError, match='row "stage" fits .* write more of the name'):
        row_label(plan, "stage")
    with pytest.raises(SpecError, match='no column "mnvp"; did you mean "mmvp"'):
        columns_of(plan, "mnvp")


def test_runs_that_answered_other_questions_are_refused(world):
    plan, store, results = world
    (column,) = columns_of(plan, "blink")
    file = store.outputs(plan.cell("Joint Train", "blink").by_seed()[0]) / "samples.jsonl"
    before = file.read_text()
    try:
        file.write_text("".join(before.splitlines(keepends=True)[1:]))
        with pytest.raises(SpecError, match="blink: Joint Train did not answer the same questions as Base model; only one has vr_blink_counting number 0"):
            sheet(results, column, "paper", 1000)
    finally:
        file.write_text(before)


def test_a_question_whose_missing_clip_counts_for_nothing_is_not_shown_and_one_that_counts_as_wrong_is(world):
    plan, store, results = world
    (column,) = columns_of(plan, "blink")
    whole = sheet(results, column, "paper", 1000)
    files = {store.outputs(run.job) / "samples.jsonl" for run in whole.runs}
    before = {file: file.read_text() for file in files}
    try:
        for file, text in before.items():
            rows = [json.loads(line) for line in text.splitlines()]
            rows[0] |= {"correct": None, "prediction": "missing clip", "rejected": "missing clip a.mp4: no such file; put it there"}
            rows[1] |= {"correct": False, "prediction": None, "rejected": "unreadable clip b.mp4: not a readable clip"}
            rows[2] |= {"correct": None, "prediction": ""}  # an empty answer that its task leaves out
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = sheet(results, column, "paper", 1000)
    finally:
        for file, text in before.items():
            file.write_text(text)
    assert found.questions == whole.questions[1:] and found.asked == whole.asked - 1
    assert [answer.right for answer in found.runs[0].answers[:2]] == [False, False] and found.runs[0].answers[0].prediction == UNREADABLE
    assert "questions that count for nothing, as their clips are missing: 1" in found.missing


def test_a_page_of_another_protocol_or_column_is_another_file():
    assert slug("table3c", "", "") == "table3c" and slug("table3c", "", "stock") == "table3c-stock" and slug("table3c", "mmvp", "") == "table3c-mmvp"


@pytest.mark.parametrize("task", ["visreflect_videomme", "videomme"])
def test_of_a_clip_four_frames_are_shown_with_their_seconds_and_of_one_that_is_gone_why(task, tmp_path):
    mirror = tmp_path / "mirror"
    write_clip_mirror(mirror, n=9, seed=0, split="test")
    clips = sorted((mirror / "data").iterdir())
    clips[1].unlink()
    clips[2].write_bytes(b"no clip")
    run = Run("Base model", "own", 0, SimpleNamespace(name="job"), (Answer("A", True, "A", 0, False, None),) * 9)
    column = SimpleNamespace(name="videomme", benchmark="videomme")
    asked = Sheet(column, "Video-MME", 9, tuple((task, k) for k in range(9)), ("A",) * 9, ((),) * 9, (run,), mirror)
    written = write(tmp_path / "page.html", HEAD, [asked])
    whole, gone, broken = (written.questions["videomme"][k] for k in (0, 3, 6))
    assert [below for *_, below in whole["pictures"]] == ["0.0 s", "2.0 s", "3.5 s", "5.5 s"], "of 12 frames, two a second"
    assert len({file for file, *_ in whole["pictures"]}) == FRAMES and whole["lost"] == ""
    for file, width, height, boxes, _ in whole["pictures"]:
        with Image.open(tmp_path / "page" / file) as picture:
            assert picture.size == (width, height) and max(width, height) <= FRAME_SIDE and boxes == []
    assert gone["pictures"] == broken["pictures"] == []
    assert gone["lost"].startswith(f"data/{clips[1].name}: ") and broken["lost"].startswith(f"data/{clips[2].name}: not a readable clip")
    assert gone["text"].splitlines()[1:] and str(tmp_path) not in gone["lost"] + broken["lost"]
    assert written.questions["videomme"][1]["pictures"] == whole["pictures"], "decoded once"
