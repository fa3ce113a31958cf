"""A step's samples are cut by length: nobody is left out, and no group costs much more than it must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.order import Order, noise
from models.training.packing import shares

LENGTHS = st.lists(st.integers(0, 6000), min_size=1, max_size=60)


def cost(group: list[int], lengths: list[int], padded: bool) -> int:
    each = [max(lengths[k], 1) for k in group]
    return len(each) * max(each) if padded else sum(each)


@given(LENGTHS, st.integers(1, 60), st.booleans())
def test_every_sample_is_in_one_group_and_no_group_is_empty(lengths, parts, padded):
    if len(lengths) < parts:
        with pytest.raises(ValueError, match="cannot be cut"):
            shares(lengths, parts, padded=padded)
        return
    groups = shares(lengths, parts, padded=padded)
    assert len(groups) == parts and all(groups)
    assert sorted(k for group in groups for k in group) == list(range(len(lengths)))
    costs = [cost(group, lengths, padded) for group in groups]
    assert costs == sorted(costs, reverse=True)


@given(LENGTHS, st.integers(1, 60))
def test_no_group_has_more_tokens_than_four_thirds_of_what_one_must_have(lengths, parts):
    """Graham's bound for the longest first; what one must have is at least the mean, the longest sample, and two of those that
    cannot have a group alone."""
    if len(lengths) < parts:
        return
    real = sorted((max(length, 1) for length in lengths), reverse=True)
    least = max(sum(real) / parts, real[0], real[parts - 1] + real[parts] if len(real) > parts else 0)
    assert cost(shares(lengths, parts)[0], lengths, False) <= 4 / 3 * least + 1


@given(st.lists(st.integers(1, 50), min_size=4, max_size=9), st.integers(1, 4))
def test_padded_groups_are_the_cheapest_there_are(lengths, parts):
    falling = sorted(lengths, reverse=True)

    def best(first: int, left: int) -> int:
        if left == 1:
            return (len(falling) - first) * falling[first]
        ends = range(first + 1, len(falling) - left + 2)
        return min(max((end - first) * falling[first], best(end, left - 1)) for end in ends)

    assert cost(shares(lengths, parts, padded=True)[0], lengths, True) == best(0, parts)


@pytest.mark.parametrize("share", ["tokens", "padded"])
def test_a_step_has_the_same_samples_and_draws_however_it_is_cut(share):
    lengths = np.random.default_rng(0).integers(50, 5000, 100).tolist()

    def seen(size: int, world: int, share: str) -> dict[int, float]:
        found = {}
        for rank in range(world):
            order = Order(100, 4, 16, size, 0, rank, world, lengths, share)
            for micro in range(order.accumulation):
                numbers, generators = order.micro_samples(2, micro), noise(order, 2, micro)
                assert numbers and len(numbers) == len(generators)
                found |= {k: generator.initial_seed() for k, generator in zip(numbers, generators, strict=True)}
        return found

    assert seen(4, 2, share) == seen(2, 1, share) == seen(1, 4, share) == seen(4, 2, "count") and len(seen(4, 2, share)) == 16


class Asked(list):
    """Lengths that count how often they are looked up."""

    times = 0

    def __getitem__(self, place):
        self.times += 1
        return super().__getitem__(place)


def test_a_steps_samples_are_drawn_and_sorted_once_for_all_its_micro_batches():
    lengths = Asked(range(100))
    order = Order(100, 4, 16, 2, 0, lengths=lengths, share="tokens")
    first = [order.micro_samples(0, micro) for micro in range(order.accumulation)]
    assert lengths.times <= 16 * (1 + order.accumulation), "once to sort them, and once for each micro-batch"
    for step in range(1, 40):  # more steps than are kept
        order.micro_samples(step, 0)
    assert [order.micro_samples(0, micro) for micro in range(order.accumulation)] == first
    assert len(order._drawn) < 40


def test_orders_that_differ_in_nothing_but_lengths_share_no_draw():
    one, other = (Order(100, 4, 16, 2, 0, lengths=lengths, share="tokens") for lengths in (range(100), range(100, 0, -1)))
    assert one == other and one.step_samples(0) == other.step_samples(0)[::-1]
