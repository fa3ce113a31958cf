"""Each option of a stage changes what it should and nothing else, seen in one forward and backward pass."""

import pytest
import torch

from models.latent.terms import slot_places
from models.methods.vreflection.modules import OwnParameters
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from tests.models.conftest import STEPS, gradients

GROUPS = {
    "bcm": ("box_feature_resampler.",),
    "dac": ("student_resampler.",),
    "static": ("vreflection.",),
    "llm": ("model.language_model.", "lm_head."),
}
STAGE1, STAGE2, JOINT = Stage1(), Stage2(slot_fill="teacher"), Joint()
DETACHED = Stage1(slot_gradient="detached")
ONE, ZERO = torch.tensor(True), torch.tensor(False)


def facts(model, batch, stage, indicator):
    """Everything an option might change: losses, latents, what was fed, and each module's gradient of the total."""
    generator = torch.Generator().manual_seed(1)
    terms = model.stage_terms(batch, stage, STEPS, indicator=indicator, generator=generator)
    found = {f"loss {name}": value.detach() for name, value in terms.losses.items()}
    found |= {
        name: terms.latents[name].detach() for name in ("z_t", "a_t", "z_s", "a_s", "hidden") if name in terms.latents
    }
    if not (stage.slot_fill != "teacher" or stage.self_fed) or stage.rollout == "two_pass":
        found["fed"] = terms.embeds[slot_places(batch, STEPS)].detach()
    for loss in ("total", "ce"):
        grads = gradients(model, terms.total() if loss == "total" else terms.losses["ce"])
        for group, prefixes in GROUPS.items():
            own = [g.flatten() for name, g in sorted(grads.items()) if name.startswith(prefixes)]
            found[f"grad {loss} {group}"] = torch.cat(own) if own else torch.zeros(())
    return found


def changed(one, other):
    return {
        name
        for name in set(one) | set(other)
        if name not in one or name not in other or one[name].shape != other[name].shape
        or (one[name] - other[name]).abs().max() > 1e-6 * one[name].abs().max()
    }  # fmt: skip


ALL1 = {"loss ce", "loss bcm", "hidden", "grad total llm", "grad total bcm", "grad ce llm", "grad ce bcm"}
DAC = {"z_s", "a_s", "loss dac_feat", "loss dac_attn", "grad total dac", "grad total llm"}
CASES = [
    (STAGE1, {"slot_fill": "hidden"}, ALL1 | {"fed"} - {"z_t"}),
    (STAGE1, {"slot_gradient": "detached"}, {"grad total bcm", "grad ce bcm"}),
    (STAGE1, {"self_fed": 0.999}, ALL1 | {"fed"}),
    (STAGE1, {"rollout": "two_pass"}, set()),
    (STAGE1.model_copy(update={"self_fed": 0.999}), {"rollout": "two_pass"}, ALL1 | {"fed"}),
    (STAGE1, {"ce_on_slots": True}, {"loss ce", "grad total llm", "grad ce llm", "grad total bcm", "grad ce bcm"}),
    (STAGE1, {"region": "tokens"}, ALL1 | {"fed", "z_t", "a_t"}),
    (STAGE1, {"roi_bins": 3}, ALL1 | {"fed", "z_t", "a_t"}),
    (STAGE1, {"lambda_bcm": 3.0}, {"grad total llm", "grad total bcm"}),  # through the slots that H has seen
    (DETACHED, {"lambda_bcm": 3.0}, {"grad total llm"}),
    (STAGE1, {"align": "joint"}, {"grad total bcm"}),
    (STAGE1, {"align": "split"}, {"grad total bcm", "grad total llm"}),
    (STAGE1, {"p": 0.9}, set()),  # the draw is the trainer's
    (STAGE1, {"bcm_distance": "mse"}, {"loss bcm", "grad total llm", "grad total bcm"}),
    (DETACHED, {"bcm_distance": "mse"}, {"loss bcm", "grad total llm"}),
    (STAGE1, {"clamp": 1e4}, set()),
    (DETACHED, {"clamp": 0.1}, {"loss bcm", "grad total llm"}),
    (STAGE2, {"slot_fill": "student"}, DAC | {"loss ce", "hidden", "fed", "grad ce llm", "grad ce dac"}),
    (STAGE2, {"slot_fill": "hidden"}, DAC | {"loss ce", "hidden", "fed", "grad ce llm"}),
    (STAGE2, {"slot_gradient": "detached"}, set()),  # the BCM is frozen, so there was no gradient to stop
    (STAGE2, {"lambda_dac": 2.0}, {"grad total dac", "grad total llm"}),
    (STAGE2, {"lambda_feat": 0.0}, {"grad total dac", "grad total llm"}),
    (STAGE2, {"lambda_attn": 0.0}, {"grad total dac", "grad total llm"}),
    (STAGE2, {"dac_distance": "mse"}, {"loss dac_feat", "grad total dac", "grad total llm"}),
    (STAGE2, {"tau": 2.0}, {"loss dac_attn", "grad total dac", "grad total llm"}),
    (STAGE2, {"epsilon": 0.1}, {"loss dac_attn", "grad total dac", "grad total llm"}),
    (STAGE2.model_copy(update={"epsilon": 0.1}), {"epsilon_in": "student"}, {"loss dac_attn"}),
    (STAGE2, {"query_source": "static"}, DAC | {"grad total static"}),
    (STAGE2, {"query_source": "random"}, DAC),
    (STAGE2, {"query_shift": 0}, DAC),
    (STAGE2, {"teacher": "random"}, set()),  # which BCM is loaded is the trainer's
    (Stage2(slot_fill="hidden"), {"teacher": "none"}, DAC | {"z_t", "a_t"}),
    (Stage2(), {"slot_gradient": "detached"}, {"grad ce dac", "grad ce llm", "grad total dac", "grad total llm"}),
    (Stage2(), {"rollout": "two_pass"}, DAC | {"loss ce", "hidden", "fed", "grad ce llm", "grad ce dac"}),
    (JOINT, {"lambda_bcm": 3.0}, {"grad total llm", "grad total bcm"}),
    (JOINT, {"lambda_dac": 3.0}, {"grad total dac", "grad total llm", "grad total bcm"}),
    (JOINT.model_copy(update={"slot_gradient": "detached"}), {"lambda_dac": 3.0}, {"grad total dac", "grad total llm"}),
    (JOINT, {"align": "joint"}, {"grad total bcm"}),
]


