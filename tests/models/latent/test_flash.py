"""Flash attention, its kernels emulated: packed, padded and single samples, rollouts and decodings as under sdpa."""

from __future__ import annotations

import pytest
import torch

from models.config import DecodeSpec
from models.latent import rollout
from models.latent.decoding import decode
from models.methods.sft.spec import Sft
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from tests.models.conftest import EOS, STEPS, gradients, seeing
from tests.models.flash import kernels, with_flash

__all__ = ["kernels"]
TRUE = torch.tensor(True)
STAGES = {
    "sft": Sft(), "stage 1": Stage1(), "teacher fill": Stage2(slot_fill="teacher"),
    "two passes": Stage2(rollout="two_pass"), "joint": Joint(),
}  # fmt: skip
ROWS = {"one row": [[0, 1, 2, 3]], "two rows": [[0, 2], [1, 3]], "three rows": [[3, 0], [1], [2]], "padded": False}
ROLLOUTS = {
    "student": Stage2(), "own states": Stage2(slot_fill="hidden", teacher="none"),
    "self-fed": Stage1(self_fed=0.5), "attached": Stage2(slot_gradient="attached"),
}  # fmt: skip


def close(found, wanted, tolerance=2e-4):
    assert found.keys() == wanted.keys() and found
    for name, value in wanted.items():
        assert (found[name] - value).abs().max() / value.abs().max().clamp(min=1e-6) < tolerance, name


@pytest.fixture
def samples(make) -> list[dict]:
    """Of four lengths; with one, two, three boxes; on one and two images."""
    maker = make()
    return [
        maker.sample(),
        maker.sample(grids=((2, 3), (3, 2)), question=3, segments=2, box_images=[1, 0]),
        maker.sample(grids=((3, 5),), question=9, answer=2),
        maker.sample(grids=((2, 2),), question=1, segments=3, box_images=[0, 0, 0]),
    ]


@pytest.fixture
def flash(reference, kernels):
    return with_flash(reference.model("sdpa"))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", STAGES)
def test_rows_of_any_number_compute_what_each_sample_does_alone(name, rows, model, flash, kernels, samples, batch_of):
    stage = STAGES[name]
    batch = batch_of(samples, ROWS[rows])
    terms = flash.stage_terms(batch, stage, STEPS, indicator=TRUE)
    assert kernels.varlen_calls and not kernels.dense_calls
    alone = [
        model.stage_terms(
            batch_of([sample], False), stage, STEPS, indicator=TRUE, num_items=int(terms.counts["ce_tokens"]),
            num_boxes=len(batch.boxes),
        )
        for sample in samples
    ]  # fmt: skip
    for loss, value in terms.losses.items():
        torch.testing.assert_close(value, sum(one.losses[loss] for one in alone), rtol=1e-5, atol=1e-6, msg=loss)
    close(gradients(flash, terms.total()), gradients(model, sum(one.total() for one in alone)))


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ROLLOUTS)
def test_a_sequential_rollout_lays_its_chunks_end_to_end(
    name, checkpointed, model, flash, kernels, samples, make, batch_of, monkeypatch
):
    monkeypatch.setattr(rollout, "_rounds", lambda segment_row: 4)  # as beside a rank with longer samples
    batch, found = batch_of(samples, False), []
    none = batch_of([make(seed=1).sample(segments=0)], False)
    torch.testing.assert_close(*(one.stage_terms(none, ROLLOUTS[name], STEPS, indicator=TRUE).total() for one in (flash, model)))
    for one in (model, flash):
        if checkpointed:
            one.train()
            one.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        draws = torch.Generator().manual_seed(4)
        found.append(one.stage_terms(batch, ROLLOUTS[name], STEPS, indicator=TRUE, generator=draws))
    assert kernels.varlen_calls and not kernels.dense_calls
    plain, terms = found
    real = batch.attention_mask
    torch.testing.assert_close(terms.hidden[real], plain.hidden[real], atol=2e-5, rtol=1e-4)
    assert not terms.hidden[~real].any()
    close(gradients(flash, terms.total()), gradients(model, plain.total()))


def test_a_position_that_is_not_said_to_begin_a_sample_lets_samples_see_each_other(flash, samples, batch_of):
    """So the comparison above would notice."""
    batch = batch_of(samples, [[0, 1, 2, 3]])
    right = flash.stage_terms(batch, Sft(), STEPS).losses["ce"]
    batch.flat.ends, batch.flat.longest = batch.flat.ends[[0, 2, 4]], int(batch.flat.ends[[0, 2, 4]].diff().max())
    assert abs(flash.stage_terms(batch, Sft(), STEPS).losses["ce"] - right) > 1e-3


@pytest.mark.parametrize("latents", ["own", "zeroed", "shuffled", "oracle"])
@pytest.mark.parametrize("start", ["emitted", "forced"])
def test_left_padded_decodings_give_the_answers_of_one_prompt_at_a_time(
    latents, start, talkative, kernels, prompts, tokens
):
    spec = DecodeSpec(max_new_tokens=24, latents=latents, start=start)
    options = {"tokens": tokens, "eos": {EOS}, "keep_latents": True}

    def answers(of, some):
        return decode(talkative, of, spec, generator=torch.Generator().manual_seed(3), **some, **options)

    prompts = seeing(talkative, prompts[:-1])
    own = answers(prompts, {})
    assert not kernels.varlen_calls and not kernels.dense_calls
    with_flash(talkative)
    batched = answers(prompts, {})
    assert kernels.varlen_calls
    alone = batched if latents == "shuffled" else [answers([prompt], {})[0] for prompt in prompts]
    assert any(answer.latent_steps for answer in own) and len({len(answer.token_ids) for answer in own}) > 1
    for reference, together, single in zip(own, batched, alone, strict=True):
        assert reference.token_ids == together.token_ids == single.token_ids
        if reference.latents is not None:
            torch.testing.assert_close(together.latents, reference.latents, atol=1e-4, rtol=1e-3)  # after many steps
            torch.testing.assert_close(single.latents, reference.latents, atol=1e-4, rtol=1e-3)  # after many steps
