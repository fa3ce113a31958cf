"""LVR's forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.latent import losses
from models.latent.batch import Batch
from models.latent.boxes import Cells, box_cells
from models.latent.prompt import boxes_of
from models.latent.slots import distances, places
from models.latent.terms import Draws, Terms
from models.methods.base import Encode, Method
from models.methods.lvr.modules import END, HEAD, HEADS
from models.methods.lvr.spec import Lvr

if TYPE_CHECKING:
    from models.backbone.model import Backbone
    from models.latent.prompt import Prompt


class LVR(Method):
    """The supervised stage."""

    heads = HEADS
    stage: Lvr

    def modules(self) -> frozenset[str]:
        head = {f"lvr_{self.stage.head}"} if self.stage.head != "none" else set()
        return frozenset(head | ({"lvr_end"} if self.stage.latent_end else set()))

    def decoded_with(self) -> frozenset[str]:
        return self.modules() & {"lvr_end"}

    def end_vector(self, model: Backbone) -> Tensor | None:
        end = model.head(END)
        return None if end is None else end()

    def terms(self, model: Backbone, batch: Batch, features: Tensor, embeds: Tensor, draws: Draws) -> Terms:
        return terms(
            model, batch, self.stage, features, embeds, head=model.head(HEAD), end=self.end_vector(model),
            num_slots=draws.num_slots, num_boxes=draws.num_boxes,
        )  # fmt: skip

    def oracle(self, model: Backbone, prompts: Sequence[Prompt], latent_steps: int, encode: Encode | None = None) -> list[Tensor]:
        """The merged tokens under the true boxes, in raster order, as many as there are steps; from the first again where a box
        has fewer, so that every slot holds evidence."""
        features, grids, boxes, images = boxes_of(model, prompts)
        cells = Cells.of(grids, images)
        turns = torch.arange(latent_steps, device=features.device)
        found = []
        for own, here in zip(cells.index, box_cells(boxes, cells), strict=True):
            tokens = features[own[here]]
            found.append(tokens[turns % len(tokens)])
        firsts = torch.stack(found)
        return list(firsts.split([len(prompt.boxes) for prompt in prompts]))


method = LVR


def tokens_under(box: list[float], grid: tuple[int, int]) -> list[int]:
    """Indices of the merged tokens under a normalised box on a merged (height, width) grid, in raster order: its slots.
    Raises ValueError for a box that is empty, inverted or outside."""
    cells = Cells.of(torch.tensor([grid]), torch.tensor([0]))
    return box_cells(torch.tensor([box], dtype=torch.float64), cells)[0].nonzero()[:, 0].tolist()


def terms(
    model: Backbone,
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
    first = batch.segment_slots.cumsum(0) - batch.segment_slots
    latents = {"z_t": target[first][:, None], "hidden": states[first][:, None]}
    return Terms(found, weights, {}, hidden, fed, latents, masked)
