"""LVR's forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.latent import losses
from models.latent.batch import Batch
from models.latent.boxes import Cells, box_cells
from models.latent.slots import distances, places
from models.latent.terms import Terms
from models.methods.lvr.spec import Lvr

if TYPE_CHECKING:
    from models.backbone.model import VReflection


def tokens_under(box: list[float], grid: tuple[int, int]) -> list[int]:
    """Indices of the merged tokens under a normalised box on a merged (height, width) grid, in raster order: its slots.
    Raises ValueError for a box that is empty, inverted or outside."""
    cells = Cells.of(torch.tensor([grid]), torch.tensor([0]))
    return box_cells(torch.tensor([box], dtype=torch.float64), cells)[0].nonzero()[:, 0].tolist()


def terms(
    model: VReflection,
    batch: Batch,
    stage: Lvr,
    features: Tensor,
    embeds: Tensor,
    *,
    head: nn.Module | None = None,
    end: Tensor | None = None,
    num_slots: int | Tensor | None = None,
    num_boxes: int | Tensor | None = None,
) -> Terms:
    """Losses of one micro-batch, with their graph, but for the cross-entropy.

    features [T, D], embeds [R, L, D]: of `model.vision` and `model.embed`. head, end [D]: the stage's optional modules.
    num_slots, num_boxes: over the whole optimiser step.
    """
    cells = Cells.of(batch.image_grids, batch.segment_image)
    inside = box_cells(batch.boxes, cells)
    target = features[cells.index[inside]].detach()
    row, column, _ = places(batch)
    fed = embeds.index_put((row, column), target.to(embeds.dtype))
    masked = row, column
    if end is not None:
        after = batch.segment_row, batch.segment_start + batch.segment_slots
        fed = fed.index_put(after, end.to(embeds.dtype).expand(len(after[0]), -1))
        masked = torch.cat([row, after[0]]), torch.cat([column, after[1]])
    hidden = model.run_language(fed, batch)
    states = hidden[row, column - 1]
    per_slot = distances(states if head is None else head(states), target, stage.lvr_distance)
    found, weights = {"lvr": losses.mean(per_slot, num_slots)}, {"lvr": stage.lambda_lvr}
    if end is not None:
        gap = distances(hidden[after[0], after[1] - 1], end.expand(len(after[0]), -1), "mse")
        found["lvr_end"], weights["lvr_end"] = losses.mean(gap, num_boxes), stage.lambda_end
    latents = {"z_t": target, "hidden": states}
    counts = {"slots": torch.tensor(len(per_slot), device=per_slot.device)}
    return Terms(found, weights, counts, hidden, fed, latents, masked)
