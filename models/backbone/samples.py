"""Attention of packed rows where no varlen kernel is at hand: over each sample by itself, instead of over a whole row under a
block-diagonal mask. The row's cost is then the sum of its samples' squared lengths, not the square of their sum, and no mask is made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NO_MASK = {"full_attention": None}
"""What the language model is given as its masks, so that it makes none."""


def serve(config: PretrainedConfig) -> bool:
    """Whether this language model's layers can be told `sample_ends`."""
    return config._attn_implementation == "sdpa" and set(config.layer_types) == set(NO_MASK)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    sample_ends: Sequence[int] = (), **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' sdpa; with `sample_ends`, of one row whose samples begin there, whose last number is its length."""
    if not sample_ends:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    lengths = [after - at for at, after in pairwise(sample_ends)]
    parts = zip(*(tensor.split(lengths, 2) for tensor in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, None, **options)[0] for part in parts], 1), None


ALL_ATTENTION_FUNCTIONS.register("sdpa", _attend)  # by argument, not by name: a checkpointed layer is run again with the same ones
