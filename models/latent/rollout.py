"""Filling the slots one by one: the language model in chunks over a functional KV cache, with gradients through all of it.

transformers drops the cache of a layer that is gradient-checkpointed; here every chunk of every layer is a pure
function of its input and the keys and values so far, so checkpointing and caching go together.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel
from transformers.utils.generic import is_flash_attention_requested

from models.backbone import samples
from models.backbone.rows import laid_out

NextInput = Callable[[int, Tensor, Tensor], Tensor]
"""(slot i, segments [b], their states at the position before slot i [b, D]) -> input embeddings of slot i [b, D]."""


@dataclass(eq=False)
class Layout:
    """Rows cut into chunks [text | S slots | text | ...], so that slot i of every row stands in the same column.

    Text before slots is padded on its left, the rest on its right. C columns in all.
    """

    columns: Tensor
    """[R, C]: column of the original row; 0 where `valid` is False."""
    valid: Tensor
    """[R, C] bool"""
    back: Tensor
    """[R, L]: column of this layout for every original column (any, for padding)."""
    chunks: list[tuple[int, int, Tensor | None]]
    """(begin, end, None) for text; (begin, end, segments [R], -1 where the row has none) for slots."""

    @classmethod
    def of(cls, mask: Tensor, segment_row: Tensor, segment_start: Tensor, slots: int, rounds: int = 0) -> Layout:
        """mask [R, L] of real tokens (right-padded or not); segments [B]. rounds: at least so many chunks of slots,
        and text before each and after the last, be it one column of padding: sharded ranks must take the same steps."""
        rows, length = mask.shape
        device = mask.device
        order = (segment_row * (length + 1) + segment_start).argsort()
        row_of = segment_row[order]
        per_row = torch.bincount(segment_row, minlength=rows)
        rank = torch.arange(len(order), device=device) - (per_row.cumsum(0) - per_row)[row_of]
        starts = nn.functional.pad(segment_start, (0, 1))  # of -1, no segment: any
        columns, chunks, begin = [], [], 0
        done = torch.zeros(rows, dtype=torch.long, device=device)
        for ordinal in range(max(int(per_row.max()), rounds)):
            segments = torch.full((rows,), -1, dtype=torch.long, device=device)
            here = rank == ordinal
            segments[row_of[here]] = order[here]
            has = segments >= 0
            start = torch.where(has, starts[segments], done)
            width = max(int((start - done).max()), int(rounds > 0))
            text = start[:, None] - width + torch.arange(width, device=device)
            columns.append(torch.where(text >= done[:, None], text, -1))
            chunks.append((begin, begin + width, None))
            slot = start[:, None] + torch.arange(slots, device=device)
            columns.append(torch.where(has[:, None], slot, -1))
            chunks.append((begin + width, begin + width + slots, segments))
            begin += width + slots
            done = torch.where(has, start + slots, done)
        width = max(int((length - done).max()), int(rounds > 0))
        rest = done[:, None] + torch.arange(width, device=device)
        columns.append(torch.where(rest < length, rest, -1))
        chunks.append((begin, begin + width, None))
        table = torch.cat(columns, 1)
        real = table >= 0
        safe = table.clamp(min=0)
        back = torch.zeros(rows, length + 1, dtype=torch.long, device=device)
        here = torch.arange(table.shape[1], device=device).expand_as(table)
        back.scatter_(1, torch.where(real, safe, length), here)
        return cls(safe, real & mask.gather(1, safe), back[:, :length], [c for c in chunks if c[0] < c[1]])


class _Window:
    """What one layer's attention sees as its cache during one chunk: the past is concatenated, the new is handed out."""

    def __init__(self, past: tuple[Tensor, ...], order: Tensor | None) -> None:
        self.past, self.order = past, order

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.key, self.value = key, value
        half = len(self.past) // 2
        seen = [torch.cat([*past, new], 2) for past, new in ((self.past[:half], key), (self.past[half:], value))]
        return tuple(seen) if self.order is None else tuple(part[:, :, self.order] for part in seen)


