"""From a normalised box to merged vision tokens (release's rule) or RoI-Align bins, and back to a map on the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.backbone.template import check_box

MERGE = 2
"""Patches per merged token, each way; the release rounds on the patch grid."""


def _largest(values: Tensor) -> int:
    """The largest of some sizes; 0 for none: a batch without boxes goes the way of every other."""
    return int(values.max()) if len(values) else 0


@dataclass(eq=False)
class Cells:
    """The merged grid that each of B boxes lies on, padded to L = the largest: which token, which row and column."""

    index: Tensor
    """[B, L]: row of the features [T, D]; 0 where there is no cell."""
    mask: Tensor
    """[B, L] bool: the cell exists."""
    row: Tensor
    """[B, L]"""
    column: Tensor
    """[B, L]"""
    height: Tensor
    """[B, 1]"""
    width: Tensor
    """[B, 1]"""

    @classmethod
    def of(cls, image_grids: Tensor, images: Tensor) -> Cells:
        """image_grids [I, 2] merged (height, width), features in raster order image by image; images [B]."""
        sizes = image_grids.prod(1)
        offset = (sizes.cumsum(0) - sizes)[images, None]
        height, width = image_grids[images, 0, None], image_grids[images, 1, None]
        size = sizes[images, None]
        cell = torch.arange(_largest(size), device=images.device).expand(len(images), -1)
        mask = cell < size
        return cls(
            index=torch.where(mask, offset + cell, 0),
            mask=mask,
            row=cell // width,
            column=cell % width,
            height=height,
            width=width,
        )

    def gather(self, features: Tensor) -> Tensor:
        """Features [T, D] of every box's whole image: [B, L, D]; padding holds token 0's and is to be masked."""
        return features[self.index]


def box_cells(boxes: Tensor, cells: Cells) -> Tensor:
    """[B, L] bool: the merged cells under each box [B, 4] (float64, normalised): outward rounding on the patch grid.

    x0 = clamp(floor(x0 w), 0, w - 1), x1 = clamp(ceil(x1 w), 0, w) on the w-patch grid, then x0 // 2 and (x1 + 1) // 2.
    """
    (c0, c1), (r0, r1) = (
        _span(boxes[:, axis, None], boxes[:, axis + 2, None], MERGE * size)
        for axis, size in ((0, cells.width), (1, cells.height))
    )
    inside = (cells.column >= c0) & (cells.column < c1) & (cells.row >= r0) & (cells.row < r1) & cells.mask
    ordered = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]) & inside.any(1)
    if not bool(ordered.all()):
        at = int((~ordered).nonzero()[0])
        check_box(boxes[at].tolist(), f"box {at} of the batch")
        raise ValueError(f"box {at} of the batch: {boxes[at].tolist()} covers no token")
    return inside


def count_under(box: Sequence[float], grid: tuple[int, int]) -> int:
    """Merged tokens under one normalised box of a picture with this merged (height, width): how many `box_cells` finds."""
    cells = Cells.of(torch.tensor([grid]), torch.tensor([0]))
    return int(box_cells(torch.tensor([list(box)], dtype=torch.float64), cells).sum())


def _span(low: Tensor, high: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    first = (low * patches).floor().clamp(min=0).minimum(patches - 1).long()
    end = (high * patches).ceil().clamp(min=0).minimum(patches).long()
    return first // MERGE, (end + 1) // MERGE


@dataclass(eq=False)
class Region:
    """F_local of B boxes, and how a map over its N features spreads over the L cells of the grid."""

    features: Tensor
    """[B, N, D]"""
    mask: Tensor | None
    """[B, N] bool; None if every feature exists."""
    index: Tensor | None
    """[B, N]: the cell of each feature (tokens)."""
    weight: Tensor | None
    """[B, N, L]: rows of bilinear weights that sum to 1 (roi_align)."""
    cell_count: int

    def spread(self, attention: Tensor) -> Tensor:
        """A-hat_T [B, S, L] of A_T [B, S, N]: a scatter to the box's cells, or A_T W. Sums are kept."""
        if self.weight is not None:
            return attention @ self.weight.to(attention.dtype)
        if self.mask is not None:
            attention = attention.masked_fill(~self.mask[:, None], 0)
        target = attention.new_zeros(*attention.shape[:2], self.cell_count)
        return target.scatter_add(2, self.index[:, None].expand_as(attention), attention)


def token_region(features: Tensor, cells: Cells, inside: Tensor) -> Region:
    """The tokens under the box, in raster order (release; App. A.1). features [T, D], inside [B, L]."""
    count = inside.sum(1)
    # A stable sort of "not inside" puts the cells of the box first and keeps their raster order.
    index = (~inside).to(torch.uint8).argsort(dim=1, stable=True)[:, : _largest(count)]
    mask = torch.arange(index.shape[1], device=index.device) < count[:, None]
    index = torch.where(mask, index, 0)
    return Region(features[cells.index.gather(1, index)], mask, index, None, inside.shape[1])


def roi_region(features: Tensor, cells: Cells, boxes: Tensor, bins: int) -> Region:
    """RoI-Align to bins x bins (Sec. 3.2), as `torchvision.ops.roi_align(..., aligned=True)` with adaptive sampling.

    Computed through its sampling matrix W, so that the features W F and the spread map A_T W cannot disagree.
    """
    vertical = _bilinear(boxes[:, 1, None], boxes[:, 3, None], cells.height, cells.row, bins)
    horizontal = _bilinear(boxes[:, 0, None], boxes[:, 2, None], cells.width, cells.column, bins)
    weight = (vertical[:, :, None] * horizontal[:, None]).flatten(1, 2) * cells.mask[:, None]
    weight = (weight / weight.sum(-1, keepdim=True)).float()
    local = weight @ cells.gather(features).float()
    return Region(local.to(features.dtype), None, None, weight, cells.mask.shape[1])


def _bilinear(low: Tensor, high: Tensor, size: Tensor, at: Tensor, bins: int) -> Tensor:
    """[B, bins, L]: weight of the cell at coordinate `at` [B, L] in each bin along one axis (low, high, size: [B, 1])."""
    start, extent = low * size - 0.5, (high - low) * size
    samples = (extent / bins).ceil().clamp(min=1)
    most = _largest(samples)
    number = torch.arange(most, device=at.device)
    bin_of = torch.arange(bins, device=at.device)[:, None]
    position = start[..., None] + (bin_of + (number + 0.5) / samples[..., None]) * (extent / bins)[..., None]
    position = position.clamp(min=0).minimum((size - 1)[..., None])  # [B, bins, most]
    hat = (1 - (position[..., None] - at[:, None, None, :]).abs()).clamp(min=0)
    used = (number < samples).to(hat.dtype)[:, None, :, None]
    return (hat * used).sum(2) / samples[..., None]
