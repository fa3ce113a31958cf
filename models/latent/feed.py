"""What is fed into latent slots while decoding, in place of a token's embedding: the model's own state, or a control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.backbone.model import Backbone
from models.latent.prompt import Prompt
from models.schema import DecodeSpec


@dataclass(frozen=True)
class LatentStep:
    """A latent step about to be taken."""

    prompt: int
    segment: int
    step: int


Feed = Callable[[list[LatentStep], Tensor], Tensor]
"""(latent steps of k rows, their own latents [k, D]) -> what is fed [k, D]."""


def own_state(asked: list[LatentStep], states: Tensor) -> Tensor:
    return states


def _zeroed(asked: list[LatentStep], states: Tensor) -> Tensor:
    return torch.zeros_like(states)


def feed_of(model: Backbone, prompts: list[Prompt], spec: DecodeSpec, generator: torch.Generator | None) -> Feed:
    if spec.latents == "zeroed":
        return _zeroed
    if spec.latents == "noise":
        return _Noise(prompts, generator)
    if spec.latents == "oracle" and spec.latent_steps:
        return Given([prompt.oracle.to(model.device) for prompt in prompts])
    return own_state


class _Noise:
    """N(0, 1) scaled to the own latent's norm; a stream of its own per prompt, so that batches do not matter."""

    def __init__(self, prompts: list[Prompt], generator: torch.Generator | None) -> None:
        drawn = torch.randint(2**62, (len(prompts),), generator=generator).tolist()
        seeds = [seed if prompt.seed is None else prompt.seed for prompt, seed in zip(prompts, drawn)]
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, asked: list[LatentStep], states: Tensor) -> Tensor:
        width = states.shape[-1]
        noise = torch.stack([torch.randn(width, generator=self.streams[a.prompt]) for a in asked]).to(states.device)
        scale = states.float().norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        return (noise * scale).to(states.dtype)


class Given:
    """Latents [segments, S, D] known beforehand, one tensor per prompt; later segments take the last."""

    def __init__(self, latents: list[Tensor]) -> None:
        self.latents = latents

    def __call__(self, asked: list[LatentStep], states: Tensor) -> Tensor:
        given = [self.latents[a.prompt] for a in asked]
        return torch.stack([g[min(a.segment, len(g) - 1), a.step] for g, a in zip(given, asked)]).to(states.dtype)


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
