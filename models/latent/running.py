"""The rows of a batch while it is decoded: what Python and what the device hold of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from models.backbone.cache import right_aligned
from models.latent.prefill import Prefill
from models.latent.prompt import Prompt
from models.latent.refill import Name


@dataclass(eq=False)
class Row:
    """The Python side of one prompt's answer."""

    name: Name
    prompt: Prompt
    source: Any
    """What its latent slots are fed from (`feed.sources_of`)."""
    ids: list[int] = field(default_factory=list)
    counted: int = 0
    """Tokens that count against max_new_tokens."""
    left: int = 0
    """Latent steps still to be taken in this segment; > 0 is latent mode."""
    closing: bool = False
    """Whether `<|lvr_end|>` is to follow them, whatever the model says."""
    segment: int = -1
    """Latent segments begun, less one."""
    said: int = 0
    """Tokens since the last latent segment, or since the beginning."""
    steps: int = 0
    done: bool = False
    truncated: bool = False
    latents: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    kept_at: list[int] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """Of the cache; its last id is not in there before the next forward."""
        return len(self.prompt.input_ids) + len(self.ids) - 1


@dataclass(eq=False)
class Running:
    """r rows behind L columns of the cache, left-padded."""

    rows: list[Row]
    mask: Tensor
    """[r, L] bool"""
    next_position: Tensor
    """[4, r]: (text, t, h, w) of the last column."""
    cache: Cache
    seen: Tensor | None
    """[r, n]: ids of prompt and answer, where they are penalised; some stand there more than once."""
    inputs: Tensor | None = None
    """[r, D]: fed next."""

    @classmethod
    def behind(cls, prefill: Prefill, rows: list[Row], seen: Tensor | None, eager: bool) -> Running:
        return cls(rows, prefill.mask, prefill.next_position, prefill.cache(eager), seen)


def joined(parts: Sequence[Running], trim: bool = True) -> Running | None:
    """The rows of these batches that have not ended, if `trim` without columns that only ended ones needed; None if there are none.
    The first batch must not be used again: its cache is freed layer by layer, so that there are not two of it in memory."""
    parts = [part for part in parts if not all(row.done for row in part.rows)]
    if not parts or (len(parts) == 1 and not any(row.done for row in parts[0].rows)):
        return parts[0] if parts else None
    kept = [_running_of(part) for part in parts]
    rows = [row for part in parts for row in part.rows if not row.done]
    widths = [max(row.columns for row in part.rows if not row.done) if trim else part.mask.shape[1] for part in parts]
    masks = [part.mask[at][:, -width:] for part, at, width in zip(parts, kept, widths)]
    for layers in zip(*(part.cache.layers for part in parts), strict=True):
        held = [[(layer.keys, layer.values)[k][at, :, -width:] for layer, at, width in zip(layers, kept, widths)] for k in range(2)]
        layers[0].hold((right_aligned(held[0]), right_aligned(held[1])), max(widths))
    return Running(
        rows,
        torch.cat([F.pad(mask, (max(widths) - mask.shape[1], 0)) for mask in masks]),
        torch.cat([part.next_position[:, at] for part, at in zip(parts, kept)], 1),
        parts[0].cache,
        None if parts[0].seen is None else stacked([ids for part, at in zip(parts, kept) for ids in part.seen[at]]),
        torch.cat([part.inputs[at] for part, at in zip(parts, kept)]),
    )


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """[r, n]: these ids, at least one a row; a shorter row repeats its last."""
    longest = max(map(len, rows))
    return torch.stack([torch.cat([ids, ids[-1:].expand(longest - len(ids))]) for ids in rows])


def _running_of(part: Running) -> Tensor | slice:
    """Index of the rows that have not ended."""
    running = [at for at, row in enumerate(part.rows) if not row.done]
    return slice(None) if len(running) == len(part.rows) else torch.tensor(running, device=part.mask.device)
