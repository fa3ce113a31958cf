"""Attention over each sample of a row: what each sample computes alone, without a mask over the row."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

from models.backbone import samples as by_sample
from models.methods.sft.spec import Sft
from tests.models.conftest import STEPS, gradients
from tests.models.latent.test_flash import ROWS, STAGES, TRUE, close, samples

__all__ = ["samples"]


@pytest.fixture
def masks(monkeypatch) -> list[int]:
    """One entry for each mask that transformers makes."""
    made, real = [], qwen.create_causal_mask
    monkeypatch.setattr(qwen, "create_causal_mask", lambda **options: made.append(1) or real(**options))
    return made


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("rows", ["one row", "two rows", "three rows"])
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("attention", ["sdpa", by_sample.EAGER])
def test_packed_rows_compute_the_same_without_a_mask(attention, name, rows, checkpointed, reference, masks, samples, batch_of):
    model = reference.model(attention)
    if checkpointed:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch = batch_of(samples, ROWS[rows])
    ours = model.stage_terms(batch, STAGES[name], STEPS, indicator=TRUE)
    own = gradients(model, ours.total())
    assert not masks
    masked = reference.model("eager")
    theirs = masked.stage_terms(batch, STAGES[name], STEPS, indicator=TRUE)
    assert masks
    for loss, value in theirs.losses.items():
        torch.testing.assert_close(ours.losses[loss], value, rtol=1e-5, atol=1e-6, msg=loss)
    close(own, gradients(masked, theirs.total()))


@pytest.mark.parametrize("attention", ["sdpa", by_sample.EAGER])
def test_samples_that_are_not_told_apart_see_each_other(attention, reference, samples, batch_of):
    """So the comparison above would notice."""
    model, batch = reference.model(attention), batch_of(samples, ROWS["one row"])
    right = model.stage_terms(batch, Sft(), STEPS).losses["ce"]
    batch.flat.ends = batch.flat.ends[[0, 2, 4]]
    assert abs(model.stage_terms(batch, Sft(), STEPS).losses["ce"] - right) > 1e-3


@pytest.mark.parametrize(
    ("attention", "layers"), [("eager", "full_attention"), ("sdpa", "sliding_attention"), (by_sample.EAGER, "sliding_attention")]
)
def test_other_attention_keeps_its_mask(attention, layers, reference, masks, samples, batch_of):
    model = reference.model(attention)
    config = model.model.language_model.config
    assert by_sample.apart(config) is (attention != "eager")
    config.layer_types = [layers] * len(config.layer_types)
    assert not by_sample.apart(config)
    if attention == "eager":
        model.stage_terms(batch_of(samples, ROWS["one row"]), Sft(), STEPS)
        assert masks
