"""VisReflect's image stage: crops as the tower sees them, its loss against plain torch, packing, and training to the end."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from models import loading
from models.backbone.boxes import rectangle
from models.backbone.images import load_image_processor
from models.backbone.template import positions
from models.config import DecodeSpec, TrainSpec
from models.evaluation.engine import Engine
from models.latent import slots
from models.latent.batch import Encoded
from models.latent.prompt import Prompt
from models.latent.terms import Refused
from models.methods.stage import Slots
from models.methods.visreflect.crops import crops_of, cut, load_crop_processor
from models.methods.visreflect.release import answer_text
from models.methods.visreflect.spec import Crops, Reflect
from models.run import LocalRun
from models.training import cache_features, train
from models.training.collate import Cached, Collator, Extra
from models.training.data import read_samples
from models.training.features import FeatureStore
from models.training.pixels import Live
from tests.models.training.conftest import SMALL

CROPS = Crops(min_tokens=4, max_tokens=9)
STAGE = Reflect(steps=2, global_batch=4, lr=1e-3, precision="fp32", crop_min_tokens=4, crop_max_tokens=9)


@pytest.fixture(scope="module")
def world(base, make_data, tmp_path_factory):
    data, features, crops = make_data(8, several=True), *(tmp_path_factory.mktemp(name) for name in ("features", "crops"))
    cache_features(LocalRun(features), checkpoint=base, data=data, images=SMALL)
    cache_features(LocalRun(crops), checkpoint=base, data=data, images=SMALL, cut=("crops", CROPS))
    return {"init": base, "data": data, "features": features, "crops": crops}


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


def collator(world, tokenizer, **options) -> Collator:
    stores = (FeatureStore(world[name]) for name in ("features", "crops"))
    return Collator(tokenizer, Cached(next(stores)), extra={"crops": Extra(CROPS.pieces(), Cached(next(stores)))}, slots=Slots("piece"), **options)


def model_of(world):
    return loading.load(world["init"], heads=(), latent_steps=0, dtype=torch.float32)


def encoded(model, batch) -> torch.Tensor:
    found = batch.encoded["crops"]
    return model.encode(found.values, found.grid_thw, found.embeds)


def gradients(model, loss) -> dict[str, torch.Tensor]:
    named = {n: p for n, p in model.named_parameters() if "visual" not in n}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True)))


def same_gradients(ours, theirs, tolerance=2e-4):
    assert ours.keys() == theirs.keys()
    for name, own in ours.items():
        largest = theirs[name].abs().max().clamp(min=1e-6)
        assert (own - theirs[name]).abs().max() / largest < tolerance, name


def test_a_crop_is_rounded_outwards_and_a_sliver_grows_within_the_picture():
    assert rectangle((0.25, 0.5, 0.5, 1.0), 128, 64, 16) == (32, 32, 64, 64)
    assert rectangle((0.2505, 0.5, 0.5005, 1.0), 128, 64, 16) == (32, 32, 65, 64)
    assert rectangle((0.291667, 0.0, 0.583333, 1.0), 192, 64, 16) == (56, 0, 112, 64), "six digits stand on their pixel"
    assert rectangle((0.5, 0.0, 0.501, 1.0), 1000, 64, 28) == (486, 0, 514, 64)
    assert rectangle((0.0, 0.0, 0.01, 1.0), 1000, 64, 28) == (0, 0, 28, 64)
    assert rectangle((0.999, 0.0, 1.0, 1.0), 1000, 64, 28) == (972, 0, 1000, 64)
    assert rectangle((0.5, 0.5, 0.6, 0.6), 20, 20, 28) == (0, 0, 20, 20), "no more than there is"


@torch.no_grad()
def test_a_crops_features_are_the_towers_of_the_cut_picture_within_its_tokens(world):
    samples, store, model = read_samples(world["data"]), FeatureStore(world["crops"]), model_of(world)
    store.check(SMALL, ("crops", CROPS))
    area = 16 * 16  # pixels of a merged token: patch 8, merge 2
    processor = AutoImageProcessor.from_pretrained(
        world["init"], min_pixels=CROPS.min_tokens * area, max_pixels=CROPS.max_tokens * area
    )
    crops = {crop.key: crop for k in range(len(samples)) for crop in crops_of(samples[k])}.values()
    assert len(store) == len(crops) == 12
    compared = 0
    for crop in crops:
        picture = Image.open(crop.file.path).convert("RGB")
        x0, y0, x1, y1 = crop.box
        edges = (math.floor(x0 * picture.width), math.floor(y0 * picture.height))
        ends = (math.ceil(x1 * picture.width), math.ceil(y1 * picture.height))
        if min(ends[0] - edges[0], ends[1] - edges[1]) < 16:
            continue  # a sliver: grown, see above
        compared += 1
        made = processor(images=[picture.crop((*edges, *ends))], return_tensors="pt")
        live = model.model.visual(made["pixel_values"], made["image_grid_thw"]).pooler_output
        assert CROPS.min_tokens <= len(live) <= CROPS.max_tokens
        torch.testing.assert_close(store[crop.key], live, rtol=1e-5, atol=1e-6)
    assert compared >= 6


def test_crops_of_another_size_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match="features are of crops .* compute them anew"):
        FeatureStore(world["crops"]).check(SMALL, ("crops", Crops()))
    with pytest.raises(ValueError, match="features are of crops None"):
        FeatureStore(world["features"]).check(SMALL, ("crops", CROPS))


def plainly(world, tokenizer, sample):
    """(CE, 1 - mean cos) of one sample with one box, from transformers' own model and the texts alone."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(world["init"], dtype=torch.float32).eval()
    features, grid = FeatureStore(world["features"]), FeatureStore(world["features"]).grid(sample.images[0].key)
    crop = FeatureStore(world["crops"])[crops_of(sample)[0].key]
    question, answer = (turn["value"].split("\n", 1)[1] for turn in sample.conversations)
    prompt = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * grid[0] * grid[1] + f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    )  # fmt: skip
    parts = [prompt, "<|lvr_start|>", "<|lvr|>" * len(crop), "<|lvr_end|>", f"\n{answer}<|im_end|>\n"]
    lengths = [len(tokenizer(part).input_ids) for part in parts]
    ids = torch.tensor(tokenizer("".join(parts)).input_ids)
    assert len(ids) == sum(lengths)
    first = lengths[0] + 1
    slots = torch.arange(first, first + len(crop))
    embeds = model.get_input_embeddings()(ids).clone()
    embeds[ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")] = features[sample.images[0].key]
    embeds[slots] = crop
    place = positions(ids, [grid], tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    hidden = model.model.language_model(inputs_embeds=embeds[None], position_ids=place[1:, None]).last_hidden_state[0]
    answers = [p for p in range(lengths[0], len(ids)) if p not in set(slots.tolist())]
    ce = F.cross_entropy(model.lm_head(hidden[[p - 1 for p in answers]]), ids[answers])
    cosines = [hidden[p - 1] @ ids_v / (hidden[p - 1].norm() * ids_v.norm()) for p, ids_v in zip(slots, crop, strict=True)]
    return model, ce, 1 - torch.stack(cosines).mean(), cosines[0]


def test_the_loss_and_its_gradients_are_the_formulas(world, tokenizer):
    sample = read_samples(world["data"])[0]
    model, made = model_of(world), collator(world, tokenizer, packing="padded")([sample])
    terms = model.stage_terms(made.batch, STAGE, 8)
    plain, ce, vr, cosine = plainly(world, tokenizer, sample)
    torch.testing.assert_close(terms.losses["ce"], ce, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.losses["vr"], vr, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.counts["vr_first"], 1 - cosine.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.total(), ce + 0.1 * vr)
    assert int(terms.counts["ce_tokens"]) == made.supervised
    wanted = gradients(plain, ce + 0.1 * vr)
    same_gradients(gradients(model, terms.total()), wanted)
    assert wanted["lm_head.weight"].any()


def test_packed_and_padded_rows_give_the_same_losses_and_gradients(world, tokenizer):
    samples, model = read_samples(world["data"]), model_of(world)
    some = [samples[k] for k in range(4)]
    packed, padded = (collator(world, tokenizer, packing=how)(some) for how in ("packed", "padded"))
    assert len(packed.batch.input_ids) == 1 and len(padded.batch.input_ids) == 4 and packed.supervised == padded.supervised
    slots = padded.batch.segment_slots
    assert len(slots) == 6 and len(set(slots.tolist())) > 1, "crops differ in size"
    one, other = (model.stage_terms(made.batch, STAGE, 8) for made in (packed, padded))
    for name in ("ce", "vr"):
        torch.testing.assert_close(one.losses[name], other.losses[name], rtol=1e-5, atol=1e-6)
    same_gradients(gradients(model, one.total()), gradients(model, other.total()))


def test_micro_batches_add_up_to_the_step(world, tokenizer):
    samples, model = read_samples(world["data"]), model_of(world)
    whole = collator(world, tokenizer)([samples[k] for k in range(4)])
    parts = [collator(world, tokenizer)([samples[k] for k in pair]) for pair in ((0, 1), (2, 3))]
    counts = {"num_items": whole.supervised, "num_boxes": len(whole.batch.boxes)}
    losses = [model.stage_forward(part.batch, STAGE, 8, **counts).loss for part in parts]
    torch.testing.assert_close(sum(losses), model.stage_forward(whole.batch, STAGE, 8).loss)


def test_live_crops_and_cached_ones_give_one_batch(world, tokenizer):
    samples, model = read_samples(world["data"]), model_of(world)
    some = [samples[k] for k in range(3)]
    live = Collator(
        tokenizer, Live(load_image_processor(world["init"], SMALL)), slots=Slots("piece"),
        extra={"crops": Extra(CROPS.pieces(), Live(load_crop_processor(world["init"], SMALL, CROPS), CROPS.pieces()))},
    )(some)  # fmt: skip
    cached = collator(world, tokenizer)(some)
    assert torch.equal(live.batch.input_ids, cached.batch.input_ids)
    assert torch.equal(live.batch.segment_slots, cached.batch.segment_slots)
    torch.testing.assert_close(encoded(model, live.batch), cached.batch.encoded["crops"].embeds, rtol=1e-4, atol=1e-5)


def test_slots_stand_where_the_crops_go_and_are_no_targets(world, tokenizer):
    samples = read_samples(world["data"])
    batch = collator(world, tokenizer, packing="packed", max_tokens=200)([samples[k] for k in range(4)]).batch
    row, column, segment = slots.places(batch)
    slot = tokenizer.convert_tokens_to_ids("<|lvr|>")
    assert (batch.input_ids[row, column] == slot).all() and len(row) == (batch.input_ids == slot).sum() == len(batch.encoded["crops"].embeds)
    assert torch.equal(torch.bincount(segment), batch.segment_slots)


def test_a_batch_without_crops_is_refused(world, tokenizer):
    sample = read_samples(world["data"])[0]
    plain = Collator(tokenizer, Cached(FeatureStore(world["features"])), slots=Slots("fixed", 3))([sample]).batch
    with pytest.raises(Refused, match="reflect fills its slots with evidence crops"):
        model_of(world).stage_terms(plain, STAGE, 8)
    with pytest.raises(Refused, match="3 slots, but the crops have 2 embeddings"):
        plain.encoded["crops"] = Encoded(embeds=torch.zeros(2, 64))
        model_of(world).stage_terms(plain, STAGE, 8)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run = LocalRun(folder / "out", folder / "checkpoints", metrics=folder / "metrics.jsonl")
    spec = TrainSpec(stage=STAGE, images=SMALL, vision="cached", packing="packed")
    train(run, spec, inputs=world, micro_batch=2)
    return run, folder


def test_the_stage_trains_the_language_model_alone_and_says_how_near_its_states_come(world, trained):
    run, folder = trained
    before, after = (load_file(folder / "model.safetensors") for folder in (world["init"], run.out))
    assert before.keys() == after.keys(), "no modules are added"
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all("visual" not in key for key in changed)
    probe = json.loads((run.out / "diagnostics.json").read_text())["probe"]
    assert {"ce", "vr", "vr_first", "hidden_std", "z_t_std", "hidden_z_t_cosine"} <= probe.keys()
    assert 0 < probe["vr"] < 2
    values = [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert values[-1]["loss"] == pytest.approx(values[-1]["ce"] + 0.1 * values[-1]["vr"], rel=1e-5)


def test_oracle_latents_are_the_crops_first_embeddings_as_in_training(world, trained):
    engine = Engine(trained[0].out, precision="fp32")
    assert engine.method.stage.crops == CROPS and not engine.method.modules()
    sample, store = read_samples(world["data"])[1], FeatureStore(world["crops"])
    pictures = [Image.open(file.path) for file in sample.images]
    content = [{"type": "image", "url": picture} for picture in pictures] + [{"type": "text", "text": "What colour is it?"}]
    (question,) = engine.prepare([[{"role": "user", "content": content}]], SMALL, [lambda: pictures])
    boxes = torch.tensor(sample.boxes, dtype=torch.float64), torch.tensor(sample.box_image)
    asked = DecodeSpec(latents="oracle", latent_steps=3)
    found = engine.with_true_boxes([Prompt(question.input_ids)], [question], [boxes], asked, SMALL)[0].oracle
    wanted = torch.stack([store[crop.key][:3] for crop in crops_of(sample)])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    spec = DecodeSpec(latents="oracle", latent_steps=3, start="forced", end="forced", max_new_tokens=4)
    (answer,) = engine.answer([question], spec, SMALL, boxes=[boxes])
    assert answer.response.startswith("<|lvr_start|><|lvr|><|lvr|><|lvr|><|lvr_end|>") and answer.latent_steps >= 3
    with pytest.raises(ValueError, match="embeddings of a crop, but latent_steps is 10"):
        engine.answer([question], spec.model_copy(update={"latent_steps": 10}), SMALL, boxes=[boxes])


def test_live_training_takes_the_same_steps(world, tmp_path):
    losses = {}
    for vision in ("live", "cached"):
        spec = TrainSpec(stage=STAGE, images=SMALL, vision=vision)
        stores = world if vision == "cached" else {role: world[role] for role in ("init", "data")}
        run = LocalRun(tmp_path / vision, tmp_path / f"{vision}-checkpoints", metrics=tmp_path / f"{vision}.jsonl")
        losses[vision] = train(run, spec, inputs=stores, micro_batch=4)["probe"]
    assert losses["live"] == pytest.approx(losses["cached"], rel=1e-3)


def test_cached_training_asks_for_the_crops_by_name(world, tmp_path):

    spec = TrainSpec(stage=STAGE, images=SMALL, vision="cached")
    with pytest.raises(ValueError, match="needs a folder of features of the crops"):
        train(LocalRun(tmp_path / "out"), spec, inputs={role: path for role, path in world.items() if role != "crops"}, micro_batch=2)


RELEASE = STAGE.model_copy(update={"crop_rule": "nearest", "template": "front", "average": "slot"})
SIZES = Crops(min_tokens=4, max_tokens=9, rule="nearest")


@pytest.fixture(scope="module")
def nearest(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nearest")
    cache_features(LocalRun(folder), checkpoint=world["init"], data=world["data"], images=SMALL, cut=("crops", SIZES))
    return folder


def test_the_releases_crops_are_rounded_to_the_nearest_pixel_and_some_boxes_have_none():
    picture = Image.new("RGB", (640, 480))
    assert cut(picture, (0.3, 0.2, 0.62, 0.71), 28, "nearest").size == (397 - 192, 341 - 96)
    assert cut(picture, (0.499, 0.499, 0.501, 0.501), 28, "nearest").size == (2, 1)
    assert cut(picture, (0.0, 0.0, 1.0, 1.0), 28, "nearest") is None, "the whole picture"
    assert cut(picture, (0.1, 0.5, 0.9, 0.5005), 28, "nearest") is None, "512 times as long as wide"
    assert cut(picture, (0.1, 0.5, 0.9, 0.5005), 28).size == (512, 28)


def dropped(sample):
    """The sample, its first box the whole picture."""
    return replace(sample, boxes=((0.0, 0.0, 1.0, 1.0), *sample.boxes[1:]))


def test_a_box_without_a_crop_has_no_segment_and_answers_are_written_as_in_the_release(world, tokenizer):
    samples = read_samples(world["data"])
    one, two = (next(samples[k] for k in range(8) if len(samples[k].boxes) == count) for count in (1, 2))
    live = Collator(
        tokenizer, Live(load_image_processor(world["init"], SMALL)), slots=Slots("piece"), packing="padded", write=answer_text,
        extra={"crops": Extra(SIZES.pieces(), Live(load_crop_processor(world["init"], SMALL, SIZES), SIZES.pieces()))},
    )  # fmt: skip
    made = live([dropped(one), two, dropped(two), one]).batch
    assert made.segment_sample.tolist() == [1, 1, 2, 3] and torch.equal(made.segment_slots, made.encoded["crops"].grid_thw.prod(1) // 4)
    row, column, _ = slots.places(made)
    assert (made.input_ids[row, column] == tokenizer.convert_tokens_to_ids("<|lvr|>")).all()
    texts = [tokenizer.decode([t for t in ids.tolist() if t >= 0]) for ids in made.labels.where(made.labels >= 0, -1)]
    answers = [re.search(r"<answer>\s*(.*?)\s*</answer>", s.conversations[-1]["value"])[1] for s in (one, two)]
    assert texts[0].startswith(f"The answer is: {answers[0]}<|im_end|>"), "every crop dropped: the text is stripped"
    assert re.fullmatch(rf"(<\|lvr_start\|>(<\|lvr\|>)+<\|lvr_end\|>){{2}}\nThe answer is: {answers[1]}<\|im_end\|>\s*", texts[1])
    model = model_of(world)
    assert model.stage_terms(live([dropped(one)]).batch, RELEASE, 8).losses["vr"] == 0
    terms, alone = (model.stage_terms(live(group).batch, RELEASE, 8) for group in ([dropped(one), one], [one]))
    torch.testing.assert_close(terms.losses["vr"], alone.losses["vr"])


def test_cached_crops_of_the_releases_rule_are_the_live_ones(world, nearest, tokenizer):
    samples = [read_samples(world["data"])[k] for k in range(4)]
    store = FeatureStore(nearest)
    store.check(SMALL, ("crops", SIZES))
    with pytest.raises(ValueError, match="features are of crops"):
        store.check(SMALL, ("crops", CROPS))
    cached = Collator(tokenizer, Cached(FeatureStore(world["features"])), extra={"crops": Extra(SIZES.pieces(), Cached(store))}, slots=Slots("piece"), write=answer_text)(samples)
    live = Collator(
        tokenizer, Live(load_image_processor(world["init"], SMALL)), slots=Slots("piece"), write=answer_text,
        extra={"crops": Extra(SIZES.pieces(), Live(load_crop_processor(world["init"], SMALL, SIZES), SIZES.pieces()))},
    )(samples)  # fmt: skip
    assert torch.equal(live.batch.input_ids, cached.batch.input_ids)
    torch.testing.assert_close(encoded(model_of(world), live.batch), cached.batch.encoded["crops"].embeds, rtol=1e-4, atol=1e-5)


def test_a_mean_over_slots_adds_up_over_micro_batches_and_weighs_large_crops_more(world, tokenizer):
    samples, model = read_samples(world["data"]), model_of(world)
    whole = collator(world, tokenizer)([samples[k] for k in range(4)])
    parts = [collator(world, tokenizer)([samples[k] for k in pair]) for pair in ((0, 1), (2, 3))]
    counts = {"num_items": whole.supervised, "num_boxes": len(whole.batch.boxes), "num_slots": whole.batch.slots}
    by_slot = STAGE.model_copy(update={"average": "slot"})
    losses = [model.stage_forward(part.batch, by_slot, 8, **counts).loss for part in parts]
    terms = model.stage_terms(whole.batch, by_slot, 8)
    torch.testing.assert_close(sum(losses), terms.total())
    assert abs(terms.losses["vr"] - model.stage_terms(whole.batch, STAGE, 8).losses["vr"]) > 1e-4


def test_training_as_in_the_release_scales_the_gradient_before_it_is_clipped(world, nearest, tmp_path):
    lines = {}
    for scale in (1.0, 4.0):
        stage = RELEASE.model_copy(update={"gradient_scale": scale, "steps": 1})
        run = LocalRun(tmp_path / str(scale), tmp_path / f"{scale}-checkpoints", metrics=tmp_path / f"{scale}.jsonl")
        spec = TrainSpec(stage=stage, images=SMALL, vision="cached", packing="padded")
        train(run, spec, inputs=world | {"crops": nearest}, micro_batch=2)
        lines[scale] = json.loads((tmp_path / f"{scale}.jsonl").read_text().splitlines()[-1])["values"]
    assert lines[4.0]["loss"] == pytest.approx(lines[1.0]["loss"])
    assert lines[4.0]["grad_norm"] == pytest.approx(4 * lines[1.0]["grad_norm"], rel=1e-4)
