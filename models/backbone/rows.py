"""Rows of tokens as a varlen attention kernel takes them: end to end, without padding; and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import LongTensor, Tensor


@dataclass(eq=False)
class Flat:
    """Where the real tokens of a batch stand once its rows are laid end to end: N tokens of n sequences, without padding.
    What a varlen attention kernel is told, made on the CPU so that no layer has to ask the device for it."""

    places: LongTensor
    """[N]: places in the flattened rows."""
    ends: Tensor
    """[n + 1] int32: where each sequence begins among the N, then N."""
    longest: int
    """Tokens of the longest sequence."""

    @classmethod
    def of(cls, position_ids: Tensor, mask: Tensor | None) -> Flat:
        """position_ids [4, R, L], whose text row is 0 where a sequence begins; mask [R, L] of real tokens, None if all are."""
        text = position_ids[0].flatten()
        places = torch.arange(len(text), device=text.device) if mask is None else mask.flatten().nonzero()[:, 0]
        starts = (text[places] == 0).nonzero()[:, 0]
        ends = torch.cat([starts, starts.new_tensor([len(places)])])
        return cls(places, ends.int(), int(ends.diff().max()))


class Rows(Protocol):
    """R rows of L tokens, several samples to a row or one."""

    position_ids: LongTensor
    """[4, R, L]: the text position, from 0 in every sample, then the three mRoPE rows."""
    attention_mask: Tensor | None
    """[R, L] of real tokens; None where several samples share a row."""
    flat: Flat


def laid_out(tokens: Tensor, places: Tensor, rows: tuple[int, int]) -> Tensor:
    """Tokens [N, D] back in rows (R, L): [R, L, D], zero elsewhere. places [N] in the flattened rows."""
    flat = tokens.new_zeros(rows[0] * rows[1], tokens.shape[-1])
    return flat.index_copy(0, places, tokens).view(*rows, -1)
