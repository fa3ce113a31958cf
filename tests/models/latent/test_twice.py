"""Two passes that share what stands before the slots: the same states and gradients as two whole ones, of fewer tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.backbone import samples as by_sample
from models.latent import slots
from models.latent.batch import Encoded
from models.latent.twice import TwoPasses
from models.methods.visreflect.spec import ReflectVideo
from models.methods.vreflection.spec import Stage2
from tests.models.conftest import STEPS, gradients
from tests.models.flash import kernels, with_flash
from tests.models.latent.test_flash import ROWS, TRUE, close, samples

__all__ = ["kernels", "samples"]
STAGES = {
    "student": Stage2(rollout="two_pass"), "attached": Stage2(rollout="two_pass", slot_gradient="attached"),
    "own states": Stage2(rollout="two_pass", slot_fill="hidden"), "self-fed": Stage2(rollout="two_pass", slot_fill="teacher", self_fed=0.5),
}  # fmt: skip


@pytest.fixture(params=["sdpa", by_sample.EAGER, "flash"])
def apart(request, reference, kernels):
    return with_flash(reference.model("sdpa")) if request.param == "flash" else reference.model(request.param)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", STAGES)
def test_the_losses_and_gradients_are_those_of_two_whole_passes(name, rows, checkpointed, apart, reference, samples, batch_of):
    if checkpointed:
        apart.train()
        apart.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch, whole, found = batch_of(samples, ROWS[rows]), reference.model("eager"), []
    for model in (apart, whole):
        draws = torch.Generator().manual_seed(4)
        found.append(model.stage_terms(batch, STAGES[name], STEPS, indicator=TRUE, generator=draws))
    for loss, value in found[1].losses.items():
        torch.testing.assert_close(found[0].losses[loss], value, rtol=1e-5, atol=1e-6, msg=loss)
    close(gradients(apart, found[0].total()), gradients(whole, found[1].total()))


@pytest.mark.parametrize("rows", ROWS)
def test_tokens_before_the_slots_are_run_once(rows, apart, samples, batch_of):
    batch = batch_of(samples, ROWS[rows])
    seen = []
    apart.model.language_model.layers[0].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0].shape[1]))
    passes, fed = TwoPasses(apart, batch), apart.embed(batch.input_ids, apart.vision(batch))
    first, second = passes.first(fed), passes.second(fed)
    row, column, _ = slots.places(batch)
    segments = [[at for at, own in enumerate(batch.segment_sample.tolist()) if own == sample] for sample in range(len(batch))]
    starts, counts = batch.segment_start.tolist(), batch.segment_slots.tolist()
    between = sum(starts[own[-1]] + counts[own[-1]] - starts[own[0]] for own in segments)
    before = [starts[own[0]] - _begin(batch, own[0]) for own in segments]
    padding = int(batch.flat.ends[-1]) - sum(len(sample["ids"]) for sample in samples)  # of packed rows
    assert seen == [sum(before) + padding, between, int(batch.flat.ends[-1]) - padding - sum(before)]
    torch.testing.assert_close(first[row, column - 1], second[row, column - 1])
    last = batch.segment_start[segments[0][-1]] + batch.segment_slots[segments[0][-1]]
    assert not first[batch.segment_row[segments[0][0]], last].any() and second[batch.segment_row[segments[0][0]], last].any()


def _begin(batch, segment: int) -> int:
    """The column of the first token of a segment's sample."""
    text = batch.position_ids[0, batch.segment_row[segment], : batch.segment_start[segment]]
    return int((text == 0).nonzero()[-1])


def test_samples_without_slots_take_the_same_steps(apart, make, batch_of):
    batch = batch_of([make(seed=1).sample(segments=0), make(seed=2).sample(segments=0)], [[0, 1]])
    calls = []
    apart.model.language_model.layers[0].register_forward_hook(lambda layer, inputs, output: calls.append(inputs[0].shape[1]))
    passes, fed = TwoPasses(apart, batch), apart.embed(batch.input_ids, apart.vision(batch))
    passes.first(fed)
    assert len(calls) == 2 and calls[0] == int(batch.flat.ends[-1])
    torch.testing.assert_close(passes.second(fed), apart.run_language(fed, batch), atol=2e-5, rtol=1e-4)
    assert len(calls) == 4


@pytest.mark.parametrize("attention", ["sdpa", by_sample.EAGER, "flash"])
def test_layers_with_a_window_get_two_whole_passes(attention, reference, kernels, samples, batch_of):
    def windowed(name):
        model = with_flash(reference.model("sdpa")) if name == "flash" else reference.model(name)
        language = model.model.language_model
        language.config.layer_types = ["sliding_attention"] * len(language.layers)
        language.config.sliding_window, language.has_sliding_layers = 4096, True
        for layer in language.layers:
            layer.attention_type, layer.self_attn.sliding_window = "sliding_attention", 4096
        return model.stage_terms(batch_of(samples, ROWS["two rows"]), STAGES["student"], STEPS, indicator=TRUE).losses

    found = windowed(attention)
    for loss, value in windowed("eager").items():
        torch.testing.assert_close(found[loss], value, rtol=1e-5, atol=1e-6, msg=loss)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("stage", [STAGES["student"], STAGES["attached"], ReflectVideo(passes="two")], ids=["student", "attached", "video"])
def test_ranks_with_and_without_slots_gather_the_same_parameters_forwards_and_backwards(stage, checkpointed, apart, samples, make, batch_of):
    """ZeRO-3 gathers and scatters them module by module, and a rank that takes other steps than the rest waits for ever."""
    if checkpointed:
        apart.train()
        apart.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    steps: list[str] = []
    for name, module in apart.model.language_model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda module, inputs, name=name: steps.append(name))
            module.register_full_backward_pre_hook(lambda module, gradients, name=name: steps.append(f"{name} backwards"))
    found = []
    for some in (samples, [make(seed=1).sample(segments=0), make(seed=2).sample(segments=0)], [*samples[:1], make(seed=1).sample(segments=0)]):
        batch = batch_of(some, [list(range(len(some)))])
        batch = replace(batch, encoded={"clues": Encoded(embeds=torch.ones(batch.slots, 128))})
        apart.stage_terms(batch, stage, STEPS, indicator=TRUE).total().backward()
        found.append(list(steps))
        steps.clear()
    assert "layers.0.mlp.up_proj backwards" in found[0] and found[0] == found[1] == found[2]