@pytest.fixture
def complete(model):
    model.vreflection = OwnParameters(128, STEPS)
    torch.nn.init.normal_(model.vreflection.static_queries, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("stage", "change", "expected"), CASES, ids=[f"{c[0].kind} {c[1]}" for c in CASES])
def test_an_option_changes_what_it_should_and_nothing_else(stage, change, expected, complete, padded):
    one = facts(complete, padded, stage, ONE)
    other = facts(complete, padded, stage.model_copy(update=change), ONE)
    assert changed(one, other) == expected


def test_the_draw_decides_which_side_the_alignment_moves(complete, padded):
    one, zero = (facts(complete, padded, DETACHED, draw) for draw in (ONE, ZERO))
    assert changed(one, zero) == {"grad total llm", "grad total bcm"}
    torch.testing.assert_close(zero["grad total llm"], zero["grad ce llm"])
    assert not one["grad total bcm"].any() and zero["grad total bcm"].any() and not zero["grad ce bcm"].any()


def test_an_attached_fill_lets_the_alignment_reach_the_bcm_through_the_states_even_when_the_model_moves(
    complete, padded
):
    one, zero = (facts(complete, padded, STAGE1, draw) for draw in (ONE, ZERO))
    assert changed(one, zero) == {"grad total llm", "grad total bcm"}
    torch.testing.assert_close(zero["grad total llm"], zero["grad ce llm"])
    assert (one["grad total bcm"] - one["grad ce bcm"]).abs().max() > 1e-5


@pytest.mark.parametrize("granularity", ["sample", "microbatch"])
def test_other_granularities_than_step_take_a_draw_for_each_sample(granularity, complete, padded):
    stage = STAGE1.model_copy(update={"granularity": granularity})
    per_sample = facts(complete, padded, stage, torch.tensor([True, True, True]))
    assert changed(facts(complete, padded, STAGE1, ONE), per_sample) == set()
    mixed = facts(complete, padded, stage, torch.tensor([True, False, True]))
    assert changed(per_sample, mixed) == {"grad total llm", "grad total bcm"}
    with pytest.raises(ValueError, match=f"granularity {granularity} takes 3 draws"):
        facts(complete, padded, stage, ONE)
    with pytest.raises(ValueError, match="granularity step takes one draw"):
        facts(complete, padded, STAGE1, torch.tensor([True, False, True]))


def test_stage_2_never_moves_the_bcm_and_joint_distils_into_the_student_only(complete, padded):
    for stage in (STAGE2, Stage2(), Stage2(rollout="two_pass")):
        assert not facts(complete, padded, stage, None)["grad total bcm"].any()
    quiet = JOINT.model_copy(update={"slot_gradient": "detached"})
    assert not facts(complete, padded, quiet, ONE)["grad total bcm"].any()