@dataclass(eq=False)
class Ragged:
    """One chunk as a varlen kernel takes it: the rows' real tokens end to end, each row against its own keys so far."""

    places: Tensor
    """[N]: places of the chunk's real tokens in its flattened rows."""
    order: Tensor | None
    """[M]: the cached keys that the rows of this chunk see, row after row; None: all, as they lie."""
    queries: Tensor
    """[n + 1] int32, in main memory: where each row begins among the chunk's tokens, then their number."""
    keys: Tensor
    """[n + 1] int32: the same among the keys that they see. A row's queries are its last keys."""


class _Rows:
    """Which row every cached key belongs to, as chunks are added."""

    def __init__(self, valid: Tensor) -> None:
        self.valid, self.device = valid.cpu(), valid.device
        self.row_of = torch.zeros(0, dtype=torch.long)

    def chunk(self, begin: int, end: int, real: Tensor | None) -> Ragged:
        here = self.valid[:, begin:end] if real is None else real.cpu()
        if not here.any():  # sharded ranks take this step together, and no kernel takes zero tokens
            here = torch.zeros_like(here)
            here[0, 0] = True
            row_of = torch.tensor([len(here)])  # a row of its own, which no later chunk asks for
        else:
            row_of = here.nonzero()[:, 0]
        self.row_of = torch.cat([self.row_of, row_of])
        rows, queries = row_of.unique_consecutive(return_counts=True)
        asked = torch.isin(self.row_of, rows).nonzero()[:, 0]
        order = asked[self.row_of[asked].argsort(stable=True)]
        keys = torch.bincount(self.row_of, minlength=int(rows.max()) + 1)[rows]
        as_they_lie = len(order) == len(self.row_of) and bool((order.diff() == 1).all())
        return Ragged(
            here.flatten().nonzero()[:, 0].to(self.device),
            None if as_they_lie else order.to(self.device),
            *(nn.functional.pad(lengths.cumsum(0), (1, 0)).int() for lengths in (queries, keys)),
        )


class Extender:
    """Runs a text model over consecutive chunks of the same rows; the last hidden state is after the final RMSNorm.

    Flash attention takes no mask of queries against keys; there the rows' real tokens are laid end to end (`Ragged`), which
    computes nothing for padding. Elsewhere rows stay rectangles under such a mask, which is faster for chunks of one token.
    """

    def __init__(self, language_model: Qwen2_5_VLTextModel, position_ids: Tensor, valid: Tensor, ragged: bool = False) -> None:
        """position_ids [3, R, C] and valid [R, C] of the whole sequence. ragged: end to end with any attention that can be told
        samples apart."""
        if language_model.has_sliding_layers:
            raise ValueError("a sequential rollout needs full attention; this configuration has sliding-window layers")
        self.additive = language_model.config._attn_implementation in samples.ADDITIVE
        self.rows = _Rows(valid) if ragged or is_flash_attention_requested(language_model.config) else None
        self.model, self.valid, self.position_ids = language_model, valid, position_ids
        self.past: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in language_model.layers]
        self.seen = 0
        self.rotary: tuple[Tensor, Tensor] | None = None
        self.checkpointed = (
            language_model.training
            and torch.is_grad_enabled()
            and any(layer.gradient_checkpointing for layer in language_model.layers)
        )

    def fork(self) -> Extender:
        """Another that goes on from here with chunks of its own."""
        other = copy(self)
        other.rows = copy(self.rows)
        other.past = [(list(keys), list(values)) for keys, values in self.past]
        return other

    def __call__(self, embeds: Tensor, real: Tensor | None = None) -> Tensor:
        """Embeddings [R, c, D] of the next c columns -> hidden states [R, c, D]. real [R, c]: which of them, rows end to end, are
        run; None: all that are valid."""
        begin, end = self.seen, self.seen + embeds.shape[1]
        if self.rotary is None:
            self.rotary = self.model.rotary_emb(embeds, self.position_ids)
        inputs = [embeds, *(part[:, begin:end] for part in self.rotary)]
        ragged = None if self.rows is None else self.rows.chunk(begin, end, real)
        if ragged is None:
            mask, told = self._mask(begin, end, embeds.dtype), {}
        else:
            mask, inputs = None, [part.flatten(0, 1)[ragged.places][None] for part in inputs]
            told = samples.ends_for(self.model.config, ragged.queries, ragged.keys, device=embeds.device)
        hidden, cos, sin = inputs
        for layer, (keys, values) in zip(self.model.layers, self.past):
            arguments = (layer, hidden, cos, sin, mask, told, None if ragged is None else ragged.order, *keys, *values)
            if self.checkpointed:
                hidden, key, value = checkpoint(_layer_chunk, *arguments, use_reentrant=False)
            else:
                hidden, key, value = _layer_chunk(*arguments)
            keys.append(key)
            values.append(value)
        self.seen = end
        hidden = self.model.norm(hidden)
        return hidden if ragged is None else laid_out(hidden[0], ragged.places, embeds.shape[:2])

    def _mask(self, begin: int, end: int, dtype: torch.dtype) -> Tensor:
        """[R, 1, c, end]: causal and real; every query also sees itself, so that padding stays finite."""
        at = torch.arange(end, device=self.valid.device)
        queries = at[begin:, None]
        seen = ((at <= queries) & self.valid[:, None, :end]) | (at == queries)
        seen = seen[:, None]
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min) if self.additive else seen


