"""Records of clips: read, rejected by name, and trained on beside pictures."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from models import loading
from models.backbone.clips import facts_of, read_frames
from models.backbone.images import load_image_processor
from models.backbone.pictures import Unreadable
from models.config import ExternalTraining, TrainingSet, TrainSpec
from models.methods.stage import Slots
from models.methods.visreflect.spec import ClueFrames, ReflectVideo
from models.methods.visreflect.video import clip_answer
from models.run import LocalRun
from models.schema import Clips
from models.training import train
from models.training.collate import Collator, Extra
from models.training.data import DataError, read_samples
from models.training.external import check_pictures, look, prepare
from models.training.lengths import rough_lengths
from models.training.pixels import Live
from models.training.substitutes import Substituting
from tests.films import restate, turn, without_end, write_film
from tests.models.training.conftest import SMALL

CLUES = ClueFrames(min_tokens=1, max_tokens=4)


def write_clip(path: Path, frames: int, seed: int, width: int = 56, height: int = 56) -> None:
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=2)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for _ in range(frames):
            shown = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/a.mkv", 8, 0)
    write_clip(tmp_path / "clips/b.mkv", 12, 1)
    (tmp_path / "clips/broken.mkv").write_bytes(b"no clip")

    def record(video: str, span: object) -> dict:
        return {"video": video, "question": "What falls?", "answer": "The answer is: A", "temporal_span": span}

    records = [
        record("a.mkv", [1.0, 2.5]), record("broken.mkv", [0, 1]), record("none.mkv", [0, 1]), record("b.mkv", [[0, 1], [4, 3]]),
        record("a.mkv", "soon"), record("a.mkv", None),
    ]  # fmt: skip
    (tmp_path / "clips.json").write_text(json.dumps(records))
    meta = [{"ds_name": "clips", "data_path": "clips.json", "image_folder": "clips", "ds_type": "Q_A"}]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def collator(base: Path, **options) -> Collator:
    pieces = CLUES.pieces()
    clues = Extra(pieces, Live(pieces.processor(base, SMALL), pieces))
    pixels = Live(load_image_processor(base, SMALL))
    return Collator(AutoTokenizer.from_pretrained(base), pixels, slots=Slots("pieces"), extra={"clues": clues}, write=clip_answer, **options)


def test_records_of_clips_that_cannot_be_used_are_named_and_counted(data: Path, tmp_path: Path) -> None:
    samples = read_samples(data, report=tmp_path / "report")
    assert [samples.name(k) for k in range(len(samples))] == ["clips:0", "clips:3"]
    assert samples[1].spans == ((0.0, 1.0), (3.0, 4.0))
    lines = [json.loads(line) for line in (tmp_path / "report/rejected.jsonl").read_text().splitlines()]
    assert [(line["entry"], line["reason"]) for line in lines] == [
        (1, "unreadable clip"), (2, "missing clip"), (4, "bad span"), (5, "bad span"),
    ]  # fmt: skip


def test_packed_clips_have_the_losses_of_padded_ones(base: Path, data: Path) -> None:
    samples = list(map(read_samples(data).__getitem__, range(2)))
    model = loading.load(base, heads=(), latent_steps=0, dtype=torch.float32)
    losses = {}
    for packing in ("padded", "packed"):
        batch = collator(base, packing=packing)(samples).batch
        assert batch.slots == len(model.encode(batch.encoded["clues"].values, batch.encoded["clues"].grid_thw, None))
        losses[packing] = model.stage_terms(batch, ReflectVideo(), 1).losses
    for name in ("ce", "vr"):
        torch.testing.assert_close(losses["packed"][name], losses["padded"][name], rtol=1e-4, atol=1e-5)


def test_a_clip_that_is_gone_since_ends_the_training_and_has_no_substitute(base: Path, data: Path) -> None:
    samples = read_samples(data)
    sample = samples[0]
    sample.images[0].path.write_bytes(b"damaged since")
    with pytest.raises(DataError, match=r"sample clips:0: .*a\.mkv.*a clip has no substitute"):
        Substituting(collator(base), samples, range(2))([0])


def test_the_stage_trains_to_the_end(base: Path, data: Path, tmp_path: Path) -> None:
    records = json.loads((data / "clips.json").read_text())
    (data / "clips.json").write_text(json.dumps([records[0], records[3]] * 4))
    out = tmp_path / "out"
    out.mkdir()
    stage = ReflectVideo(steps=2, global_batch=2, lr=1e-3, precision="fp32", clue_min_tokens=1, clue_max_tokens=4)
    spec = TrainSpec(stage=stage, images=SMALL, vision="live")
    diagnostics = train(LocalRun(out), spec, inputs={"init": base, "data": data}, micro_batch=2)
    assert diagnostics["training_samples"] == 6 and diagnostics["replaced"] == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any("visual" in name for name in moved)


def test_the_data_job_decodes_clips_once_and_rejects_those_it_cannot(base: Path, data: Path, tmp_path: Path) -> None:
    path = data / "clips/b.mkv"
    path.write_bytes(path.read_bytes()[:2000])  # its head can be read, its frames cannot
    out = tmp_path / "out"
    out.mkdir()
    counts = prepare(out, data / "meta.json", TrainingSet(min_usable=0.1, images=SMALL), base)
    assert counts["samples"] == 1 and counts["rejected"] == {"bad span": 2, "missing clip": 1, "unreadable clip": 2}
    assert len(read_samples(out)[0].images) == 1


def test_too_few_usable_records_name_the_first_of_each_reason_and_what_is_wrong_with_it(base: Path, data: Path, tmp_path: Path) -> None:
    path = data / "clips/b.mkv"
    path.write_bytes(path.read_bytes()[:2000])  # its head can be read, its frames cannot
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError) as caught:
        prepare(out, data / "meta.json", TrainingSet(images=SMALL), base)
    share, source, *firsts = str(caught.value).splitlines()
    assert "1 of 6 rows are usable (16.7%), min_usable asks for 90%; complete what is missing (2 bad span)" in share
    assert source.startswith("  clips: 2 of 6 rows bad span, 1 of 6 clips missing, 2 of 6 rows unreadable clip")
    entries = [(4, "bad span", "temporal_span soon"), (1, "unreadable clip", "clips/broken.mkv: not a readable clip"), (2, "missing clip", "none.mkv")]
    for line, (entry, reason, words) in zip(firsts, entries, strict=True):
        assert line.startswith(f"  the first: {data}/clips.json, entry {entry}: {reason}: ") and words in line


def test_a_name_with_a_line_break_stays_on_the_line_of_the_message(data: Path) -> None:
    record, *_ = json.loads((data / "clips.json").read_text())
    (data / "clips.json").write_text(json.dumps([record | {"video": "no\nclip.mp4"}]))
    with pytest.raises(DataError) as caught:
        read_samples(data)
    assert "no\\nclip.mp4" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["video", "question", "answer", "temporal_span"])
def test_a_record_without_a_field_or_with_nothing_in_it_is_named_with_the_field(data: Path, tmp_path: Path, field: str) -> None:
    records = json.loads((data / "clips.json").read_text())
    empty, missing = dict(records[0], **{field: " "}), dict(records[0])
    del missing[field]
    (data / "clips.json").write_text(json.dumps([records[0], empty, missing]))
    assert len(read_samples(data, report=tmp_path / "report")) == 1
    lines = [json.loads(line) for line in (tmp_path / "report/rejected.jsonl").read_text().splitlines()]
    nothing = ("malformed entry", f"field '{field}' is empty")
    if field == "temporal_span":
        nothing = ("bad span", "temporal_span  ; expected [begin, end] in seconds, or a list of such pairs")
    found = [(line["entry"], line["reason"], line["detail"]) for line in lines]
    assert found == [(1, *nothing), (2, "malformed entry", f"field '{field}' is missing")]


def test_a_clip_is_what_a_record_says_it_is_whatever_its_name(base: Path, data: Path, tmp_path: Path) -> None:
    record, *_ = json.loads((data / "clips.json").read_text())
    for name in ("film", "film.ts", "film.png"):
        (data / "clips" / name).write_bytes((data / "clips/a.mkv").read_bytes())
    frames = [Image.fromarray(np.random.default_rng(k).integers(0, 255, (56, 56, 3), dtype=np.uint8)) for k in range(6)]
    frames[0].save(data / "clips/both.gif", save_all=True, append_images=frames[1:], duration=500)
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A"}]
    picture = {"image": ["both.gif"], "conversations": turns, "bboxes": []}
    records = [record | {"video": name} for name in ("film", "film.ts", "film.png", "both.gif")]
    (data / "clips.json").write_text(json.dumps([*records, picture]))
    found = look(ExternalTraining(meta=str(data / "meta.json"), revision="mine"))
    assert {Path(path).name for path in found.films} == {"both.gif", "film", "film.png", "film.ts"}
    check_pictures(found.some, found.films, "meta.json", 1.0)
    out = tmp_path / "out"
    out.mkdir()
    counts = prepare(out, data / "meta.json", TrainingSet(images=SMALL), base)
    assert counts["samples"] == 5 and counts["mended"] == {"first frame of an animation": 1}
    samples = read_samples(out)
    assert samples.columns.sizes[:, 2].tolist() == [0, 0, 0, 0, 1]
    lengths = rough_lengths(samples, load_image_processor(base, SMALL))
    built = [collator(base)([samples[k]]).tokens for k in range(5)]
    assert lengths[0] == lengths[1] == lengths[2] and all(abs(rough - true) < 60 for rough, true in zip(lengths, built, strict=True))


def test_a_record_that_shows_a_folder_or_a_clip_and_pictures_is_rejected_in_those_words(data: Path, tmp_path: Path) -> None:
    record, *_ = json.loads((data / "clips.json").read_text())
    (data / "clips/frames").mkdir()
    (data / "clips.json").write_text(json.dumps([record, record | {"video": "frames"}, record | {"image": ["a.png"]}]))
    read_samples(data, report=tmp_path / "report")
    lines = [json.loads(line) for line in (tmp_path / "report/rejected.jsonl").read_text().splitlines()]
    assert [(line["entry"], line["reason"], line["detail"]) for line in lines] == [
        (1, "missing clip", f"{data}/clips/frames is a folder; a clip to train on is a video file"),
        (2, "malformed entry", "it has both 'video' and 'image': a record shows one clip, or pictures"),
    ]  # fmt: skip


def test_a_file_that_is_no_clip_is_named_once_and_without_a_number_of_ffmpeg(data: Path) -> None:
    with pytest.raises(Unreadable) as error:
        facts_of(data / "clips/broken.mkv")
    assert str(error.value).startswith(f"{data}/clips/broken.mkv: not a readable clip (Invalid data found when processing input); ")


def test_a_clip_that_ends_before_its_container_says_so_is_rejected_unless_only_a_moment_is_lacking(base: Path, data: Path, tmp_path: Path) -> None:
    for name, frames in (("short", 25), ("nearly", 38)):
        without_end(write_film(data / f"clips/{name}.mp4", 40), frames)
    record, *_ = json.loads((data / "clips.json").read_text())
    records = [record | {"video": "short.mp4"}, record | {"video": "nearly.mp4", "temporal_span": [3.9, 4]}]
    (data / "clips.json").write_text(json.dumps(records))
    out = tmp_path / "out"
    out.mkdir()
    assert prepare(out, data / "meta.json", TrainingSet(min_usable=0.1, images=SMALL), base)["samples"] == 1
    assert "short.mp4: not a readable clip (its container states 40 frames, and 25 can be decoded)" in (out / "rejected.jsonl").read_text()
    sample = read_samples(out)[0]
    (clue,) = CLUES.pieces().of(sample)
    shown = CLUES.pieces().open(clue, None)
    assert clue.number == 39 and shown.tobytes() == read_frames(data / "clips/nearly.mp4", [37])[0].tobytes()


@pytest.mark.parametrize(
    ("times", "stated", "words"),
    [
        ("rate", 100, "its container states 100 frames, and 40 can be decoded"),
        ("stamps", 100, "its container states 10.00 s, and its frames take 4.00 s"),
        ("rate", 20, "its container states 20 frames, and 40 can be decoded"),
    ],
)
def test_a_clip_whose_container_states_a_wrong_number_of_frames_is_rejected_where_it_matters(
    base: Path, data: Path, tmp_path: Path, times: str, stated: int, words: str
) -> None:
    restate(write_film(data / "clips/film.avi", 40), stated)
    record, *_ = json.loads((data / "clips.json").read_text())
    (data / "clips.json").write_text(json.dumps([record, record | {"video": "film.avi"}]))
    out = tmp_path / "out"
    out.mkdir()
    spec = TrainingSet(min_usable=0.1, images=SMALL, clips=Clips(times=times))
    assert prepare(out, data / "meta.json", spec, base)["rejected"] == {"unreadable clip": 1}
    assert f"film.avi: not a readable clip ({words})" in (out / "rejected.jsonl").read_text()


@pytest.mark.parametrize(
    ("orientation", "words"), [("stored", "clip marked as rotated: seen unrotated"), ("upright", "rotated as its clip's container says")]
)
def test_a_clip_that_its_container_marks_as_rotated_is_named(base: Path, data: Path, tmp_path: Path, orientation: str, words: str) -> None:
    turn(write_film(data / "clips/film.mp4", 40))
    record, *_ = json.loads((data / "clips.json").read_text())
    (data / "clips.json").write_text(json.dumps([record, record | {"video": "film.mp4"}]))
    (out := tmp_path / "out").mkdir()
    counts = prepare(out, data / "meta.json", TrainingSet(images=SMALL, clips=Clips(orientation=orientation)), base)
    assert (counts["samples"], counts["mended"]) == (2, {words: 1})


def test_a_clip_that_the_processor_refuses_for_its_shape_is_rejected_and_the_rest_is_used(base: Path, data: Path, tmp_path: Path) -> None:
    write_clip(data / "clips/b.mkv", 8, 1, width=804, height=4)
    out = tmp_path / "out"
    out.mkdir()
    counts = prepare(out, data / "meta.json", TrainingSet(min_usable=0.1, images=SMALL), base)
    assert counts["samples"] == 1 and counts["rejected"]["unreadable clip"] == 2
    assert "b.mkv: not a readable clip (804 x 4 pixels, more than 200 times as long as wide)" in (out / "rejected.jsonl").read_text()


def test_a_clip_of_too_many_tokens_is_rejected_by_its_length(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="too long"):
        prepare(out, data / "meta.json", TrainingSet(min_usable=0.1, images=SMALL, max_tokens=60), base)
