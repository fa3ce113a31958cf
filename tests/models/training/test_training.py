"""One stage end to end: every stage trains, resumes to the bit, and leaves a checkpoint that transformers opens."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from models.backbone.model import Backbone
from models.config import TrainSpec
from models.methods.sft.spec import Sft
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from models.run import Interrupted, LocalRun
from models.training import cache_features, train, trainer
from models.training import stage as stages
from models.training.collate import Collator
from models.training.cost import checkpoint_bytes
from models.training.stage import held_out, load_model
from tests.models.training.conftest import SMALL

FAST = {"global_batch": 4, "lr": 1e-3, "precision": "fp32", "warmup_ratio": 0.5}


@pytest.fixture(scope="module")
def world(base, make_data, tmp_path_factory):
    data, features = make_data(16, several=True), tmp_path_factory.mktemp("features")
    cache_features(LocalRun(features), checkpoint=base, data=data, images=SMALL)
    return {"init": base, "data": data, "features": features}


def spec(stage, **options) -> TrainSpec:
    return TrainSpec(
        **({"stage": stage, "latent_steps": 2, "images": SMALL, "vision": "cached", "packing": "padded"} | options)
    )


def go(folder, spec, world, *, micro_batch=4, teacher=None, init=None, run=None, **options):
    run = run or LocalRun(folder / "out", folder / "checkpoints", metrics=folder / "metrics.jsonl")
    inputs = world | ({} if init is None else {"init": init}) | ({} if teacher is None else {"teacher": teacher})
    return train(run, spec, inputs=inputs, micro_batch=micro_batch, **options), run


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


STAGES = {
    "sft": Sft(steps=3, **FAST),
    "stage1": Stage1(steps=3, **FAST),
    "joint": Joint(steps=3, **FAST),
    "stage2 from a random teacher": Stage2(steps=3, teacher="random", **FAST),
    "stage2 without a teacher": Stage2(steps=3, teacher="none", **FAST),
    "stage2 with static queries": Stage2(steps=3, teacher="random", query_source="static", **FAST),
}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_trains_and_leaves_a_checkpoint_that_transformers_opens(tmp_path, world, name):
    stage = STAGES[name]
    diagnostics, run = go(tmp_path, spec(stage), world)
    before, after = weights(world["init"]), weights(run.out)
    assert before.keys() <= after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert all("visual" not in key for key in changed)
    assert any("language_model" in key for key in changed) and "lm_head.weight" in changed
    heads = {key.split(".")[0] for key in after.keys() - before.keys()}
    wanted = {"sft": set(), "stage1": {"box_feature_resampler"}, "joint": {"box_feature_resampler", "student_resampler"},
              "stage2 from a random teacher": {"box_feature_resampler", "student_resampler"},
              "stage2 without a teacher": {"student_resampler"},
              "stage2 with static queries": {"box_feature_resampler", "student_resampler", "vreflection"}}[name]  # fmt: skip
    assert heads == wanted
    Qwen2_5_VLForConditionalGeneration.from_pretrained(run.out)
    assert len(AutoTokenizer.from_pretrained(run.out)) and AutoProcessor.from_pretrained(run.out)
    assert json.loads((run.out / "config.json").read_text()).get("use_cache", True)
    facts = json.loads((run.out / "vreflection.json").read_text())
    assert facts["stage"] == stage.kind and facts["latent_steps"] == 2
    probe = json.loads((run.out / "diagnostics.json").read_text())["probe"]
    assert diagnostics["probe"] == probe and all(isinstance(v, float) for v in probe.values())
    if name == "sft":
        assert set(probe) == {"ce"}
    else:
        assert probe["free_running.ce"] > 0
    if name in ("stage1", "joint", "stage2 from a random teacher"):
        assert probe["exposure_gap"] > 0 and probe["teacher_fed.z_t_std"] > 0
        assert probe["teacher_fed.teacher_in_box"] > probe["teacher_fed.box_area"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (lines[-1]["step"], lines[-1]["total"]) == (3, 3)
    assert {"loss", "ce", "lr", "grad_norm", "tokens_per_second"} <= lines[-1]["values"].keys()


def test_stage2_takes_its_teacher_from_stage1_and_leaves_it_alone(tmp_path, world):
    _, first = go(tmp_path / "1", spec(Stage1(steps=2, **FAST)), world)
    _, second = go(tmp_path / "2", spec(Stage2(steps=2, **FAST)), world, init=first.out)
    one, two = weights(first.out), weights(second.out)
    teacher = [key for key in two if key.startswith("box_feature_resampler")]
    assert teacher and all(torch.equal(one[key], two[key]) for key in teacher)
    _, third = go(tmp_path / "3", spec(Stage2(steps=1, **FAST)), world, teacher=first.out)
    assert all(torch.equal(one[key], weights(third.out)[key]) for key in teacher)
    with pytest.raises(ValueError, match="holds no BCM for teacher: stage1"):
        go(tmp_path / "4", spec(Stage2(steps=1, **FAST)), world)
    with pytest.raises(ValueError, match="teacher: random wants a fresh one"):
        go(tmp_path / "5", spec(Stage2(steps=1, teacher="random", **FAST)), world, init=first.out)


class StopsAfter(LocalRun):
    """Asks to stop once it was asked so many times."""

    asked = 0
    after = 3

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked >= self.after


@pytest.mark.parametrize(
    "stage",
    [
        Stage1(steps=6, granularity="sample", self_fed=0.5, **FAST),
        Stage2(steps=6, teacher="random", query_source="random", **FAST | {"precision": "bf16"}),
    ],
    ids=["stage1", "stage2 bf16"],
)
def test_three_steps_and_three_more_equal_six_to_the_bit(tmp_path, world, stage):
    _, whole = go(tmp_path / "whole", spec(stage, seed=3), world, micro_batch=2)
    stopping = StopsAfter(tmp_path / "a" / "out", tmp_path / "a" / "checkpoints")
    with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
        go(tmp_path, spec(stage, seed=3), world, micro_batch=2, run=stopping)
    checkpoint = tmp_path / "a" / "checkpoints" / "checkpoint-3"
    assert (checkpoint / "COMPLETE").is_file()
    resumed = LocalRun(tmp_path / "b" / "out", tmp_path / "b" / "checkpoints", resume_from=checkpoint)
    go(tmp_path, spec(stage, seed=3), world, micro_batch=2, run=resumed)
    assert checkpoint.is_dir(), "it is the caller's own"
    expected, found = weights(whole.out), weights(resumed.out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_checkpoints_come_by_the_clock_and_the_newest_stays(tmp_path, world, monkeypatch):
    monkeypatch.setattr("models.training.trainer.SAVING_SHARE", 1e9)
    written, real = [], trainer._sync
    monkeypatch.setattr(trainer, "_sync", lambda path: written.append(path) or real(path))
    said: list[int] = []
    monkeypatch.setattr(LocalRun, "saved", lambda run: said.append(len(list(run.checkpoints.glob("*/COMPLETE")))))
    go(tmp_path, spec(Sft(steps=5, **FAST)), world, checkpoint_seconds=0.0)
    assert said == [1, 1, 1, 1], "each is whole before it is said"
    folder = tmp_path / "checkpoints"
    assert [path.name for path in written if path.parent == folder] == [f"checkpoint-{step}" for step in (1, 2, 3, 4)]
    assert [path.name for path in folder.iterdir()] == ["checkpoint-4"] and (folder / "checkpoint-4" / "COMPLETE").is_file()


def test_the_first_checkpoint_waits_as_long_as_its_cost_asks_for(tmp_path, world, monkeypatch):
    """At 7B it is 109 GB: twenty seconds after the start is no time to write it."""
    monkeypatch.setattr(trainer, "WRITE_BYTES_PER_SECOND", 1.0)
    go(tmp_path, spec(Sft(steps=5, **FAST)), world, checkpoint_seconds=0.0)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_size_of_a_checkpoint_is_known_before_it_is_written(tmp_path, world, monkeypatch):
    sizes = []
    monkeypatch.setattr(trainer, "checkpoint_bytes", lambda *counts: sizes.append(checkpoint_bytes(*counts)) or 0)
    monkeypatch.setattr("models.training.trainer.SAVING_SHARE", 1e9)
    go(tmp_path, spec(Stage1(steps=2, **FAST)), world, checkpoint_seconds=0.0)
    written = sum(file.stat().st_size for file in (tmp_path / "checkpoints" / "checkpoint-1").iterdir())
    assert written == pytest.approx(sizes[0], rel=0.05)


def test_a_disk_without_room_costs_the_checkpoint_and_not_the_training(tmp_path, world, monkeypatch, capsys):
    monkeypatch.setattr("models.training.trainer.SAVING_SHARE", 1e9)
    monkeypatch.setattr(trainer, "_free", lambda folder: 1000)
    go(tmp_path / "1", spec(Sft(steps=3, **FAST)), world, checkpoint_seconds=0.0)
    assert "no checkpoint now: it needs 0.00" in capsys.readouterr().err
    assert not list((tmp_path / "1" / "checkpoints").iterdir())
    stopping = StopsAfter(tmp_path / "2" / "out", tmp_path / "2" / "checkpoints")
    with pytest.raises(OSError, match="stopped without a checkpoint: it needs"):
        go(tmp_path, spec(Sft(steps=6, **FAST)), world, run=stopping)


def test_the_teachers_bcm_is_read_without_the_model_around_it(tmp_path, world, monkeypatch):
    """A second 7B on every rank would cost 16 GB each for 0.1 GB of tensors. The checkpoint is in shards, as a large one."""
    _, first = go(tmp_path / "1", spec(Stage1(steps=2, **FAST)), world)
    held = weights(first.out)
    (first.out / "model.safetensors").unlink()
    names = sorted(held)
    places = {name: f"model-{1 + at % 3:05d}-of-00003.safetensors" for at, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: held[name] for name in names if places[name] == shard}, first.out / shard, {"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (first.out / "model.safetensors.index.json").write_text(json.dumps(index))
    loads, real = [], stages.checkpoints.load
    monkeypatch.setattr(stages.checkpoints, "load", lambda path, **options: loads.append(path) or real(path, **options))
    _, second = go(tmp_path / "2", spec(Stage2(steps=1, **FAST)), world, teacher=first.out)
    assert loads == [world["init"]]
    teacher = [key for key in held if key.startswith("box_feature_resampler")]
    assert teacher and all(torch.equal(held[key], weights(second.out)[key]) for key in teacher)
    with pytest.raises(ValueError, match="the teacher's BCM does not fit: queries has shape .1, 2, 64., expected .1, 4, 64."):
        go(tmp_path / "3", spec(Stage2(steps=1, **FAST), latent_steps=4), world, teacher=first.out)


@pytest.mark.parametrize("kind", [Stage1, Joint])
def test_the_start_of_a_fresh_bcm_is_an_option(base, kind):
    tokenizer = AutoProcessor.from_pretrained(base).tokenizer
    for init in ("authors", "identity"):
        attention = load_model(spec(kind(bcm_init=init)), {"init": base}, tokenizer).get_submodule("box_feature_resampler").cross_attn
        eye = torch.eye(attention.out_proj.weight.shape[0])
        assert torch.equal(attention.out_proj.weight, eye) == (init == "identity")


def numbers(folder) -> list[dict[str, float]]:
    """Losses and gradient norm of every logged step. (Weights would not do: Adam turns the rounding noise of a gradient
    that is zero, such as the one of a key bias, into steps of full size.)"""
    lines = [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("loss", "ce", "bcm", "grad_norm")} for line in lines]


def assert_alike(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert len(one) == len(other) == 2
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=2e-3)


def test_accumulation_gives_the_step_of_one_large_batch(tmp_path, world):
    stage = Stage1(steps=2, **FAST)
    for size in (4, 1):
        go(tmp_path / str(size), spec(stage), world, micro_batch=size)
    assert_alike(numbers(tmp_path / "4"), numbers(tmp_path / "1"))


def test_packed_rows_and_live_vision_train_as_padded_rows_on_cached_features(tmp_path, world):
    stage = Stage1(steps=2, **FAST)
    go(tmp_path / "a", spec(stage), world)
    go(tmp_path / "b", spec(stage, packing="packed", vision="live"), world)
    assert_alike(numbers(tmp_path / "a"), numbers(tmp_path / "b"))


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_micro_batches_shared_out_by_length_train_as_those_of_equal_count(tmp_path, world, monkeypatch, packing):
    stage = Stage1(steps=2, align="bernoulli", granularity="sample", **FAST)
    monkeypatch.setattr(stages, "rough_lengths", lambda samples, *_: [9000 if k % 4 == 0 else 1 + k for k in range(len(samples))])
    sizes, collate = [], Collator.__call__

    def counting(self, samples):
        sizes.append(len(samples))
        return collate(self, samples)

    monkeypatch.setattr(Collator, "__call__", counting)
    go(tmp_path / "shared", spec(stage, packing=packing, vision="live"), world, micro_batch=2)
    assert {1, 3} & set(sizes), "some micro-batch had not two samples"
    monkeypatch.setattr(stages, "_share", lambda *_: "count")
    go(tmp_path / "equal", spec(stage, packing=packing, vision="live"), world, micro_batch=2)
    assert_alike(numbers(tmp_path / "equal"), numbers(tmp_path / "shared"))


def test_a_broken_loss_names_the_step_and_the_samples(tmp_path, world, base):
    broken = tmp_path / "broken"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    model.save_pretrained(broken, save_original_format=False)
    AutoProcessor.from_pretrained(base).save_pretrained(broken)
    with pytest.raises(FloatingPointError, match=r"step 0: loss is nan \(ce nan\); samples toy:\d+, toy:\d+"):
        go(tmp_path, spec(Sft(steps=1, **FAST)), world, init=broken)


def test_a_bf16_checkpoint_stays_bf16_and_its_vision_tower_untouched(tmp_path, world, base):
    init = tmp_path / "init"
    Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(
        init, save_original_format=False
    )
    AutoProcessor.from_pretrained(base).save_pretrained(init)
    _, run = go(tmp_path, spec(Stage1(steps=2, **FAST | {"precision": "bf16"})), world, init=init)
    before, after = weights(init), weights(run.out)
    assert all(value.dtype == torch.bfloat16 for value in after.values())
    assert all(torch.equal(before[key], after[key]) for key in before if "visual" in key)
    assert json.loads((run.out / "config.json").read_text())["dtype"] == "bfloat16"


def test_zero_steps_keep_the_markers_only(tmp_path, world):
    _, run = go(tmp_path, spec(Stage1(steps=1, **FAST), latent_steps=0), world)
    assert set(json.loads((run.out / "diagnostics.json").read_text())["probe"]) == {"ce"}


def test_the_end_of_the_data_is_held_out():
    assert [held_out(n) for n in (4, 400, 1024, 100_000)] == [1, 100, 256, 256]


def test_a_short_run_is_looked_at_on_as_many_samples_as_it_trained_on(tmp_path, world, monkeypatch):
    encoded = []
    seen = Backbone.vision
    monkeypatch.setattr(Backbone, "vision", lambda model, batch: encoded.append(batch.pixel_values is not None) or seen(model, batch))
    short = FAST | {"global_batch": 2, "warmup_ratio": 0.0}
    few, _ = go(tmp_path / "few", spec(Stage1(steps=1, **short), vision="live"), world, micro_batch=1)
    assert encoded.count(True) == 2 + 2, "two steps of one sample, and each sample looked at is encoded once for both modes"
    more, _ = go(tmp_path / "more", spec(Stage1(steps=3, **short)), world, micro_batch=1)
    assert (few["probe_samples"], more["probe_samples"], held_out(16)) == (2, 4, 4)


def test_what_is_looked_at_does_not_depend_on_where_pictures_are_encoded(tmp_path, world):
    found = [go(tmp_path / vision, spec(Stage1(steps=2, **FAST), vision=vision), world)[0]["probe"] for vision in ("live", "cached")]
    assert {"teacher_fed.z_t_std", "free_running.ce"} <= found[0].keys() and found[0] == pytest.approx(found[1], rel=1e-3)


def test_cached_vision_without_features_says_what_to_do(tmp_path, world):
    with pytest.raises(ValueError, match="vision: cached needs a folder of features"):
        go(tmp_path, spec(Sft(steps=1, **FAST)), world | {"features": None})