def _layer_chunk(
    layer: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, told: dict[str, Any], order: Tensor | None,
    *past: Tensor,
):  # fmt: skip
    window = _Window(past, order)
    own_checkpointing, layer.gradient_checkpointing = layer.gradient_checkpointing, False
    try:
        hidden = layer(
            hidden, attention_mask=mask, position_embeddings=(cos, sin), past_key_values=window, use_cache=True, **told
        )
    finally:
        layer.gradient_checkpointing = own_checkpointing
    return hidden, window.key, window.value


def _rounds(segment_row: Tensor) -> int:
    """The most segments that a row has on any rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0
    most = torch.bincount(segment_row, minlength=1).max()
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def sequential(
    language_model: Qwen2_5_VLTextModel,
    embeds: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    segment_row: Tensor,
    segment_start: Tensor,
    slots: int,
    next_input: NextInput,
) -> Tensor:
    """Hidden states [R, L, D] of padded rows whose slots are filled one after another by `next_input`.

    embeds [R, L, D] (whatever stands in the slots is not used), position_ids [4 or 3, R, L], mask [R, L] bool.
    Ranks with fewer segments in a row than another rank, or none, run empty chunks: sharded parameters (ZeRO-3) are gathered
    in step. So where several processes train together, all of them call this together.
    """
    layout = Layout.of(mask, segment_row, segment_start, slots, _rounds(segment_row))
    wide = layout.columns[..., None].expand(-1, -1, embeds.shape[-1])
    arranged = embeds.gather(1, wide)
    positions = position_ids[-3:].gather(2, layout.columns.expand(3, -1, -1))
    extend = Extender(language_model, positions, layout.valid)
    states: list[Tensor] = []
    for begin, end, segments in layout.chunks:
        if segments is None:
            states.append(extend(arranged[:, begin:end]))
            continue
        rows = (segments >= 0).nonzero()[:, 0]
        everywhere = len(rows) == len(segments)
        for slot in range(slots):
            previous = states[-1][:, -1]
            if everywhere:
                filled = next_input(slot, segments, previous).to(embeds.dtype)
            else:
                some = next_input(slot, segments[rows], previous[rows]).to(embeds.dtype)
                filled = torch.zeros_like(previous, dtype=embeds.dtype).index_copy(0, rows, some)
            states.append(extend(filled[:, None]))
    hidden = torch.cat(states, 1)
    return hidden.gather(1, layout.back[..., None].expand(-1, -1, hidden.shape[-1]))
