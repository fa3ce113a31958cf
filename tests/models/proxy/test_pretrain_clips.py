"""The command that teaches the base to read clips, with a few small steps; and the checkpoint that it left."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.proxy import BASE_DIR, VIDEO_BASE_DIR, measure, pretrain_clips

SMALL = {"batch": 4, "ring": 8, "fresh": 2, "dense_every": 3}


@pytest.mark.slow
def test_the_phase_leaves_the_tower_and_the_reading_of_the_base_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrain_clips, "CLIPS", replace(pretrain_clips.CLIPS, **SMALL))
    monkeypatch.setattr(measure, "measure_clips", lambda *_, **given: {"mean": 1.0, **given})
    monkeypatch.setattr(pretrain_clips, "write_numbers", lambda out, source: None)
    monkeypatch.setattr(sys, "argv", ["pretrain_clips", "--out", str(tmp_path), "--steps", "6"])
    pretrain_clips.main()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {record["phase"] for record in records} == {"clips"} and records[-1]["step"] == 6
    assert_made_of_the_base(tmp_path)


def test_the_base_that_reads_clips_is_made_of_the_base():
    assert_made_of_the_base(VIDEO_BASE_DIR)


def test_the_card_is_what_the_stored_numbers_give():
    measured, metrics = (pretrain_clips._lines(VIDEO_BASE_DIR / name) for name in ("measured.jsonl", "metrics.jsonl"))
    assert pretrain_clips.card(measured, metrics) == (VIDEO_BASE_DIR / "README.md").read_text()


def test_the_base_that_reads_clips_answers_some_of_their_questions_and_not_all():
    measured = pretrain_clips._lines(VIDEO_BASE_DIR / "measured.jsonl")
    for shown in (o for o in measured if o["checkpoint"] == "base-video" and o.get("world") == "shifted"):
        assert 30 <= shown["mean"] <= 80
    model, tokens = measure.load(VIDEO_BASE_DIR)
    again = measure.measure_clips(model, tokens, "dev", shifted=True, each=20)
    assert again["glimpse"] >= 50 and again["mean"] < 80


def assert_made_of_the_base(folder: Path) -> None:
    before, after = (load_file(one / "model.safetensors") for one in (BASE_DIR, folder))
    assert before.keys() == after.keys() and {value.dtype for value in after.values()} == {torch.bfloat16}
    tower = {name for name in before if "visual" in name}
    assert tower and all(torch.equal(before[name], after[name]) for name in tower)
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    for name in ("tokenizer.json", "processor_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (BASE_DIR / name).read_bytes()
    assert (folder / "model.safetensors").stat().st_size < 8.3e6
