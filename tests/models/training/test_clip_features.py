"""The frozen tower's features of clips, computed once: what the live tower gives, and the same training."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from models import loading
from models.backbone import clips as clips_module
from models.backbone.clips import read_frames
from models.backbone.images import load_image_processor
from models.backbone.template import ClipGrid
from models.config import Clips, FeaturesSpec, TrainingSet, TrainSpec
from models.methods.sft.spec import SftVideo
from models.methods.stage import Slots
from models.methods.visreflect.spec import ClueFrames, Crops, ReflectVideo
from models.methods.visreflect.video import clip_answer
from models.run import LocalRun
from models.training import train
from models.training.collate import Cached, Collator, Extra
from models.training.data import DataError, read_samples
from models.training.external import prepare
from models.training.features import FeatureStore, cache_features
from models.training.parse import ClipFile
from models.training.pixels import Live
from tests.films import damage, write_film
from tests.models.training.conftest import SMALL
from tests.models.training.test_video_stage import write_clip

CLIPS = Clips(fps=1, min_pixels=16 * 16, max_pixels=48 * 48, seconds_per_grid="measured")
CLUES = ClueFrames(min_tokens=1, max_tokens=4)
FAST = {"steps": 3, "global_batch": 4, "lr": 1e-3, "precision": "fp32"}
STAGES = {
    "sft_video": SftVideo(**FAST),
    "reflect_video": ReflectVideo(clue_min_tokens=CLUES.min_tokens, clue_max_tokens=CLUES.max_tokens, **FAST),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ten questions about clips of three lengths and two sizes, and two about a picture."""
    folder = tmp_path_factory.mktemp("clips")
    records = []
    for number, frames in enumerate((8, 11, 16)):
        write_clip(folder / f"{number}.mkv", frames, number, width=64 - 16 * (number == 1), height=48)
        records += [
            {"video": f"{number}.mkv", "question": f"What falls {k}?", "answer": "The answer is: A", "temporal_span": [k / 2, 1 + k / 2]}
            for k in range(3 + (number == 2))
        ]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(folder / "picture.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "<answer> B </answer>"}]
    for _ in range(2):
        records.insert(3, {"image": ["picture.png"], "conversations": turns, "bboxes": []})
    (folder / "records.json").write_text(json.dumps(records))
    meta = [{"ds_name": "clips", "data_path": "records.json", "image_folder": ".", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def stores(base: Path, data: Path, tmp_path_factory) -> dict[str, Path]:
    """A training's inputs: features of the clips and of their clue frames."""
    folder = tmp_path_factory.mktemp("features")
    for role, cut in (("features", None), ("clues", ("clues", CLUES))):
        cache_features(LocalRun(folder / role, threads=2), checkpoint=base, data=data, images=SMALL, cut=cut, clips=CLIPS)
    return {"init": base, "data": data, "features": folder / "features", "clues": folder / "clues"}


def test_cached_clips_and_clue_frames_give_the_batch_that_live_ones_give(stores: dict[str, Path]) -> None:
    base, pieces = stores["init"], CLUES.pieces()
    held = {role: Cached(FeatureStore(stores[role])) for role in ("features", "clues")}
    live = {"features": Live(load_image_processor(base, SMALL)), "clues": Live(pieces.processor(base, SMALL), pieces)}
    samples = [read_samples(stores["data"], clips=CLIPS)[k] for k in (0, 3, 6, 11, 5)]
    model, batches = loading.load(base, heads=(), latent_steps=0, dtype=torch.float32), []
    for pixels in (held, live):
        collate = Collator(
            AutoTokenizer.from_pretrained(base), pixels["features"], slots=Slots("pieces"), write=clip_answer,
            extra={"clues": Extra(pieces, pixels["clues"])},
        )  # fmt: skip
        batches.append(collate(samples).batch)
    cached, seen = batches
    for name in ("input_ids", "labels", "position_ids", "image_grids", "segment_slots"):
        assert torch.equal(getattr(cached, name), getattr(seen, name)), name
    torch.testing.assert_close(model.vision(seen), cached.image_embeds, rtol=1e-4, atol=1e-5)
    clues = seen.encoded["clues"]
    torch.testing.assert_close(model.encode(clues.values, clues.grid_thw, None), cached.encoded["clues"].embeds, rtol=1e-4, atol=1e-5)
    assert held["features"].store.grid("clips/0.mkv") == ClipGrid(2, 2, 3, 7 / 3), "of frames 0, 2, 5 and 7, two a second"
    assert held["features"].store.grid("clips/picture.png") == (4, 3)


@pytest.mark.parametrize("name", STAGES)
def test_a_training_on_cached_clips_has_the_losses_of_one_that_encodes_them(stores: dict[str, Path], tmp_path: Path, name: str) -> None:
    logged, probed = {}, {}
    for vision in ("live", "cached"):
        spec = TrainSpec(stage=STAGES[name], images=SMALL, vision=vision, clips=CLIPS)
        inputs = stores if vision == "cached" else {role: stores[role] for role in ("init", "data")}
        run = LocalRun(tmp_path / vision, tmp_path / f"{vision}-checkpoints", metrics=tmp_path / f"{vision}.jsonl")
        probed[vision] = train(run, spec, inputs=inputs, micro_batch=2)["probe"]
        lines = map(json.loads, (tmp_path / f"{vision}.jsonl").read_text().splitlines())
        logged[vision] = [line["values"]["loss"] for line in lines if "loss" in line["values"]]
    assert len(logged["live"]) == len(logged["cached"]) > 0 and probed["live"]["ce"] > 0
    assert logged["live"] == pytest.approx(logged["cached"], rel=1e-3)
    assert probed["live"] == pytest.approx(probed["cached"], rel=1e-3)


def test_the_clue_frames_of_a_record_are_decoded_in_one_reading_of_their_clip(base: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    read, frames = [], clips_module._frames
    monkeypatch.setattr(clips_module, "_frames", lambda path: read.append(Path(path).name) or frames(path))
    pieces, sample = CLUES.pieces(), read_samples(data, clips=CLIPS)[2]
    clues = pieces.of(sample)
    shown = Live(pieces.processor(base, SMALL), pieces)(clues)[0]
    assert [clue.number for clue in clues] == [2, 3, 4] and read == ["0.mkv"]
    for clue, patches in zip(clues, shown, strict=True):  # each alone
        assert torch.equal(Live(pieces.processor(base, SMALL), pieces)([replace(clue, among=())])[0][0], patches)
    assert read == 4 * ["0.mkv"]
    read.clear()
    cache_features(LocalRun(tmp_path, threads=2), checkpoint=base, data=data, images=SMALL, cut=("clues", CLUES), clips=CLIPS)
    wanted = {clue.key for number in range(12) for clue in pieces.of(read_samples(data, clips=CLIPS)[number])}
    assert len(wanted) == 16 and len(read) == 10, "once for each record"


def test_a_clue_frame_is_that_of_the_file_as_it_lies_there_now(base: Path, tmp_path: Path) -> None:
    file = ClipFile("a", tmp_path / "a.mkv", CLIPS)
    seen = []
    for seed in range(2):
        write_clip(file.path, 8, seed)
        os.utime(file.path, ns=(seed, seed))
        seen.append(file.frame(3, (3, 5)))
        assert seen[-1] == read_frames(file.path, [3])[0]
    assert seen[0] != seen[1]


def test_clips_of_several_shards_are_those_of_one(stores: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("models.training.features.SHARD_BYTES", 5_000)
    facts = cache_features(LocalRun(tmp_path), checkpoint=stores["init"], data=stores["data"], images=SMALL, clips=CLIPS)
    assert facts["shards"] > 1 and facts["count"] == 4
    split, whole = FeatureStore(tmp_path), FeatureStore(stores["features"])
    for name in ("0.mkv", "1.mkv", "2.mkv", "picture.png"):
        assert torch.equal(split[f"clips/{name}"], whole[f"clips/{name}"]) and split.grid(f"clips/{name}") == whole.grid(f"clips/{name}")


@pytest.mark.parametrize("change", [{"fps": 2.0}, {"max_frames": 8}, {"max_pixels": 32 * 32}, {"total_pixels": 4096}, {"odd": "down"}, {"times": "stamps"}])
def test_features_of_clips_that_were_sampled_otherwise_are_refused(stores: dict[str, Path], tmp_path: Path, change: dict) -> None:
    spec = TrainSpec(stage=STAGES["reflect_video"], images=SMALL, vision="cached", clips=CLIPS.model_copy(update=change))
    with pytest.raises(ValueError, match="features are of clips .*compute them anew"):
        train(LocalRun(tmp_path), spec, inputs=stores, micro_batch=2)


@pytest.mark.parametrize("cut", [None, ("clues", CLUES)])
@pytest.mark.parametrize("gone", [False, True])
def test_a_clip_that_is_damaged_or_gone_since_ends_the_job_and_its_record_is_named(base: Path, tmp_path: Path, cut, gone: bool) -> None:
    for name in ("a.mov", "b.mov"):
        write_film(tmp_path / name, 8, codec="png")
    records = [{"video": v, "question": "What?", "answer": "A", "temporal_span": [0, 1]} for v in ("a.mov", "b.mov")]
    (tmp_path / "records.json").write_text(json.dumps(records))
    (tmp_path / "meta.json").write_text(json.dumps([{"ds_name": "c", "data_path": "records.json", "image_folder": ".", "ds_type": "Q_A"}]))
    (tmp_path / "read").mkdir()
    prepare(tmp_path / "read", tmp_path / "meta.json", TrainingSet(images=SMALL), base)
    (tmp_path / "b.mov").unlink() if gone else damage(tmp_path / "b.mov", 0)
    with pytest.raises(DataError, match=r"sample c:1: .*b\.mov: not a readable clip .*a clip has no substitute") as error:
        cache_features(LocalRun(tmp_path / "out"), checkpoint=base, data=tmp_path / "read", images=SMALL, cut=cut, clips=Clips())
    assert "\n" not in str(error.value)


def test_a_data_set_without_a_single_piece_has_a_store_without_features(base: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "B"}]
    (tmp_path / "records.json").write_text(json.dumps([{"image": ["a.png"], "conversations": turns, "bboxes": []}]))
    (tmp_path / "meta.json").write_text(json.dumps([{"ds_name": "c", "data_path": "records.json", "image_folder": ".", "ds_type": "Q_A"}]))
    cut = ("crops", Crops())
    facts = cache_features(LocalRun(tmp_path / "out"), checkpoint=base, data=tmp_path, images=SMALL, cut=cut)
    assert facts["count"] == 0 == len(FeatureStore(tmp_path / "out"))


def test_a_job_of_pictures_alone_says_nothing_of_clips() -> None:
    assert FeaturesSpec().clips is None and FeaturesSpec(clips={}).clips == Clips()
