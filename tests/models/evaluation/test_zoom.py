"""Zooming: what a first pass says is read, the picture is cropped or the clip cut there, and what cannot be used is counted."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from models.backbone.clips import chosen, look_at
from models.config import DecodeSpec, EvaluateSpec, Images
from models.evaluation import Session, zoom
from models.evaluation import engine as engine_module
from models.evaluation.boxes import read_places
from models.evaluation.clips import ClipReader, identity, parted, span_of
from models.evaluation.engine import Engine
from models.evaluation.external import BadBenchmark, link_mirror
from models.evaluation.shards import answers_in, lines_of
from models.evaluation.tasks import digest
from models.latent.decoding import Decoded
from models.run import LocalRun
from tests.films import write_film
from tests.models.evaluation.conftest import picture
from tests.models.evaluation.test_clips import CLIPS, LIMITS, conversation
from tests.models.evaluation.test_shards import left, together

SIZE = (200, 100)


@pytest.mark.parametrize(
    "said",
    [
        '```json\n[\n\t{"bbox_2d": [50, 25, 100, 75], "label": "cat"}\n]\n```', '{"bbox_2d": [50,25,100.0,75]}', "It is at [50, 25, 100, 75].",
        "[0.25, 0.25, 0.5, 0.75]", '[{"bbox_2d": [50, 25, 100, 75]}, {"bbox_2d": [0, 0, 9, 9]}]',
    ],
)  # fmt: skip
def test_a_box_in_pixels_of_the_resized_picture_or_in_shares_of_it_is_the_same_box(said):
    assert zoom.box_in(said, SIZE) == (0.25, 0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("<answer> A </answer>", "no box in the answer"), ("[1, 2, 3]", "no box in the answer"), ("[nan, 0, inf, 1]", "no box in the answer"),
        ("[10, 10, 10, 90]", "empty box"), ("[90, 90, 10, 10]", "empty box"), ("[0.5, 0.5, 0.5, 0.5]", "empty box"),
        ("[-5, 0, 50, 50]", "box outside the picture"), ("[150, 0, 201, 50]", "box outside the picture"),
    ],
)  # fmt: skip
def test_a_box_that_cannot_be_used_says_why(said, why):
    with pytest.raises(zoom.Whole, match=f"^{why}$"):
        zoom.box_in(said, SIZE)


@pytest.mark.parametrize(
    ("said", "span"),
    [("[12.5, 18.0]", (12.5, 18)), ("[00:12.5, 00:18]", (12.5, 18)), ("from ['12s', '18s']", (12, 18)), ("[0:01:00, 0:01:12]", (60, 71.6))],
)
def test_a_span_is_read_in_seconds_and_by_the_clock(said, span):
    assert zoom.span_in(said, 71.6) == span


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("at 12 seconds", "no span in the answer"), ("[1, 2, 3]", "no span in the answer"), ("[soon, later]", "no span in the answer"),
        ("[3, 3]", "empty span"), ("[4, 3]", "empty span"), ("[-1, 3]", "span outside the clip"), ("[72, 80]", "span outside the clip"),
        ("[3, 73]", "span outside the clip"),
    ],
)  # fmt: skip
def test_a_span_that_cannot_be_used_says_why(said, why):
    with pytest.raises(zoom.Whole, match=f"^{why}$"):
        zoom.span_in(said, 71.6)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return Engine(checkpoint, precision="fp32")


def saying(monkeypatch, engine, *answers):
    """The first pass says these; what follows is the model's own. Returns the prompts of the first pass."""
    own, prompts = engine_module.stream, []

    def stream(model, source, spec, **options):
        if spec.max_new_tokens != zoom.MAX_NEW_TOKENS:
            yield from own(model, source, spec, **options)
            return
        while (joining := source([])) is not None:
            prompts.extend(engine.tokenizer.decode(one.input_ids) for one in joining.prompts)
            said = (answers * len(joining.prompts))[: len(joining.prompts)]
            ids = [engine.tokenizer(text, add_special_tokens=False)["input_ids"] for text in said]
            yield dict(zip(joining.names, [Decoded([*one], False, 0, False) for one in ids], strict=True))

    monkeypatch.setattr(engine_module, "stream", stream)
    return prompts


