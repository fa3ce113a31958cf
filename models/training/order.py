"""Which samples and which random draws belong to which optimiser step: functions of (seed, step), so that a resumed run,
another number of ranks or another micro-batch sees the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Sampler

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

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError("no training sample is left")
        if self.global_batch % (self.micro_batch * self.world):
            fitting = [m for m in range(1, self.global_batch + 1) if self.global_batch % (m * self.world) == 0]
            raise ValueError(
                f"global_batch {self.global_batch} is no multiple of micro_batch {self.micro_batch} x {self.world} ranks; "
                f"micro_batch can be {', '.join(map(str, fitting)) or 'nothing: change the number of ranks'}"
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank in one step."""
        return self.global_batch // (self.micro_batch * self.world)

    def step_samples(self, step: int) -> list[int]:
        """The step's samples over all ranks, in order."""
        first = step * self.global_batch
        drawn = [
            int(_permutation(self.seed, k // self.samples, self.samples)[k % self.samples])
            for k in range(first, first + self.global_batch)
        ]
        return drawn if self.lengths is None else sorted(drawn, key=self.lengths.__getitem__)

    def number(self, micro: int) -> int:
        """Number of this rank's `micro`-th micro-batch among those of all ranks in a step."""
        return micro * self.world + self.rank

    def micro_samples(self, step: int, micro: int) -> list[int]:
        first = self.number(micro) * self.micro_batch
        return self.step_samples(step)[first : first + self.micro_batch]


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


def noise(order: Order, step: int, micro: int) -> list[torch.Generator]:
    """The generators of self-fed draws and random queries, one for each sample of the micro-batch."""
    first = order.number(micro) * order.micro_batch
    seeds = (
        np.random.SeedSequence([order.seed, _NOISE, step, place]).generate_state(1, np.uint64)[0]
        for place in range(first, first + order.micro_batch)
    )
    return [torch.Generator().manual_seed(int(seed) & (2**63 - 1)) for seed in seeds]
