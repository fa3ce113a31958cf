"""LVR through the real trainer, and its three ways out of a latent segment on what it leaves."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from harness.plan import plan_experiment
from models import loading
from models.backbone.images import load_image_processor
from models.config import DecodeSpec, EvaluateSpec, TrainSpec
from models.evaluation.engine import Engine
from models.latent import slots
from models.latent.prompt import Prompt
from models.methods.lvr.spec import Lvr
from models.methods.stage import Slots
from models.run import LocalRun
from models.training import train
from models.training.collate import Collator
from models.training.data import read_samples
from models.training.pixels import Live
from tests.harness.conftest import fake_digest
from tests.models.training.conftest import SMALL

STAGE = Lvr(steps=15, global_batch=4, lr=5e-3, lambda_lvr=1.0, latent_end=True, lambda_end=0.1, precision="fp32", warmup_ratio=0.0)


@pytest.fixture(scope="module")
def world(base, make_data):
    return {"init": base, "data": make_data(4, several=True)}


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run = LocalRun(folder / "out", folder / "checkpoints", metrics=folder / "metrics.jsonl")
    train(run, TrainSpec(stage=STAGE, images=SMALL, packing="padded"), inputs=world, micro_batch=2)
    return run.out, [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_has_finite_losses_and_the_states_come_nearer_to_the_boxes_tokens(trained):
    steps = trained[1]
    assert len(steps) >= 2
    assert all(math.isfinite(values[name]) for values in steps for name in ("ce", "lvr", "lvr_end", "grad_norm"))
    for values in steps:
        assert values["loss"] == pytest.approx(values["ce"] + values["lvr"] + 0.1 * values["lvr_end"], rel=1e-5)
    assert steps[-1]["lvr"] < 0.98 * steps[0]["lvr"], [values["lvr"] for values in steps]


def test_it_trains_the_language_model_and_the_end_vector_and_not_the_vision_tower(world, trained):
    before, after = (load_file(folder / "model.safetensors") for folder in (world["init"], trained[0]))
    assert {key.split(".")[0] for key in after.keys() - before.keys()} == {"lvr_latent_end_emb"}
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all("visual" not in key for key in changed)


def test_the_lvr_loss_alone_reaches_the_states_before_the_slots(world):
    tokenizer, samples = AutoTokenizer.from_pretrained(world["init"]), read_samples(world["data"])
    batch = Collator(
        tokenizer, Live(load_image_processor(world["init"], SMALL)), slots=Slots("box"), packing="padded", end_marker=True
    )([samples[k] for k in range(4)]).batch  # fmt: skip
    stage = Lvr(precision="fp32")
    model = loading.load(world["init"], heads=(), latent_steps=8, dtype=torch.float32)
    terms = stage.method(8).run(model, batch)
    (grown,) = torch.autograd.grad(terms.losses["lvr"], [terms.hidden])
    row, column, _ = slots.places(batch)
    reached = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    reached[row, column - 1] = True
    assert torch.equal(grown.abs().sum(-1) > 0, reached) and len(set(batch.segment_slots.tolist())) > 1


def decode_of(recipe: str, folder) -> DecodeSpec:
    """The decode that a plan gives its evaluation, by a recipe that extends LVR's."""
    (folder / "recipes").mkdir()
    (folder / "recipes" / "mine.yaml").write_text(f"extends: lvr\ntitle: mine\n{recipe}")
    table = folder / "table.yaml"
    table.write_text("table: mine\ntitle: Ways out\nrecipe: mine\ncolumns: [vstar]\nrows:\n  - LVR: {stages: [lvr]}\n")
    plan = plan_experiment(table, "smoke", tasks=fake_digest, latents=["own"])
    return EvaluateSpec.model_validate(plan.cell("LVR", "vstar").jobs[0, "own"].payload).decode


@pytest.mark.parametrize(
    ("leave", "threshold", "wanted"),
    [("steps", 0.02, 6), ("latent", 1e9, 1), ("latent", 1e-9, 6), ("free", 0.02, 6), ("free", 0.02, 0)],
)
def test_how_a_recipe_leaves_a_segment_reaches_the_decoder(world, trained, tmp_path, leave, threshold, wanted):
    given = f"  latent_steps: 6\n  start: forced\n  leave: {leave}\n  leave_below: {threshold}\n"
    spec = decode_of(f"decode:\n{given}  max_segments: 1\n", tmp_path)
    assert spec.leave == leave and (leave != "latent" or spec.leave_below == threshold)
    engine = Engine(trained[0], precision="fp32")
    pictures = [Image.open(file.path) for file in read_samples(world["data"])[0].images]
    content = [{"type": "image", "url": picture} for picture in pictures] + [{"type": "text", "text": "What colour is it?"}]
    (question,) = engine.prepare([[{"role": "user", "content": content}]], SMALL, [lambda: pictures])
    states = []
    watch = engine.model.lm_head.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0][0].clone()))
    (answer,) = engine.answer([question], spec, SMALL)
    watch.remove()
    if leave == "free":
        with torch.no_grad():  # the first state of the segment picks the end, or none ever does
            engine.model.lm_head.weight[engine.tokens.lvr_end] = 50 * states[0] if wanted == 0 else 0 * states[0]
            others = engine.model.lm_head(states[0]).max()
        assert others > 0
        (answer,) = engine.answer([question], spec, SMALL)
    assert answer.latent_steps == wanted
    assert answer.response.startswith("<|lvr_start|>" + "<|lvr|>" * wanted)
    assert not answer.response.startswith("<|lvr_start|>" + "<|lvr|>" * (wanted + 1))


def test_a_box_with_fewer_tokens_than_steps_gives_them_again_from_the_first(trained):
    engine = Engine(trained[0], precision="fp32")
    features = torch.arange(4.0)[:, None].expand(4, 3)
    prompt = Prompt(
        torch.zeros(1, dtype=torch.long), image_embeds=features, image_grid_thw=torch.tensor([[1, 4, 4]]),
        boxes=torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]], dtype=torch.float64),
    )  # fmt: skip
    (given,) = Lvr().method(5).oracle(engine.model, [prompt], 5)
    assert given[:, :, 0].tolist() == [[0, 2, 0, 2, 0], [3, 3, 3, 3, 3]]
    (fewer,) = Lvr().method(1).oracle(engine.model, [prompt], 1)
    assert fewer[:, :, 0].tolist() == [[0], [3]]