def zoomed(engine, *chats):
    media = [[part["url"] for part in chat[0]["content"] if part["type"] != "text"] for chat in chats]
    questions = engine.prepare(chats, LIMITS, [lambda own=own: own for own in media], reader=ClipReader(CLIPS))
    return questions, zoom.zoomed(engine, questions, chats, LIMITS, ClipReader(CLIPS), "all")


def test_the_second_pass_sees_the_picture_and_its_crop(engine, monkeypatch):
    shown = picture(3, 64)
    prompts = saying(monkeypatch, engine, "[0, 0, 0.5, 0.5]")
    _, [(second, record)] = zoomed(engine, conversation("What is it?", shown))
    assert zoom.ASK_BOX in prompts[0] and "What is it?" in prompts[0]
    assert record["box"] == [0, 0, 32, 32] and "whole" not in record
    whole, crop = second.reload()
    assert whole is shown and crop.tobytes() == shown.crop((0, 0, 32, 32)).tobytes()
    (by_hand,) = engine.prepare([conversation("What is it?", shown, crop)], LIMITS, [list])
    assert second.images == by_hand.images and second.input_ids.tolist() == by_hand.input_ids.tolist()
    engine.answer([second], DecodeSpec(latent_steps=0, max_new_tokens=4), LIMITS)


def test_the_second_pass_sees_the_clip_and_the_frames_of_the_span(engine, monkeypatch, tmp_path):
    film = str(write_film(tmp_path / "film.mp4", frames=40, size=(64, 48)))
    facts, _ = look_at(film)
    saying(monkeypatch, engine, "[1, 00:02]")
    _, [(second, record)] = zoomed(engine, conversation("What happens?", film))
    assert record["span"] == [1.0, 2.0]
    cut = span_of(film, (1.0, 2.0))
    assert second.reload() == [film, cut] and parted(cut) == (film, (1.0, 2.0)) and second.images == (identity(film), identity(cut))
    assert len(set(second.images)) == 2
    numbers = chosen(facts, CLIPS, (1.0, 2.0))
    assert min(numbers) == round(facts.fps) and max(numbers) == round(2 * facts.fps)
    assert second.grids[1].steps == (len(numbers) + 1) // 2
    held = engine.features_of([second], LIMITS)
    assert held[second.images[0]].shape != held[second.images[1]].shape or not held[second.images[0]].equal(held[second.images[1]])
    engine.answer([second], DecodeSpec(latent_steps=0, max_new_tokens=4), LIMITS)


def test_a_question_without_a_usable_box_is_asked_as_it_was(engine, monkeypatch):
    saying(monkeypatch, engine, "no idea", "[0, 0, 1e9, 4]", "[0, 0, 9999, 4]")
    chats = [conversation("?", picture(k, 64)) for k in range(3)] + [conversation("Which?", picture(4), picture(5)), conversation("None?")]
    questions, found = zoomed(engine, *chats)
    assert all(second is question for question, (second, _) in zip(questions, found, strict=True))
    why = ["no box in the answer", "no box in the answer", "box outside the picture", "no box in the answer", "no picture"]
    assert [record["whole"] for _, record in found] == why


