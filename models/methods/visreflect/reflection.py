"""How far the states before the slots are from the evidence crop's embeddings that fill them. Pure functions of one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from models.latent.slots import distances, segment_means


def misalignment(states: Tensor, crops: Tensor, segment: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor]:
    """1 - cos(h_{p-1}, v_p) of every slot [N], the mean over each segment's slots [B], and its first slot's alone [B]; in fp32.

    states [N, D]: before each slot; crops [N, D]: what fills it; segment [N], each of the B = `segments` at least once.
    The first slot's is what decoding with one latent step depends on.
    """
    per_slot, counts = distances(states, crops, "cosine"), torch.bincount(segment, minlength=segments)
    return per_slot, segment_means(per_slot, segment, segments), per_slot[counts.cumsum(0) - counts]
