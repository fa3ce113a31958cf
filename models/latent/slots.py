"""Slots of which every segment has its own number: where they stand, and how far the states before them are from what they
should be. Pure functions of one batch; distances are computed in fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.latent.batch import Batch


def places(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(row, column, segment), each [N], of every slot of the batch: segment after segment, in order."""
    counts = batch.segment_slots
    every = torch.arange(len(counts), device=counts.device)
    segment = every.repeat_interleave(counts, output_size=batch.slots)
    within = torch.arange(batch.slots, device=counts.device) - (counts.cumsum(0) - counts)[segment]
    return batch.segment_row[segment], batch.segment_start[segment] + within, segment


def distances(states: Tensor, targets: Tensor, kind: str) -> Tensor:
    """[N]: distance of each state [N, D] from its target [N, D]: the mean over D of the square (mse) or of the absolute value
    (mae) of the difference, or 1 - cos (cosine)."""
    states, targets = states.float(), targets.float()
    if kind == "cosine":
        return 1 - F.cosine_similarity(states, targets, dim=-1)
    difference = states - targets
    return (difference.square() if kind == "mse" else difference.abs()).mean(-1)


def segment_means(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """[B]: the mean of each segment's own values [N]. segment [N], each of the B = `segments` at least once."""
    counts = torch.bincount(segment, minlength=segments)
    return values.new_zeros(segments).index_add(0, segment, values) / counts