@pytest.mark.parametrize(
    "said",
    [
        '{"image": 2, "bbox_2d": [50, 25, 100, 75]}', '```json\n[\n\t{"bbox_2d": [50,25,100.0,75], "label": "cat", "image": 2}\n]\n```',
        'It is {"image": 2, "bbox_2d": [0.25, 0.25, 0.5, 0.75]}, or {"image": 1, "bbox_2d": [0, 0, 9, 9]}.',
    ],
)  # fmt: skip
def test_of_several_pictures_the_one_that_is_named_is_that_of_the_box(said):
    assert zoom.picture_and_box_in(said, [(10, 10), SIZE]) == (1, (0.25, 0.25, 0.5, 0.75))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("The second picture.", "no box in the answer"), ("2, [50, 25, 100, 75]", "no box in the answer"),
        ('{"bbox_2d": [50, 25, 100, 75]}', "no picture's number in the answer"), ('{"image": "2", "bbox_2d": [0, 0, 9, 9]}', "no picture's number in the answer"),
        ('{"image": true, "bbox_2d": [0, 0, 9, 9]}', "no picture's number in the answer"), ('{"image": 2 "bbox_2d": [0, 0, 9, 9]}', "no picture's number in the answer"),
        ('{"bbox_2d": [0, 0, 9, 9]}, {"image": 2, "bbox_2d": [0, 0, 9, 9]}', "no picture's number in the answer"),
        ('{"image": 0, "bbox_2d": [0, 0, 9, 9]}', "no such picture"), ('{"image": 3, "bbox_2d": [0, 0, 9, 9]}', "no such picture"),
        ('{"image": 1, "bbox_2d": [50, 25, 100, 75]}', "box outside the picture"), ('{"image": 2, "bbox_2d": [5, 5]}', "no box in the answer"),
        ('{"image": 2, "bbox_2d": [5, 5, 5, 9]}', "empty box"),
    ],
)  # fmt: skip
def test_a_box_without_the_number_of_one_of_the_pictures_says_why(said, why):
    with pytest.raises(zoom.Whole, match=f"^{why}$"):
        zoom.picture_and_box_in(said, [(10, 10), SIZE])


def test_of_several_pictures_the_named_one_is_shown_closer_behind_itself(engine, monkeypatch):
    shown = [picture(3, 64), picture(4, 96), picture(5, 64)]
    prompts = saying(monkeypatch, engine, '{"image": 2, "bbox_2d": [0.5, 0.5, 1, 1]}')
    _, [(second, record)] = zoomed(engine, conversation("Which?", *shown))
    assert "number of the picture that it is in, from 1 to 3, and" in prompts[0] and '{"image": number, "bbox_2d": [x1, y1, x2, y2]}' in prompts[0]
    assert record["boxes"] == {"1": [48, 48, 96, 96]} and record["said"].startswith('{"image": 2') and "whole" not in record
    first, whole, crop, last = second.reload()
    assert [first, whole, last] == shown and crop.tobytes() == shown[1].crop((48, 48, 96, 96)).tobytes()
    (by_hand,) = engine.prepare([conversation("Which?", first, whole, crop, last)], LIMITS, [list])
    assert second.images == by_hand.images and second.input_ids.tolist() == by_hand.input_ids.tolist()
    engine.answer([second], DecodeSpec(latent_steps=0, max_new_tokens=4), LIMITS)


def test_questions_about_several_pictures_are_asked_apart_and_those_about_one_as_without_them(engine, monkeypatch, tmp_path):
    film = str(write_film(tmp_path / "film.mp4", frames=40, size=(64, 48)))
    one, clip = conversation("What is it?", picture(3, 64)), conversation("What happens?", film)
    prompts = saying(monkeypatch, engine, "[0, 0, 0.5, 0.5]")
    zoomed(engine, one, clip)
    alone = [*prompts]
    prompts.clear()
    _, found = zoomed(engine, conversation("Which?", picture(4), picture(5)), one, conversation("Both?", picture(4), film), clip)
    assert prompts[:2] == alone and len(prompts) == 3 and "Which?" in prompts[2]
    assert [zoom.ASK_BOX in alone[0], zoom.ASK_SPAN in alone[1]] == [True, True]
    assert [record.get("whole") for _, record in found] == ["no box in the answer", None, "several pictures", "no span in the answer"]


def test_a_sliver_of_a_very_long_picture_is_not_zoomed_to(engine, monkeypatch):
    saying(monkeypatch, engine, "[0.0, 0.0, 1.0, 0.05]")
    _, [(_, record)] = zoomed(engine, conversation("?", Image.new("RGB", (28 * 201, 280))))
    assert record["whole"] == "box too thin"


