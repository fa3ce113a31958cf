"""Batched latent decoding (Coconut-style): after `<|lvr_start|>`, S forwards are fed a state instead of a token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import DecodeSpec
from models.vreflection.model import VReflection
from models.vreflection.tokens import SpecialTokens


@dataclass(eq=False)
class Prompt:
    """One question, tokenised, image tokens already expanded. One or several images."""

    input_ids: Tensor
    """[L] int64"""
    image_grids: Tensor | None = None
    """[I, 2] merged (height, width); taken from `image_grid_thw` if None."""
    image_embeds: Tensor | None = None
    """[T, D] features after the merger, instead of pixel_values."""
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None
    boxes: Tensor | None = None
    """[b, 4] float64, for `latents: oracle`."""
    box_image: Tensor | None = None
    """[b]: image of every box; None is the first."""
    seed: int | None = None
    """Of this question's noise, whatever the batch; None draws one from decode's generator."""


@dataclass(eq=False)
class Decoded:
    """What one prompt gave."""

    token_ids: list[int]
    """Generated ids, special tokens included; every latent step stands as one `<|lvr|>`."""
    latent_started: bool
    latent_steps: int
    truncated: bool
    """max_new_tokens was reached before an end token."""
    latents: Tensor | None = None
    """[steps, D]: what was fed, with keep_latents."""
    hidden: Tensor | None = None
    """[steps, D]: the model's own state before each latent step (at slot i - 1), with keep_latents."""


def decode(
    model: VReflection,
    prompts: list[Prompt],
    spec: DecodeSpec,
    *,
    tokens: SpecialTokens,
    eos: set[int],
    generator: torch.Generator | None = None,
    keep_latents: bool = False,
) -> list[Decoded]:
    """Greedy answers to `prompts`, in order."""
    raise NotImplementedError
