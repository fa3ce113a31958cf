"""What is fed into latent slots while decoding, in place of a token's embedding: the model's own state, or a control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.backbone.model import Backbone
from models.latent.prompt import Prompt
from models.schema import DecodeSpec


@dataclass(frozen=True)
class LatentStep:
    """A latent step about to be taken."""

    source: Any
    """Of its prompt, from `sources_of`."""
    segment: int
    step: int


Feed = Callable[[list[LatentStep], Tensor], Tensor]
"""(latent steps of k rows, their own latents [k, D]) -> what is fed [k, D]."""


def own_state(asked: list[LatentStep], states: Tensor) -> Tensor:
    return states


def _zeroed(asked: list[LatentStep], states: Tensor) -> Tensor:
    return torch.zeros_like(states)


def _noise(asked: list[LatentStep], states: Tensor) -> Tensor:
    """N(0, 1) scaled to the own latent's norm. source: a stream of random numbers."""
    noise = torch.stack([torch.randn(states.shape[-1], generator=a.source) for a in asked]).to(states.device)
    scale = states.float().norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
    return (noise * scale).to(states.dtype)


def _given(asked: list[LatentStep], states: Tensor) -> Tensor:
    """source: latents [segments, S, D]; later segments take the last."""
    return torch.stack([a.source[min(a.segment, len(a.source) - 1), a.step] for a in asked]).to(states.dtype)


FEEDS: dict[str, Feed] = {"own": own_state, "zeroed": _zeroed, "noise": _noise, "shuffled": _given, "oracle": _given}
"""By `DecodeSpec.latents`."""


def sources_of(model: Backbone, prompts: list[Prompt], spec: DecodeSpec, generator: torch.Generator | None) -> list[Any]:
    """What each prompt's slots are fed from: None for own states and zeros. Of `shuffled`, the decoding knows it."""
    if spec.latents == "noise":
        # A stream of its own per prompt, so that batches do not matter.
        drawn = torch.randint(2**62, (len(prompts),), generator=generator).tolist()
        seeds = [seed if prompt.seed is None else prompt.seed for prompt, seed in zip(prompts, drawn)]
        return [torch.Generator().manual_seed(seed) for seed in seeds]
    if spec.latents == "oracle" and spec.latent_steps:
        return [prompt.oracle.to(model.device) for prompt in prompts]
    return [None] * len(prompts)


def donors_of(groups: Sequence[int], generator: torch.Generator | None) -> list[int]:
    """Whose latents each prompt is fed."""
    if min(groups) < 2:
        raise ValueError("latents: shuffled feeds another question's latents; it needs at least two prompts in a batch")
    state = None if generator is None else generator.get_state()
    donors: list[int] = []
    for size in groups:
        if state is not None:
            generator.set_state(state)
        first = len(donors)
        donors += [first + other for other in derangement(size, generator)]
    return donors


def derangement(n: int, generator: torch.Generator | None) -> list[int]:
    """A random cyclic permutation of 0..n-1 (n >= 2): nobody stays in place (Sattolo)."""
    order = list(range(n))
    for at in range(n - 1, 0, -1):
        other = int(torch.randint(at, (1,), generator=generator))
        order[at], order[other] = order[other], order[at]
    return order
