"""Losses that methods share: distances, means over a step, cross-entropy. Pure functions, fp32 inside; nothing is clamped or replaced
unasked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone.tokens import IGNORED


def distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """[B]: elementwise mean of |a - b| (l1) or (a - b)^2 (mse) over everything but the first dimension, in fp32."""
    difference = a.float() - b.float()
    return (difference.abs() if kind == "l1" else difference.square()).flatten(1).mean(1)


def mean(values: Tensor, count: int | Tensor | None) -> Tensor:
    """Sum of values [B] over `count`, the number in the whole optimiser step, or over their own number; 0 for no values,
    with the graph of whatever they come from."""
    return values.sum() / (max(1, len(values)) if count is None else count)


def supervised(labels: Tensor) -> Tensor:
    """[R, L] bool: positions whose next token is supervised."""
    ahead = torch.zeros_like(labels, dtype=torch.bool)
    ahead[:, :-1] = labels[:, 1:] != IGNORED
    return ahead


def cross_entropy(logits: Tensor, targets: Tensor, count: float | Tensor | None) -> Tensor:
    """Sum of the cross-entropies [n, vocabulary] against [n], in fp32, over `count` or n."""
    if count is None and len(targets) == 0:
        raise ValueError("this micro-batch has no supervised token; leave it out, or pass num_items of the whole step")
    return F.cross_entropy(logits.float(), targets, reduction="sum") / (len(targets) if count is None else count)


def spoken(head: nn.Module, hidden: Tensor, labels: Tensor, count: float | Tensor | None) -> tuple[Tensor, Tensor]:
    """(mean cross-entropy over supervised tokens, their number). hidden [R, L, D], labels [R, L]; logits are computed only
    where they are needed."""
    ahead = supervised(labels)
    targets = labels.roll(-1, dims=1)[ahead]
    return cross_entropy(head(hidden[ahead]), targets, count), torch.tensor(len(targets), device=hidden.device)


def unsupervised(labels: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """labels [R, L] without targets at these rows and columns [n]."""
    return labels.index_put((row, column), torch.tensor(IGNORED, device=labels.device)) if len(row) else labels
