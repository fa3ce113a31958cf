"""Slots that hold the embeddings of an evidence crop, as many as it has merged tokens. Pure functions of one batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.latent.batch import Batch


def slot_places(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(row, column, segment), each [N], of every slot of the batch: segment after segment, in order."""
    counts = batch.segment_slots
    segment = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    within = torch.arange(len(segment), device=counts.device) - (counts.cumsum(0) - counts)[segment]
    return batch.segment_row[segment], batch.segment_start[segment] + within, segment


def misalignment(states: Tensor, crops: Tensor, segment: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """1 - cos(h_{p-1}, v_p): the mean over each segment's slots [B], and that of its first slot alone [B]; in fp32.

    states [N, D]: before each slot; crops [N, D]: what fills it; segment [N], each of the B = `segments` at least once.
    The first slot's is what decoding with one latent step depends on.
    """
    distance = 1 - F.cosine_similarity(states.float(), crops.float(), dim=-1)
    counts = torch.bincount(segment, minlength=segments)
    mean = distance.new_zeros(segments).index_add(0, segment, distance) / counts
    return mean, distance[counts.cumsum(0) - counts]
