"""One question as decoding takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.backbone.template import Grid, flat_grid

if TYPE_CHECKING:
    from models.backbone.model import Backbone


@dataclass(eq=False)
class Prompt:
    """One question, tokenised, image tokens already expanded. No, one or several images and clips, which are all called images."""

    input_ids: Tensor
    """[L] int64"""
    image_grids: Tensor | Sequence[Grid] | None = None
    """[I, 2] merged (height, width), or with clips a list of grids; taken from `image_grid_thw` if None."""
    image_embeds: Tensor | None = None
    """[T, D] features after the merger, instead of pixel_values."""
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None
    boxes: Tensor | None = None
    """[b, 4] float64, for `latents: oracle`; the k-th latent segment looks at box k, later ones at the last."""
    box_image: Tensor | None = None
    """[b]: image of every box; None is the first."""
    oracle: Tensor | None = None
    """[b, at least S, D]: what `latents: oracle` feeds for each box."""
    letters: tuple[int, ...] = ()
    """Ids of the option letters, for `answer: letter`."""
    seed: int | None = None
    """Of this question's noise, whatever the batch; None draws one from decode's generator."""


def vision(model: Backbone, prompts: list[Prompt]) -> tuple[Tensor | None, Tensor]:
    """(features [T, D] of all images in order or None, merged grids [I, 2])."""
    merge = model.model.visual.spatial_merge_size
    features, grids = [], []
    live = [p for p in prompts if p.image_embeds is None and p.pixel_values is not None]
    seen: dict[int, Tensor] = {}
    if live:
        grid_thw = torch.cat([p.image_grid_thw for p in live]).to(model.device)
        pixels = torch.cat([p.pixel_values for p in live]).to(device=model.device, dtype=model.model.visual.dtype)
        merged = model.model.visual(pixels, grid_thw).pooler_output
        sizes = [int(p.image_grid_thw.prod(1).sum()) // merge**2 for p in live]
        seen = {id(p): part for p, part in zip(live, merged.split(sizes))}
    for prompt in prompts:
        if prompt.image_embeds is None and prompt.pixel_values is None:
            continue
        features.append(seen[id(prompt)] if id(prompt) in seen else prompt.image_embeds.to(model.device))
        grids.append(grids_of(prompt, merge))
    if not features:
        return None, torch.zeros(0, 2, dtype=torch.long)
    return torch.cat(features), torch.tensor([flat_grid(grid) for own in grids for grid in own]).reshape(-1, 2)


def grids_of(prompt: Prompt, merge: int) -> Sequence[Grid]:
    """Of its pictures and clips, in order."""
    if isinstance(prompt.image_grids, Tensor):
        return [tuple(grid) for grid in prompt.image_grids.tolist()]
    if prompt.image_grids is not None:
        return prompt.image_grids
    if prompt.image_grid_thw is not None:
        return [tuple(grid) for grid in (prompt.image_grid_thw[:, 1:] // merge).tolist()]
    return []


def boxes_of(model: Backbone, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(features [T, D] of all pictures, merged grids [I, 2], true boxes [b, 4] float64 of all prompts, the picture of each
    box [b]), on the model's device."""
    device, merge = model.device, model.model.visual.spatial_merge_size
    own_images, before = [], 0
    for prompt in prompts:
        own = torch.zeros(len(prompt.boxes), dtype=torch.long) if prompt.box_image is None else prompt.box_image.cpu()
        own_images.append(own + before)
        before += len(grids_of(prompt, merge))
    features, grids = vision(model, prompts)
    boxes = torch.cat([prompt.boxes for prompt in prompts]).to(device=device, dtype=torch.float64)
    return features, grids.to(device), boxes, torch.cat(own_images).to(device)
