"""The command that remakes the base, with a few small steps a phase: every phase runs and begins from the one before."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from models.proxy import pretrain, release

SMALL = {"steps": 4, "stop": 3, "batch": 4, "ring": 8, "fresh": 2, "dense_every": 3}
"""The fourth step is left out, as in phases that end before their schedule does; the third reads large pictures."""


@pytest.fixture
def remake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command in one process; measuring what comes out is left away."""
    monkeypatch.setattr(pretrain, "VISION_STEPS", 2)
    monkeypatch.setattr(pretrain, "PHASES", {name: replace(plan, **SMALL) for name, plan in pretrain.PHASES.items()})
    monkeypatch.setattr(release, "write_numbers", lambda out: None)
    started: dict[str, Path] = {}
    run = pretrain._run

    def watched(name: str, previous: Path, *rest) -> None:
        started[name] = previous
        run(name, previous, *rest)

    monkeypatch.setattr(pretrain, "_run", watched)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--out", str(tmp_path), "--processes", "1"])

    def go() -> dict[str, Path]:
        started.clear()
        pretrain.main()
        return dict(started)

    return go


@pytest.mark.slow
def test_every_phase_runs_from_random_values_and_hands_over_to_the_next(remake, tmp_path: Path):
    names = list(pretrain.PHASES)
    started = remake()
    assert [path.stem for path in started.values()] == ["vision", *names[:-1]]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["phase"] for r in records if r["phase"] != "vision"] == names
    states = {name: torch.load(tmp_path / "state" / f"{name}.pt", weights_only=True) for name in ("vision", *names)}
    tower = [key for key in states["vision"]["model"] if "visual" in key]
    for before, after in zip(states, names, strict=False):
        assert all(torch.equal(states[before]["model"][key], states[after]["model"][key]) for key in tower), after
        moved = states[after]["model"]["lm_head.weight"] - states[before]["model"]["lm_head.weight"]
        assert 0 < moved.abs().max() < 0.1, after
    written = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(written.lm_head.weight, states["kinds"]["model"]["lm_head.weight"].bfloat16())


@pytest.mark.slow
def test_a_second_call_runs_the_phases_that_are_missing_and_no_others(remake, tmp_path: Path):
    remake()
    (tmp_path / "state" / "kinds.pt").unlink()
    assert list(remake()) == ["kinds"] and not remake()


def test_processes_share_the_rows_of_a_step():
    whole = pretrain.PHASES["answers"]
    assert whole.among(1) == whole and 2 * whole.among(2).batch == whole.batch
    with pytest.raises(ValueError, match="cannot be shared among 3"):
        whole.among(3)
