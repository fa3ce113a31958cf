"""When a latent segment ends: after S steps, near the end vector, or when the model says so."""

from __future__ import annotations

import pytest
import torch

from models.config import DecodeSpec
from models.latent.decoding import decode
from tests.models.conftest import EOS, LVR, LVR_END


def answers(model, tokens, prompts, end_vector=None, **options):
    spec = DecodeSpec(start="forced", max_new_tokens=12, **options)
    return decode(model, prompts, spec, tokens=tokens, eos={EOS}, keep_latents=True, end_vector=end_vector)


def test_a_segment_ends_one_step_after_the_state_has_come_near_the_end_vector(model, tokens, prompts):
    plain = answers(model, tokens, prompts, latent_steps=6)
    third = plain[2].hidden[2].clone()
    alone = [answers(model, tokens, [prompt], third, latent_steps=6, leave="latent", leave_below=1e-6)[0] for prompt in prompts]
    together = answers(model, tokens, prompts, third, latent_steps=6, leave="latent", leave_below=1e-6)
    assert [one.latent_steps for one in alone] == [6, 6, 3, 6, 6, 6, 6]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    torch.testing.assert_close(together[2].latents[-1], third)


def test_leaving_near_a_vector_needs_one(model, tokens, prompts):
    with pytest.raises(ValueError, match="learned end vector, which this checkpoint lacks; use leave: steps"):
        answers(model, tokens, prompts, leave="latent")


def test_a_free_segment_ends_where_the_model_picks_the_end_marker_or_after_s_steps(model, tokens, prompts):
    assert [one.latent_steps for one in answers(model, tokens, prompts, latent_steps=5, leave="free")] == [5] * len(prompts)
    with torch.no_grad():
        model.lm_head.weight[LVR_END] = 50 * answers(model, tokens, prompts[:1], latent_steps=3)[0].hidden[2]
    plain = answers(model, tokens, prompts, latent_steps=9)
    freed = answers(model, tokens, prompts, latent_steps=9, leave="free")
    assert freed[0].latent_steps < 9
    for one, whole in zip(freed, plain, strict=True):
        left = one.latent_steps
        assert one.token_ids[1 : left + 1] == [LVR] * left
        if left < 9:
            assert one.token_ids[left + 1] == LVR_END
        if left:
            torch.testing.assert_close(one.latents[:left], whole.latents[:left])


def test_a_limit_on_new_tokens_may_leave_latent_steps_whole(model, tokens, prompts):
    options = {"latent_steps": 8, "count_latents": True}
    spec = DecodeSpec(start="forced", max_new_tokens=4, **options)
    cut = decode(model, prompts[:2], spec, tokens=tokens, eos={EOS})
    assert [one.latent_steps for one in cut] == [3, 3] and all(one.truncated for one in cut)
    whole = decode(model, prompts[:2], spec.model_copy(update={"cut_latents": False}), tokens=tokens, eos={EOS})
    assert [one.latent_steps for one in whole] == [8, 8]
    assert [len(one.token_ids) for one in whole] == [10, 10], "the start, eight steps, and the token that ends the answer"
