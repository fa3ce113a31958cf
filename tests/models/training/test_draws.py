"""What the trainer decides, not the forward pass: the Bernoulli draw and what shares it, and which parameters decay."""

from __future__ import annotations

import pytest
import torch

from models.methods.sft.spec import Sft
from models.methods.vreflection.modules import BoxResampler
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from models.training.order import Order, noise
from models.training.trainer import parameter_groups


def order(rank: int = 0, **changes) -> Order:
    return Order(**{"samples": 100, "steps": 400, "global_batch": 16, "micro_batch": 2, "seed": 0, "world": 2, "rank": rank} | changes)


def draws(stage, step: int) -> list[torch.Tensor]:
    """Of every micro-batch of a step, over both ranks."""
    return [stage.method(8).indicator(order(rank), step, micro) for rank in (0, 1) for micro in range(order().accumulation)]


def test_a_step_is_one_draw_that_all_ranks_and_micro_batches_share():
    found = [draws(Stage1(granularity="step"), step) for step in range(50)]
    assert all(one.shape == () and len({bool(d) for d in step}) == 1 for step in found for one in step)
    assert len({bool(step[0]) for step in found}) == 2, "another step, another draw"


def in_order(stage, step: int, size: int, world: int) -> torch.Tensor:
    """[global batch]: the draw of every sample of a step, however it is cut into micro-batches."""
    found = torch.empty(16, dtype=torch.bool)
    for rank in range(world):
        here = order(rank, micro_batch=size, world=world)
        for micro in range(here.accumulation):
            first = here.number(micro) * size
            found[first : first + size] = stage.method(8).indicator(here, step, micro)
    return found


def test_a_micro_batch_is_a_draw_that_so_many_samples_share_as_the_stage_says():
    found = torch.stack([in_order(Stage1(granularity="microbatch", draw_samples=4), step, 2, 2) for step in range(50)])
    groups = found.unflatten(1, (4, 4))
    assert (groups == groups[..., :1]).all() and (groups[..., 0] != groups[:, :1, 0]).any()


@pytest.mark.parametrize("granularity", ["step", "microbatch", "sample"])
@pytest.mark.parametrize(("size", "world"), [(1, 1), (4, 2), (8, 1), (16, 1)])
def test_a_smaller_micro_batch_or_another_rank_changes_no_draw(granularity, size, world):
    """An out-of-memory error halves the micro-batch; the job stays the same job."""
    stage = Stage1(granularity=granularity, draw_samples=3)
    assert all(torch.equal(in_order(stage, step, size, world), in_order(stage, step, 2, 2)) for step in range(20))


def test_a_smaller_micro_batch_changes_no_noise():
    def drawn(size: int) -> list[float]:
        here = order(micro_batch=size, world=1)
        return [torch.rand((), generator=g).item() for k in range(here.accumulation) for g in noise(here, 5, k)]

    assert drawn(8) == drawn(4) == drawn(1) and len(set(drawn(8))) == 16


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
        return torch.stack([Stage1(**changes).method(8).indicator(order(seed=seed), step, 0) for step in range(200)])

    assert torch.equal(all_draws(), all_draws()) and not torch.equal(all_draws(), all_draws(seed=1))
    assert not (all_draws(p=0.3) & ~all_draws(p=0.7)).any()


@pytest.mark.parametrize("stage", [Sft(), Stage2(), Stage1(align="split"), Stage1(align="joint"), Joint(align="joint")])
def test_stages_that_draw_nothing_have_no_draw(stage):
    assert stage.method(8).indicator(order(), 0, 0) is None


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