@pytest.mark.parametrize("said", ["[0.25, 0.25, 0.75, 0.75]", "<answer> A </answer>"])
def test_an_evaluation_zooms_through_lmms_eval_and_counts_what_it_could_not(said, checkpoint, mirrors, tmp_path, monkeypatch):
    images = Images(min_pixels=32 * 32, max_pixels=96 * 96)
    session = Session(checkpoint, precision="fp32")
    prompts = saying(monkeypatch, session.engine, said)
    results = {}
    for how in ("none", "predicted"):
        spec = EvaluateSpec(
            benchmark="vstar", tasks=digest("vstar", "paper"), images=images, precision="fp32",
            decode=DecodeSpec(latent_steps=0, start="never", max_new_tokens=8, zoom=how),
        )  # fmt: skip
        (tmp_path / how).mkdir()
        result = session.evaluate(LocalRun(tmp_path / how), spec, mirror=mirrors["vstar"], batch_size=4)
        rows = [json.loads(line) for line in next(Path(tmp_path / how).rglob("samples.jsonl")).read_text().splitlines()]
        results[how] = result, rows
    (plain, before), (result, rows) = results["none"], results["predicted"]
    assert "zoom" not in plain and not any("zoom" in row for row in before)
    assert len(prompts) == len(rows) and all(row["zoom"]["said"] == said for row in rows)
    unusable = said.startswith("<")
    reasons = {"no box in the answer": len(rows)} if unusable else {}
    assert result["zoom"] == {"n": len(rows), "whole": len(rows) if unusable else 0, "reasons": reasons}
    assert all(("whole" in row["zoom"]) == unusable and ("box" in row["zoom"]) != unusable for row in rows)
    same = [row["response"] for row in rows] == [row["response"] for row in before]
    assert same == unusable  # a crop is more to read; without one the answers are those of the whole picture


def test_the_annotated_box_is_cropped_without_a_first_pass(engine, monkeypatch):
    shown = picture(3, 64)
    prompts = saying(monkeypatch, engine, "never asked")
    _, [(second, record)] = looked(engine, [{0: (0.0, 0.0, 0.5, 0.5)}], conversation("What is it?", shown))
    assert record == {"box": [0, 0, 32, 32]} and not prompts
    (by_hand,) = engine.prepare([conversation("What is it?", shown, shown.crop((0, 0, 32, 32)))], LIMITS, [list])
    assert second.images == by_hand.images and second.input_ids.tolist() == by_hand.input_ids.tolist()


def test_of_several_pictures_each_annotated_one_is_shown_closer_behind_itself(engine):
    first, second = picture(3, 64), picture(4, 64)
    _, [(question, record)] = looked(engine, [{1: (0.5, 0.5, 1.0, 1.0)}], conversation("Which?", first, second))
    assert record == {"boxes": {"1": [32, 32, 64, 64]}}
    assert [one.tobytes() for one in question.reload()] == [first.tobytes(), second.tobytes(), second.crop((32, 32, 64, 64)).tobytes()]
    (by_hand,) = engine.prepare([conversation("Which?", *question.reload())], LIMITS, [list])
    assert question.input_ids.tolist() == by_hand.input_ids.tolist() and question.images == by_hand.images
    engine.answer([question], DecodeSpec(latent_steps=0, max_new_tokens=4), LIMITS)


def test_the_annotated_span_is_cut_and_what_lies_behind_the_end_is_not(engine, tmp_path):
    film = str(write_film(tmp_path / "film.mp4", frames=40, size=(64, 48)))
    chats = [conversation("What happens?", film)] * 4
    questions, found = looked(engine, [{0: (1.0, 2.0)}, {0: (3.0, 9.0)}, {0: (4.0, 5.0)}, {}], *chats)
    assert [record for _, record in found] == [{"span": [1.0, 2.0]}, {"span": [3.0, 4.0]}, {"whole": "span outside the clip"}, {"whole": "nothing is annotated"}]
    assert found[0][0].images == (identity(film), identity(span_of(film, (1.0, 2.0)))) and found[2][0] is questions[2]


def looked(engine, places, *chats):
    media = [[part["url"] for part in chat[0]["content"] if part["type"] != "text"] for chat in chats]
    questions = engine.prepare(chats, LIMITS, [lambda own=own: own for own in media], reader=ClipReader(CLIPS))
    return questions, zoom.annotated(engine, questions, chats, places, LIMITS, ClipReader(CLIPS))


