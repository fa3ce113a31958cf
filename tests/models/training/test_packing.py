"""Rows and groups, and that packing changes no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from models import loading
from models.backbone import template
from models.backbone.images import load_image_processor
from models.methods.sft.spec import Sft
from models.methods.stage import Slots
from models.methods.vreflection.spec import Stage1, Stage2
from models.run import LocalRun
from models.training.collate import Cached, Collator, Encoder
from models.training.data import read_samples
from models.training.features import FeatureStore, cache_features
from models.training.packing import first_fit, release_groups
from models.training.pixels import Live
from tests.models.training.conftest import SMALL

# Lengths of two streams and the first batches that the released loader made of them (sampled by stream length, seed 0).
STREAM_A = [4096, 4700, 300, 4700, 4000, 4000, 4095, 1500, 5200, 300, 1500, 2500, 4095, 2500, 900, 300, 300, 300, 900, 5200,
            900, 4095, 4096, 1500, 1500, 2500, 1500, 5200, 900, 5200, 4700, 4700, 900, 2500, 4095, 4000, 4095, 4096, 4095,
            300, 5200, 4095, 5200, 1500, 2500, 4700, 900, 300, 2500, 4096, 900, 4700, 2500, 1500, 4000, 5200, 4700, 4700,
            1500, 300, 4700, 4096, 4096, 300, 300]  # fmt: skip
STREAM_B = [300, 4000, 2500, 4096, 5200, 4000, 4096, 1500, 4095, 4000, 4096, 300, 1500, 300, 5200, 4000, 4000, 4000, 300,
            4700, 4700, 300, 4095, 4095, 2500]  # fmt: skip
RELEASE = [[4096], [4700], [4700], [300, 300, 4000, 4000], [4096], [4000, 4095, 2500, 1500], [5200], [5200],
           [300, 1500, 4000, 2500], [4095, 2500, 900, 300], [5200], [4096], [300, 300, 900, 1500], [4096],
           [900, 4095, 1500, 1500], [5200], [2500, 1500, 900, 4095], [5200], [4700], [4700], [4000, 900, 2500, 4095],
           [4096], [4096], [4000, 4095, 300, 1500], [5200], [4095, 300, 300, 4095], [5200], [5200], [4700],
           [1500, 2500, 900, 300], [4096], [4700], [2500, 900, 4000, 2500]]  # fmt: skip


def test_release_groups_are_those_of_the_released_loader():
    rng, streams = np.random.default_rng(0), [iter(STREAM_A), iter(STREAM_B)]
    lengths = [next(streams[rng.choice(2, p=[0.75, 0.25])]) for _ in range(80)]
    groups = [[lengths[k] for k in group] for group in release_groups(lengths)]
    assert groups[: len(RELEASE)] == RELEASE


def test_release_groups_keep_every_sample_and_both_limits():
    lengths = np.random.default_rng(1).integers(200, 5000, 500).tolist()
    groups = list(release_groups(lengths, waiting=3, max_tokens=8000))
    assert sorted(k for group in groups for k in group) == list(range(500))
    assert all(len(group) <= 4 and sum(lengths[k] for k in group) <= 8000 for group in groups)


def test_first_fit_fills_the_first_row_with_room():
    assert first_fit([60, 50, 40, 30, 20], 100) == [[0, 2], [1, 3, 4]]
    with pytest.raises(ValueError, match="sample 1 has 101 tokens, more than a row of 100"):
        first_fit([3, 101], 100)


@pytest.fixture(scope="module")
def world(base, make_data, tmp_path_factory):
    data = make_data(6, several=True)
    features = tmp_path_factory.mktemp("features")
    cache_features(LocalRun(features), checkpoint=base, data=data, images=SMALL)
    return AutoTokenizer.from_pretrained(base), read_samples(data), FeatureStore(features)


def collator(world, **options) -> Collator:
    return Collator(world[0], Cached(world[2]), **({"slots": Slots("fixed", 3)} | options))


def test_a_remembered_encoding_is_the_tokenizers(world):
    tokenizer = world[0]
    text = template.prompt_text("<image>\n<image>\nWhich?", [(2, 3), (1, 1)])
    for _ in range(2):
        assert Encoder(tokenizer)(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_segments_point_at_slots_and_images(world):
    tokenizer, samples, _ = world
    for packing in ("packed", "padded"):
        made = collator(world, packing=packing)([samples[k] for k in range(6)])
        batch = made.batch
        slot = tokenizer.convert_tokens_to_ids("<|lvr|>")
        for k in range(len(batch.boxes)):
            row, start = batch.segment_row[k], batch.segment_start[k]
            assert (batch.input_ids[row, start : start + 3] == slot).all()
        assert (batch.input_ids == slot).sum() == 3 * len(batch.boxes) == 27
        assert len(batch.image_grids) == 9 and batch.image_grids.prod(1).sum() == len(batch.image_embeds)
        # the two-image samples name their second image first
        first = {1: 1, 3: 4, 5: 7}
        if packing == "padded":
            for sample, image in first.items():
                assert batch.segment_image[batch.segment_sample == sample].tolist() == [image + 1, image]
        assert made.ids == [samples.name(k) for k in range(6)]


def test_positions_are_those_of_transformers(world, base):
    model = loading.load(base, heads=(), latent_steps=0, dtype=torch.float32)
    made = collator(world, packing="padded")([world[1][0], world[1][1]]).batch
    types = (made.input_ids == model.config.image_token_id).int()
    for r, grids in enumerate((made.image_grids[:1], made.image_grids[1:])):
        length = int(made.attention_mask[r].sum())
        thw = torch.cat([torch.ones(len(grids), 1, dtype=torch.long), grids * 2], 1)
        expected, _ = model.model.get_rope_index(made.input_ids[r : r + 1, :length], types[r : r + 1, :length], thw)
        assert torch.equal(made.position_ids[1:, r, :length], expected[:, 0])


def test_live_and_cached_pixels_give_one_batch(world, base):
    tokenizer, samples, store = world
    some = [samples[k] for k in range(3)]
    processor = load_image_processor(base, SMALL)
    cached = Collator(tokenizer, Cached(store), slots=Slots("fixed", 2))(some).batch
    live = Collator(tokenizer, Live(processor), slots=Slots("fixed", 2))(some).batch
    assert torch.equal(cached.input_ids, live.input_ids) and torch.equal(cached.image_grids, live.image_grids)
    model = loading.load(base, heads=(), latent_steps=2, dtype=torch.float32)
    torch.testing.assert_close(model.vision(live), cached.image_embeds, rtol=1e-4, atol=1e-5)


def test_short_rows_are_as_long_as_the_longest_sample(world, base, make_data):
    samples = read_samples(make_data(6, sides=(32, 160)))
    live = Live(load_image_processor(base, SMALL))
    padded, short = (
        Collator(world[0], live, slots=Slots("fixed", 2), **options)([samples[k] for k in range(6)])
        for options in ({"packing": "padded"}, {"short_rows": True})
    )
    assert short.batch.packed and short.batch.input_ids.shape[1] == padded.batch.input_ids.shape[1]
    assert len(short.batch.input_ids) < len(padded.batch.input_ids) and short.supervised == padded.supervised


def test_a_sample_longer_than_a_row_is_named(world):
    with pytest.raises(ValueError, match="sample toy:0 has .* more than max_tokens 40; raise max_tokens"):
        collator(world, max_tokens=40)([world[1][0]])


def test_no_segments_without_latents_and_markers_only_at_zero_steps(world):
    tokenizer, samples, _ = world
    sft = collator(world, slots=Slots("none"))([samples[0]]).batch
    assert len(sft.boxes) == 0 and "lvr" not in tokenizer.decode(sft.input_ids[0])
    empty = collator(world, slots=Slots("fixed", 0))([samples[0]]).batch
    assert "<|lvr_start|><|lvr_end|>\n<answer>" in tokenizer.decode(empty.input_ids[0]) and len(empty.boxes) == 1


@pytest.mark.parametrize(
    "stage",
    [
        Sft(),
        Stage1(align="joint"),
        Stage2(slot_fill="teacher", teacher="stage1"),
        Stage2(slot_fill="student", rollout="two_pass", teacher="stage1"),
    ],
    ids=["sft", "stage1", "stage2 teacher-filled", "stage2 two passes"],
)
def test_packed_rows_give_the_losses_and_gradients_of_padded_ones(world, base, stage):
    samples = [world[1][k] for k in range(6)]
    steps = None if stage.kind == "sft" else 3
    found = []
    for options in ({"packing": "padded"}, {}, {"short_rows": True}):
        model = loading.load(base, heads=frozenset({"bcm", "dac"}), latent_steps=3, dtype=torch.float32, seed=1)
        made = collator(world, slots=Slots("none") if steps is None else Slots("fixed", steps), **options)(samples)
        rows = len(made.batch.input_ids)
        assert (rows > 1) == bool(options)
        out = model.stage_forward(made.batch, stage, 3)
        assert int(out.parts["ce_tokens"]) == made.supervised
        out.loss.backward()
        found.append((out, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (padded, grads), *both = found
    for packed, packed_grads in both:
        for name, value in padded.parts.items():
            torch.testing.assert_close(packed.parts[name], value, rtol=1e-5, atol=1e-6, msg=name)
        assert grads.keys() == packed_grads.keys() and len(grads) > 20
        for name, grad in grads.items():
            torch.testing.assert_close(packed_grads[name], grad, rtol=1e-3, atol=1e-6, msg=name)
