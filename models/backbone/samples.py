"""Attention of samples that lie end to end in one row, over each sample by itself: the cost is the sum of the samples' squared
lengths, not the square of their sum, no mask of the row is made, and nothing is computed for padding.

A varlen kernel does that by itself. Without one, transformers' sdpa is called once for each sample, and so is its eager attention
under the name `eager_by_sample`, which on a CPU is the faster of the two for short samples.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import eager_attention_forward
from transformers.utils.generic import is_flash_attention_requested

EAGER = "eager_by_sample"
ADDITIVE = ("eager", EAGER)
"""Implementations whose masks are added to the scores."""
NO_MASK = {"full_attention": None}
"""What the language model is given as its masks, so that it makes none."""


def apart(config: PretrainedConfig) -> bool:
    """Whether this language model's layers can be told where samples begin."""
    known = config._attn_implementation in ("sdpa", EAGER) and set(config.layer_types) == set(NO_MASK)
    return known or is_flash_attention_requested(config)


def ends_for(
    config: PretrainedConfig, queries: Tensor, keys: Tensor | None = None, longest: int | None = None, device: torch.device | None = None
) -> dict[str, Any]:
    """How the layers are told. queries [n + 1]: where each sample begins among the tokens, then their number; keys: the same of
    what they see, if that is more: a sample's queries are its last keys. longest: tokens of the longest sample, if known. device: where
    the layers are, if the numbers lie in main memory, from which they are read without waiting for a GPU."""
    keys = queries if keys is None else keys
    if not is_flash_attention_requested(config):
        return {"query_ends": queries.tolist(), "key_ends": keys.tolist()}
    most = [int(ends.diff().max()) if longest is None else longest for ends in (queries, keys)]
    at = [ends.to(device or ends.device) for ends in (queries, keys)]
    return {"cu_seq_lens_q": at[0], "cu_seq_lens_k": at[1], "max_length_q": most[0], "max_length_k": most[1]}


def _by_sample(kernel: Callable[..., tuple[Tensor, Tensor | None]], additive: bool) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """transformers' attention function, called once for each sample of one row; as it is where no samples are told."""

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
        query_ends: list[int] | None = None, key_ends: list[int] | None = None, **options: Any,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        if query_ends is None or key_ends is None:
            return kernel(module, query, key, value, attention_mask, **options)
        lengths = [[after - at for at, after in pairwise(ends)] for ends in (query_ends, key_ends, key_ends)]
        parts = zip(*(tensor.split(sizes, 2) for tensor, sizes in zip((query, key, value), lengths)), strict=True)
        return torch.cat([kernel(module, q, k, v, _causal(q, k, additive), **options)[0] for q, k, v in parts], 1), None

    return attend


def _causal(query: Tensor, key: Tensor, additive: bool) -> Tensor | None:
    """[1, 1, queries, keys]: the last query sees the last key. None where sdpa knows that by itself."""
    shape = query.shape[2], key.shape[2]
    if additive:
        mask = torch.full(shape, torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device)
        return mask.triu(shape[1] - shape[0] + 1)[None, None]
    if shape[0] in (1, shape[1]):
        return None
    return torch.ones(shape, dtype=torch.bool, device=query.device).tril(shape[1] - shape[0])[None, None]


# By argument, not by name: a checkpointed layer is run again with the same ones.
ALL_ATTENTION_FUNCTIONS.register("sdpa", _by_sample(sdpa_attention_forward, additive=False))
ALL_ATTENTION_FUNCTIONS.register(EAGER, _by_sample(eager_attention_forward, additive=True))
ALL_MASK_ATTENTION_FUNCTIONS.register(EAGER, eager_mask)