def test_what_is_annotated_several_times_is_held_by_one_box_or_span(tmp_path):
    (tmp_path / "boxes.jsonl").write_text(
        '{"doc_id": 0, "boxes": [[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.5, 0.3], [0.0, 0.0, 0.1, 0.1]], "images": [0, 0, 2]}\n{"doc_id": 1, "boxes": []}\n'
    )
    (tmp_path / "spans.jsonl").write_text('{"doc_id": 3, "spans": [[4, 5.5], [1.5, 2]]}\n')
    assert read_places(tmp_path, None, clips=False) == {0: {0: (0.1, 0.1, 0.5, 0.4), 2: (0.0, 0.0, 0.1, 0.1)}}
    assert read_places(tmp_path, "part", clips=True) == {3: {0: (1.5, 5.5)}}
    with pytest.raises(FileNotFoundError, match="holds no spans.jsonl"):
        read_places(tmp_path / "elsewhere", None, clips=True)


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("boxes.jsonl", '{"doc_id": 1, "boxes": [[0, 0, 1]]}', "expected .*4 numbers"), ("boxes.jsonl", '{"boxes": []}', "expected .*doc_id"),
        ("boxes.jsonl", '{"doc_id": 1, "boxes": [[0, 0, 120, 90]]}', "as shares of the picture"), ("boxes.jsonl", "{", "expected .*doc_id"),
        ("spans.jsonl", '{"doc_id": 1, "spans": [[3, 1]]}', "the begin before the end"), ("spans.jsonl", '{"doc_id": 1, "spans": [["a", "b"]]}', "expected .*2 numbers"),
        ("spans.jsonl", '{"doc_id": 400, "spans": [[1, 3]]}', "doc_id 400, and there are"), ("spans.jsonl", '{"doc_id": 1.5, "spans": [[1, 3]]}', "expected .*doc_id"),
        ("spans.jsonl", '{"doc_id": 0, "spans": [[1, 3]]}', "jsonl:2: doc_id 0 a second time, after line 1; write all its spans on one line"),
        ("boxes.jsonl", '{"doc_id": 1, "boxes": [[0, 0, 1, 1]], "images": [-1]}', "image -1; expected the number of a picture"),
    ],
)  # fmt: skip
def test_annotation_that_cannot_be_used_is_one_line_of_the_mirror_job(name, line, why, mirrors, tmp_path):
    shutil.copytree(mirrors["vstar"], tmp_path / "data")
    (tmp_path / "data" / name).write_text('{"doc_id": 0, "boxes": [], "spans": []}\n' + line + "\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadBenchmark, match=why) as error:
        link_mirror(tmp_path / "out", "vstar", str(tmp_path / "data"))
    assert "\n" not in str(error.value) and name in str(error.value) and str(tmp_path / "out") not in str(error.value)


def test_annotation_above_several_configurations_is_refused_and_of_one_leaves_the_others_whole(mirrors, tmp_path):
    shutil.copytree(mirrors["blink"], tmp_path / "data")
    for number, place in enumerate(("Counting", ".")):
        (tmp_path / "data" / place / "boxes.jsonl").write_text('{"doc_id": 0, "boxes": [[0, 0, 1, 1]]}\n')
        (out := tmp_path / f"out{number}").mkdir()
        if place == ".":
            with pytest.raises(BadBenchmark, match=f"{tmp_path}/data/boxes.jsonl: its doc_id would count the questions of each of 5 configurations.* in a folder of its name"):
                link_mirror(out, "blink", str(tmp_path / "data"))
            continue
        link_mirror(out, "blink", str(tmp_path / "data"))
        assert read_places(out, "Counting", clips=False, among=["Counting", "Jigsaw"]) == {0: {0: (0, 0, 1, 1)}}
        assert read_places(out, "Jigsaw", clips=False, among=["Counting", "Jigsaw"]) == {}


def test_an_evaluation_zooms_to_the_annotated_boxes_and_counts_what_has_none(checkpoint, mirrors, tmp_path):
    images = Images(min_pixels=32 * 32, max_pixels=96 * 96)
    shutil.copytree(mirrors["vstar"], tmp_path / "data")
    (tmp_path / "data/boxes.jsonl").write_text('{"doc_id": 0, "boxes": [[0.25, 0.25, 0.75, 0.75]]}\n{"doc_id": 1, "boxes": [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]}\n')
    session = Session(checkpoint, precision="fp32")
    spec = EvaluateSpec(
        benchmark="vstar", tasks=digest("vstar", "paper"), images=images, precision="fp32",
        decode=DecodeSpec(latent_steps=0, start="never", max_new_tokens=8, zoom="oracle"),
    )  # fmt: skip
    result = session.evaluate(LocalRun(tmp_path / "run"), spec, mirror=tmp_path / "data", batch_size=4)
    rows = [json.loads(line) for line in next((tmp_path / "run").rglob("samples.jsonl")).read_text().splitlines()]
    assert [list(row["zoom"]) for row in rows] == [["box"], ["box"]] + [["whole"]] * (len(rows) - 2) and len(rows) > 2
    assert result["zoom"] == {"n": len(rows), "whole": len(rows) - 2, "reasons": {"nothing is annotated": len(rows) - 2}}
    with pytest.raises(FileNotFoundError, match="zoom: oracle needs the annotated boxes"):
        session.evaluate(LocalRun(tmp_path / "none"), spec, mirror=mirrors["vstar"], batch_size=4)


@pytest.mark.parametrize("how", ["predicted", "oracle"])
def test_several_processes_zoom_as_one_does(how, checkpoint, mirrors, images, tmp_path, monkeypatch):
    shutil.copytree(mirrors["blink"], tmp_path / "data")
    (tmp_path / "data/boxes.jsonl").write_text("".join(json.dumps({"doc_id": k, "boxes": [[0, 0, 0.5, 0.5]]}) + "\n" for k in range(2)))
    session = Session(checkpoint, precision="fp32")
    saying(monkeypatch, session.engine, "[0.25, 0.25, 0.75, 0.75]")
    spec = EvaluateSpec(
        benchmark="blink", tasks=digest("blink", "paper"), images=images, precision="fp32",
        decode=DecodeSpec(latent_steps=0, start="never", max_new_tokens=6, zoom=how),
    )  # fmt: skip

    def evaluate(run):
        session.engine.forget_answers()
        session._prepared.clear()
        return session.evaluate(run, spec, mirror=tmp_path / "data", batch_size=2)

    evaluate(LocalRun(tmp_path / "one"))
    result, codes = together(3, tmp_path / "several", evaluate)
    assert codes == [0, 0]
    assert left(tmp_path / "several/out") == left(tmp_path / "one")
    assert result["zoom"]["n"] == result["n"] > result["zoom"]["whole"] > 0


def test_what_became_of_a_zoom_survives_an_interruption():
    answer = engine_module.Answer("A", False, 0, False, 1, zoom={"said": "[1, 2]", "tokens": 4, "whole": "no box in the answer"})
    assert answers_in(lines_of({("t", 1): answer})) == {("t", 1): answer}


def test_the_benchmark_of_time_counts_what_two_passes_read_and_encode(tmp_path):
    import benchmarks.zoom as timed

    asked = timed.questions_of(tmp_path, 3)
    counts = {name: way.answered(asked)[1] for name, way in timed.ways().items()}
    plain, latent, given = counts["plain"], counts[timed.LATENT], counts[timed.GIVEN]
    assert (latent["read"], latent["encoded"]) == (plain["read"], plain["encoded"]) and given["whole"] == 0
    assert given["read"] > 2 * plain["read"] and given["encoded"] > plain["encoded"]


def test_the_benchmarks_ratio_is_of_one_rounds_times():
    import benchmarks.zoom as timed

    seconds = {name: (1.0, 2.0, 30.0) for name in timed.WAYS} | {timed.LATENT: (0.5, 1.2, 18.0)}
    page = timed.table({name: timed.Timed(own, 6, 6, 6, 1) for name, own in seconds.items()}, 3)
    assert f"| {timed.LATENT} | 0.60 | 0.50, 0.60, 0.60 | 1.200 | 2 | 2 | 2.0 | – |" in page and "40% less time" in page
    assert f"| {timed.GIVEN} | 1.00 | 1.00, 1.00, 1.00 | 2.000 | 2 | 2 | 2.0 | 1 of 3 |" in page
