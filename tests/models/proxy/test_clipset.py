"""The fine-tuning set and the benchmark of clips, and clips as rows of pretraining: what is drawn is what a model is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbone.clips import patches_of_clip, read_clip
from models.backbone.images import load_image_processor
from models.backbone.template import ClipGrid, positions
from models.proxy import BASE_DIR, architecture, clip_mirror, clip_rows, clips
from models.proxy.clip_mirror import write_clip_mirror
from models.proxy.clipset import questions_of, write_clip_set
from models.proxy.curriculum import Stage
from models.proxy.films import content_of
from models.proxy.processor import build_processor
from models.proxy.rows import Tokens
from models.proxy.splits import belongs, stream
from models.schema import Clips, Images
from models.training.data import read_samples

EVERY_FRAME = Clips(fps=clips.FPS, min_pixels=784)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("clips")
    return out, write_clip_set(out, n=40, seed=3)


def test_every_record_is_read_as_the_release_writes_it(written):
    out, summary = written
    samples = read_samples(out, clips=EVERY_FRAME)
    assert len(samples) == summary["questions"] == sum(summary["families"].values()) == 40 and not samples.summary.rejected
    for number in range(len(samples)):
        sample = samples[number]
        assert sample.conversations[1]["value"].startswith("<answer> ")
        assert sample.images[0].clips == EVERY_FRAME and sample.spans
        assert all(0 < low < high <= clips.SECONDS for low, high in sample.spans)


def test_a_film_decodes_to_the_very_pixels_that_were_drawn(written):
    out, _ = written
    shown = read_clip(out / "videos" / "00000.mp4", EVERY_FRAME)
    drawn = clip_rows.frames_of(questions_of("train", 3, 0)[0].clip)
    assert shown.seconds_per_grid == 1.0 and shown.facts.seconds == clips.SECONDS
    assert np.array_equal(np.stack([np.array(picture) for picture in shown.pictures]), drawn)


def test_a_set_is_written_twice_alike(written, tmp_path):
    out, summary = written
    assert write_clip_set(tmp_path, n=40, seed=3) == summary
    assert (tmp_path / "videos" / "00004.mp4").read_bytes() == (out / "videos" / "00004.mp4").read_bytes()
    other = write_clip_set(tmp_path / "other", n=40, seed=4)
    assert other["videos_sha256"] != summary["videos_sha256"]


def test_a_clip_serves_several_questions_and_no_text_is_asked_twice_of_it(written):
    out, summary = written
    records = json.loads((out / "annotations.json").read_text())
    asked = {(one["video"], one["question"]) for one in records}
    assert len(asked) == len(records) and summary["videos"] < len(records)


def test_a_set_of_no_questions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one question, not 0"):
        write_clip_set(tmp_path, n=0, seed=0)


def test_training_clips_share_no_layout_with_those_that_are_asked_about():
    rng = stream("test", 0, 1)
    tested = [clip_rows.draw_asked("test", rng, family) for family in clips.FAMILIES]
    trained = [questions_of("train", 0, index)[0] for index in range(10)]
    assert all(belongs("test", [one.clip.content()]) and not belongs("train", [one.clip.content()]) for one in tested)
    assert all(belongs("train", [one.clip.content()]) for one in trained)


def test_pretraining_sees_a_clip_as_training_and_evaluation_do(written):
    out, _ = written
    processor = load_image_processor(BASE_DIR, Images(min_pixels=784))
    frames = read_clip(out / "videos" / "00001.mp4", EVERY_FRAME)
    patches, grid = patches_of_clip(processor, frames, EVERY_FRAME)
    own = architecture.clip_patches(np.stack([np.array(picture) for picture in frames.pictures])[None])
    assert grid.tolist() == architecture.grid(1, clips.STYLE.side_px, len(frames.pictures) // 2)[0].tolist()
    assert torch.allclose(patches, own, atol=1e-5)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(build_processor().tokenizer)


@pytest.mark.parametrize("family", clips.FAMILIES)
def test_a_row_of_pretraining_stands_where_the_template_puts_a_clip(tokens, family):
    rng = stream("pretrain", 0, 1)
    asked = clip_rows.draw_asked("pretrain", rng, family)
    row = clip_rows.clip_row(tokens, rng, asked, Stage(easy=0, open_ended=0, slots=0.5, written=0.5))
    side, steps = clips.STYLE.side_px // 16, clips.SECONDS
    ids = torch.tensor(row.prefix + row.turns[0].ids)
    expected = positions(ids, [ClipGrid(steps, side, side, 1.0)], tokens.image, tokens.video)[1:, : len(row.prefix)]
    assert torch.equal(torch.tensor(row.positions).T, expected)
    assert row.next_position == int(expected.max()) + 1


def test_what_a_row_points_to_is_the_thing_as_the_question_means_it(tokens):
    rng = stream("pretrain", 0, 2)
    cells = clips.STYLE.side_px // 16
    for family in ("glimpse", "turns", "moves", "order"):
        for _ in range(10):
            asked = clip_rows.draw_asked("pretrain", rng, family)
            pointed, seen = clip_rows._pointed(asked)
            for thing, (first, last) in zip(pointed.question.things, seen, strict=True):
                for token in (first, last):
                    step, cell = divmod(token, cells**2)
                    there = {(i.row, i.col): i for f in (2 * step, 2 * step + 1) for i in asked.clip.items(f)}
                    found = there[divmod(cell, cells)]
                    assert (found.shape, found.fill) == (thing.shape, thing.fill)
                    assert family == "moves" or found == thing


def test_the_benchmark_of_clips_is_read_as_video_mme_is(tmp_path):
    from datasets import load_dataset
    from lmms_eval.tasks.videomme.utils import (
        TASK_CATEGORIES,
        VIDEO_TYPE,
        videomme_aggregate_results,
        videomme_process_results,
    )

    report = write_clip_mirror(tmp_path, n=40, seed=2, split="dev")
    docs = load_dataset(str(tmp_path), "videomme", split="test", cache_dir=str(tmp_path / "cache"))
    spans = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
    assert len(docs) == len(spans) == report["rows"] == 40 and [s["doc_id"] for s in spans] == list(range(40))
    assert set(docs["duration"]) == set(VIDEO_TYPE) and set(docs["task_type"]) <= set(TASK_CATEGORIES)
    for doc, span in zip(docs, spans, strict=True):
        shown = read_clip(tmp_path / "data" / f"{doc['videoID']}.mp4", EVERY_FRAME)
        assert content_of(np.stack([np.array(picture) for picture in shown.pictures])) == span["video_sha256"]
        assert shown.facts.seconds == clip_mirror.SECONDS[doc["duration"]] >= max(high for _, high in span["spans"])
    right = [videomme_process_results(doc, [doc["answer"]])["videomme_perception_score"] for doc in docs]
    assert videomme_aggregate_results(right) == 100


def test_dev_and_test_ask_about_other_clips(tmp_path):
    reports = [write_clip_mirror(tmp_path / split, n=20, seed=0, split=split) for split in ("dev", "test", "test")]
    assert reports[1] == reports[2] and reports[0]["videos_sha256"] != reports[1]["videos_sha256"]
    with pytest.raises(ValueError, match="at least one question, not 0"):
        write_clip_mirror(tmp_path / "none", n=0, seed=0, split="dev")
