"""What the trainer decides, not the forward pass: the Bernoulli draw and what shares it, and which parameters decay."""

from __future__ import annotations

import pytest
import torch

from models.config import Joint, Sft, Stage1, Stage2
from models.training.order import Order, indicator
from models.training.trainer import parameter_groups
from models.vreflection.modules import BoxResampler


def order(rank: int = 0, **changes) -> Order:
    return Order(**{"samples": 100, "steps": 400, "global_batch": 16, "micro_batch": 2, "seed": 0, "world": 2, "rank": rank} | changes)


def draws(stage, step: int) -> list[torch.Tensor]:
    """Of every micro-batch of a step, over both ranks."""
    return [indicator(stage, order(rank), step, micro) for rank in (0, 1) for micro in range(order().accumulation)]


def test_a_step_is_one_draw_that_all_ranks_and_micro_batches_share():
    found = [draws(Stage1(granularity="step"), step) for step in range(50)]
    assert all(one.shape == () and len({bool(d) for d in step}) == 1 for step in found for one in step)
    assert len({bool(step[0]) for step in found}) == 2, "another step, another draw"


def test_a_micro_batch_is_one_draw_that_its_samples_share():
    found = [draws(Stage1(granularity="microbatch"), step) for step in range(50)]
    assert all(one.shape == () for step in found for one in step)
    assert any(len({bool(d) for d in step}) == 2 for step in found)


def test_a_sample_is_a_draw_of_its_own():
    found = [draws(Stage1(granularity="sample"), step) for step in range(50)]
    assert all(one.shape == (2,) for step in found for one in step)
    assert any(one[0] != one[1] for step in found for one in step)


@pytest.mark.parametrize("granularity", ["step", "microbatch", "sample"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_p_is_how_often_the_language_model_moves(p, granularity):
    stage = Stage1(p=p, granularity=granularity)
    found = torch.cat([d.reshape(-1).float() for step in range(400) for d in draws(stage, step)])
    assert found.mean().item() == pytest.approx(p, abs=0.0 if p in (0, 1) else 0.08)


def test_draws_follow_the_seed_and_a_larger_p_only_turns_more_of_them():
    def all_draws(**changes):
        seed = changes.pop("seed", 0)
        return torch.stack([indicator(Stage1(**changes), order(seed=seed), step, 0) for step in range(200)])

    assert torch.equal(all_draws(), all_draws()) and not torch.equal(all_draws(), all_draws(seed=1))
    assert not (all_draws(p=0.3) & ~all_draws(p=0.7)).any()


@pytest.mark.parametrize("stage", [Sft(), Stage2(), Stage1(align="split"), Stage1(align="joint"), Joint(align="joint")])
def test_stages_that_draw_nothing_have_no_draw(stage):
    assert indicator(stage, order(), 0, 0) is None


def test_norms_and_biases_decay_only_where_the_release_is_followed():
    model = torch.nn.ModuleDict({"bcm": BoxResampler(64, 2), "linear": torch.nn.Linear(64, 3)})
    names = {id(value): name for name, value in model.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group} for group in parameter_groups(model, decay_norms=False))
    assert plain == {
        "bcm.cross_attn.in_proj_bias", "bcm.cross_attn.out_proj.bias", "bcm.output_norm.weight", "bcm.output_norm.bias", "linear.bias",
    }  # fmt: skip
    assert decayed == {"bcm.queries", "bcm.cross_attn.in_proj_weight", "bcm.cross_attn.out_proj.weight", "linear.weight"}
    everything, nothing = parameter_groups(model, decay_norms=True)
    assert {names[id(p)] for p in everything} == decayed | plain and not nothing
