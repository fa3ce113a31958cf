"""Which samples and which random draws belong to which optimiser step: functions of (seed, step), so that a resumed run,
another number of ranks or another micro-batch sees the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Sampler

from models.training.packing import shares, uneven

STEPS_KEPT = 8
"""The loader is some steps ahead of the training."""
_NOISE = 2
"""Of the generators' random stream; a method's own draw has 1."""


@dataclass(frozen=True)
class Order:
    """The data order of a run. A step takes `global_batch` samples: `accumulation` micro-batches on each rank."""

    samples: int
    """Training samples; every epoch is a fresh permutation of them, and steps run on across epochs."""
    steps: int
    global_batch: int
    micro_batch: int
    seed: int
    rank: int = 0
    world: int = 1
    lengths: Sequence[int] | None = field(default=None, repr=False, compare=False)
    """[samples], rough: samples of a step are sorted by it, so that a micro-batch's rows have little padding."""
    share: Literal["count", "tokens", "padded"] = "count"
    """What the micro-batches of a step have alike: samples; or, by their lengths, tokens or tokens with padding. The step's samples are
    the same, and so is what is drawn for each."""
    _drawn: dict[int, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Step → its samples. Of one order: another one may have the same fields and other lengths."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError("no training sample is left")
        if why := uneven(self.global_batch, self.micro_batch, self.world):
            raise ValueError(why)

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank in one step."""
        return self.global_batch // (self.micro_batch * self.world)

    def step_samples(self, step: int) -> list[int]:
        """The step's samples over all ranks, in order. Drawn and sorted once for all micro-batches of the step."""
        if step not in self._drawn:
            while len(self._drawn) >= STEPS_KEPT:
                self._drawn.pop(next(iter(self._drawn)), None)
            self._drawn[step] = self._draw(step)
        return self._drawn[step]

    def _draw(self, step: int) -> list[int]:
        first = step * self.global_batch
        drawn = [
            int(_permutation(self.seed, k // self.samples, self.samples)[k % self.samples])
            for k in range(first, first + self.global_batch)
        ]
        return drawn if self.lengths is None else sorted(drawn, key=self.lengths.__getitem__)

    def number(self, micro: int) -> int:
        """Number of this rank's `micro`-th micro-batch among those of all ranks in a step."""
        return micro * self.world + self.rank

    def places(self, step: int, micro: int) -> list[int]:
        """Where in `step_samples` the samples of this rank's `micro`-th micro-batch stand."""
        number = self.number(micro)
        if self.share == "count" or self.lengths is None:
            return list(range(number * self.micro_batch, (number + 1) * self.micro_batch))
        lengths = tuple(self.lengths[k] for k in self.step_samples(step))
        return _shares(lengths, self.accumulation * self.world, self.share == "padded")[number]

    def micro_samples(self, step: int, micro: int) -> list[int]:
        drawn = self.step_samples(step)
        return [drawn[place] for place in self.places(step, micro)]


class MicroBatches(Sampler[list[int]]):
    """Every micro-batch of this rank over the whole run, as a DataLoader's batch sampler."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __len__(self) -> int:
        return self.order.steps * self.order.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.order.steps):
            for micro in range(self.order.accumulation):
                yield self.order.micro_samples(step, micro)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(samples)


@lru_cache(maxsize=4)
def _shares(lengths: tuple[int, ...], parts: int, padded: bool) -> list[list[int]]:
    return [sorted(group) for group in shares(lengths, parts, padded=padded)]


def noise(order: Order, step: int, micro: int) -> list[torch.Generator]:
    """The generators of self-fed draws and random queries, one for each sample of the micro-batch."""
    seeds = (
        np.random.SeedSequence([order.seed, _NOISE, step, place]).generate_state(1, np.uint64)[0]
        for place in order.places(step, micro)
    )
    return [torch.Generator().manual_seed(int(seed) & (2**63 - 1)) for seed in seeds]
