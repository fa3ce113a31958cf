"""A batch of prompts, read once: the state from which any number of decodings start.

What is fed into latent slots, and how long an answer may be, changes nothing before the first new token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from models.vreflection.cache import BufferLayer


@dataclass(eq=False)
class Prefill:
    """r prompts, left-padded to L columns. Decodings share the cache's buffers and write behind the prompts, so two of them
    must not be interleaved."""

    forced: bool
    """Whether `<|lvr_start|>` stands at the end of every prompt."""
    mask: Tensor
    """[r, L] bool"""
    next_position: Tensor
    """[4, r]: (text, t, h, w) of the last column."""
    inputs: Tensor
    """[r, D]: the last input embedding."""
    hidden: Tensor
    """[r, D]: the last hidden state."""
    buffers: list[tuple[Tensor, Tensor]]
    """Of every layer: keys and values [r, heads, >= L, d]."""

    def cache(self) -> Cache:
        """A cache that holds the prompts."""
        return Cache(layers=[BufferLayer.over(buffers, self.mask.shape[1]) for buffers in self.buffers])

    def rows(self, keep: list[int]) -> Prefill:
        """Some of the prompts, in this order; itself if that is all of them."""
        if keep == list(range(len(self.mask))):
            return self
        at = torch.tensor(keep, device=self.mask.device)
        return replace(
            self,
            mask=self.mask[at],
            next_position=self.next_position[:, at],
            inputs=self.inputs[at],
            hidden=self.hidden[at],
            buffers=[(keys[at], values[at]) for keys, values in self.buffers],
        )

    @property
    def nbytes(self) -> int:
        """Of the cache's buffers."""
        return sum(buffer.nbytes for pair in self.buffers for buffer in pair)
