"""The same training on two ranks as on one: plain, and sharded by DeepSpeed, over gloo on the CPU. Some samples have no
box, so that one rank's micro-batch has what the other's lacks: neither may wait for the other for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from models.config import TrainSpec
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from models.run import LocalRun
from models.training import cache_features, train, trainer
from tests.models.training.conftest import SMALL
from tests.models.training.ranks import Training, on_two_ranks

pytestmark = pytest.mark.slow

FAST = {"global_batch": 4, "lr": 1e-3, "precision": "fp32", "warmup_ratio": 0.5}
MICRO = 1
COMPARED = ("loss", "ce", "bcm", "dac_feat", "dac_attn", "grad_norm", "lr")
STAGES = {
    "step": Stage1(steps=4, align="bernoulli", p=0.5, granularity="step", **FAST),
    "microbatch": Stage1(steps=4, align="bernoulli", p=0.5, granularity="microbatch", **FAST),
    "sample": Stage1(steps=4, align="bernoulli", p=0.5, granularity="sample", self_fed=0.5, **FAST),
    "stage2": Stage2(steps=3, teacher="random", slot_fill="student", rollout="sequential", **FAST),
    "stage2 checkpointed": Stage2(steps=2, teacher="random", slot_fill="student", rollout="sequential", **FAST),
    "two passes": Stage2(steps=3, teacher="random", slot_fill="student", rollout="two_pass", **FAST),
    "joint bf16": Joint(steps=3, **FAST | {"precision": "bf16"}),
}
ZERO = {
    "step": None, "microbatch": "zero2", "sample": "zero3", "stage2": "zero3", "stage2 checkpointed": "zero3",
    "two passes": "zero3", "joint bf16": "zero3",
}  # fmt: skip
CHECKPOINTED = {"stage2 checkpointed", "two passes"}
"""Layers' activations are computed again in the backward pass, as the profile a800 has it; one process keeps them."""


def spec(name: str) -> TrainSpec:
    return TrainSpec(stage=STAGES[name], latent_steps=2, images=SMALL, vision="cached", packing="padded", seed=3)


@pytest.fixture(scope="module")
def inputs(base, make_data, tmp_path_factory) -> dict[str, str | None]:
    data, features = make_data(16, several=True, bare=True), tmp_path_factory.mktemp("features")
    cache_features(LocalRun(features), checkpoint=base, data=data, images=SMALL)
    return {"init": str(base), "data": str(data), "features": str(features), "teacher": None}


@pytest.fixture(scope="module")
def ranks(inputs, tmp_path_factory) -> Path:
    """A folder with every training on two ranks: by name; under zero2 and zero3 also cut at step 2 and resumed."""
    folder = tmp_path_factory.mktemp("ranks")

    def training(name: str, place: str, zero: str | None, **options) -> Training:
        return Training(str(folder / place), spec(name).model_dump(mode="json"), inputs, zero, MICRO, **options)

    todo = [
        training(name, name, zero, gradient_checkpointing=name in CHECKPOINTED) for name, zero in ZERO.items()
    ]
    for name in ("microbatch", "sample"):
        todo.append(training(name, f"{name} cut", ZERO[name], stop=(1, 2)))
        checkpoint = folder / f"{name} cut" / "checkpoints" / "checkpoint-2"
        todo.append(training(name, f"{name} resumed", ZERO[name], resume_from=str(checkpoint)))
    (folder / "said.txt").write_text(on_two_ranks(todo, folder / "trainings.json"))
    return folder


def lines(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {"step": row["step"]} | {name: row["values"][name] for name in COMPARED if name in row["values"]}
        for row in rows
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / "model.safetensors")


@pytest.mark.parametrize("name", STAGES)
def test_two_ranks_train_like_one(ranks, inputs, tmp_path, monkeypatch, name):
    """So the Bernoulli draw is the same too: with another one, gradients differ at once."""
    monkeypatch.setattr(trainer, "LOG_SECONDS", 0.0)
    run = LocalRun(tmp_path / "out", tmp_path / "checkpoints", metrics=tmp_path / "metrics.jsonl")
    roles = {role: Path(path) if path else None for role, path in inputs.items()}
    found = train(run, spec(name), inputs={role: path for role, path in roles.items() if path}, micro_batch=MICRO)
    one, two = lines(tmp_path), lines(ranks / name)
    # In bf16 DeepSpeed trains bf16 copies of its fp32 weights, the plain Trainer casts inside each operation.
    tolerance = 0.05 if "bf16" in name else 2e-3
    assert len(one) == len(two) == STAGES[name].steps
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=tolerance)
    diagnostics = json.loads((ranks / name / "out" / "diagnostics.json").read_text())
    for number in ("trainable_parameters", "probe_samples", "training_samples"):
        assert diagnostics[number] == found[number]
    assert diagnostics["probe"].keys() == found["probe"].keys()
    assert diagnostics["probe"]["free_running.ce"] == pytest.approx(found["probe"]["free_running.ce"], rel=0.05)


@pytest.mark.parametrize("name", STAGES)
def test_whatever_shards_it_the_result_is_one_checkpoint_that_transformers_opens(ranks, inputs, tmp_path, name):
    before, after = load_file(Path(inputs["init"]) / "model.safetensors"), weights(ranks / name)
    assert before.keys() <= after.keys()
    assert all(after[key].shape == value.shape and after[key].dtype == value.dtype for key, value in before.items())
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    Qwen2_5_VLForConditionalGeneration.from_pretrained(ranks / name / "out")


def test_deepspeed_finds_every_tensor_and_the_steps_it_expects(ranks):
    said = (ranks / "said.txt").read_text()
    assert "unknown inputs or outputs type" not in said and "steps mismatch" not in said


@pytest.mark.parametrize("name", ["microbatch", "sample"])
def test_a_stop_on_one_rank_stops_both_and_resuming_gives_the_same_bits(ranks, name):
    assert not (ranks / f"{name} cut" / "out" / "model.safetensors").exists()
    assert (ranks / f"{name} cut" / "checkpoints" / "checkpoint-2" / "COMPLETE").is_file()
    assert lines(ranks / f"{name} cut") + lines(ranks / f"{name} resumed") == lines(ranks / name)
    whole, resumed = weights(ranks / name), weights(ranks / f"{name} resumed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
