"""What the true box would put into the latent slots: the teacher's latents, or what a prompt brings with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.config import DecodeSpec
from models.latent.boxes import Cells, box_cells

if TYPE_CHECKING:
    from models.backbone.model import VReflection
    from models.latent.prompt import Prompt


def check(model: VReflection, prompts: Sequence[Prompt], spec: DecodeSpec) -> None:
    """Raise ValueError unless every prompt has latents of its own, or a true box that the model's BCM can look at."""
    if all(prompt.oracle is not None for prompt in prompts):
        for at, prompt in enumerate(prompts):
            if prompt.oracle.shape[1] < spec.latent_steps:
                held = prompt.oracle.shape[1]
                raise ValueError(f"latents: oracle holds {held} for prompt {at}, but latent_steps is {spec.latent_steps}")
        return
    if model.box_feature_resampler is None:
        raise ValueError("latents: oracle needs the BCM; load the model with heads including 'bcm'")
    held = model.box_feature_resampler.latent_steps
    if held != spec.latent_steps:
        raise ValueError(f"latents: oracle takes the BCM's {held} queries, but latent_steps is {spec.latent_steps}")
    for at, prompt in enumerate(prompts):
        if prompt.boxes is None or not len(prompt.boxes):
            raise ValueError(f"latents: oracle needs the true box of every question; prompt {at} has none")


def by_teacher(
    model: VReflection, prompts: Sequence[Prompt], features: Tensor, grids: Tensor, images: Sequence[int]
) -> list[Tensor]:
    """[b, S, D] of every prompt: Z_T of its true boxes. features [T, D], grids [I, 2] of all images; images: how many of
    them each prompt has."""
    device, own_images, before = model.device, [], 0
    for prompt, count in zip(prompts, images, strict=True):
        own = torch.zeros(len(prompt.boxes), dtype=torch.long) if prompt.box_image is None else prompt.box_image.cpu()
        own_images.append(own + before)
        before += count
    cells = Cells.of(grids.to(device), torch.cat(own_images).to(device))
    boxes = torch.cat([prompt.boxes for prompt in prompts]).to(device=device, dtype=torch.float64)
    region = model.region(features, cells, boxes, box_cells(boxes, cells), *model.teacher_region)
    return list(model.teacher(region)[0].split([len(prompt.boxes) for prompt in prompts]))
