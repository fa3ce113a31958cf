"""Which pixels the vision tower sees, and the tower itself on many images at once.

`encode_images` computes what `model.visual` computes, faster where there is no varlen attention kernel: the patch
embedding is a matrix product instead of a conv3d over single patches, and equal windows are attended in one batch
instead of one by one in Python. Knows nothing of data sets or files of features.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_attention_seqlens, get_vision_position_ids, get_vision_window_index

from models.backbone.pictures import open_image
from models.schema import Images

__all__ = ["encode_images", "grid_of", "load_image_processor", "open_image", "patches_of", "stored_dtype", "tower"]


def stored_dtype(checkpoint: Path | str) -> torch.dtype:
    """The dtype that a checkpoint's weights are stored in, as its config says (float32 if it does not)."""
    dtype = Qwen2_5_VLConfig.from_pretrained(checkpoint).dtype
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32


def load_image_processor(checkpoint: Path | str, images: Images) -> Any:
    """The checkpoint's image processor with the spec's pixel limits and backend; RuntimeError if that backend is missing.

    The limits go in as min_pixels and max_pixels: a `size` loses against the min_pixels of the published configurations.
    """
    processor = AutoImageProcessor.from_pretrained(
        checkpoint, backend=images.processor, min_pixels=images.min_pixels, max_pixels=images.max_pixels
    )
    backend = "pil" if type(processor).__name__.endswith("Pil") else "torchvision"
    if backend != images.processor:  # transformers falls back silently; the backends' pixels differ
        raise RuntimeError(f"images.processor: {images.processor} is not available here, only {backend}")
    return processor


def patches_of(processor: Any, pictures: list[Image.Image]) -> tuple[list[Tensor], Tensor]:
    """Patches [patches_i, 3 * 2 * side²] float32 of every picture, and their grids [I, 3] (1, height, width) in patches."""
    made = processor(images=pictures, return_tensors="pt")
    grids = made["image_grid_thw"]
    return list(made["pixel_values"].split(grids.prod(dim=1).tolist())), grids


def grid_of(processor: Any, width: int, height: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """Merged (height, width) in tokens of a picture of this many pixels, without its pixels. limits: least and most pixels, if
    not the processor's own."""
    cell = processor.patch_size * processor.merge_size
    least, most = limits or (processor.size["shortest_edge"], processor.size["longest_edge"])
    down, across = smart_resize(height, width, cell, least, most)
    return down // cell, across // cell


@torch.no_grad()
def encode_images(model: Any, patches: list[Tensor], grids: Tensor, *, max_patches: int = 1 << 15) -> list[Tensor]:
    """Merged vision features [T_i, D] of every image, in order, on the model's device in its tower's dtype.

    model: a Qwen2.5-VL (`model.model.visual`). patches, grids: as from `patches_of`. Images of equal grid are computed
    together, at most `max_patches` patches at a time.
    """
    visual = model.model.visual
    equal: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, grid in enumerate(grids.tolist()):
        equal[tuple(grid)].append(number)
    features: list[Tensor] = [torch.empty(0)] * len(patches)
    for (t, h, w), numbers in equal.items():
        step = max(1, max_patches // (t * h * w))
        for first in range(0, len(numbers), step):
            some = numbers[first : first + step]
            batch = torch.cat([patches[i] for i in some]).to(visual.device)
            tokens = tower(visual, batch, torch.tensor([[t, h, w]] * len(some), device=visual.device))
            for i, own in zip(some, tokens.chunk(len(some)), strict=True):
                features[i] = own
    return features


def tower(visual: Any, patches: Tensor, grid_thw: Tensor) -> Tensor:
    """`visual(patches, grid_thw).pooler_output`: [T, D] merged tokens in raster order, without gradient or autocast."""
    weight = visual.patch_embed.proj.weight
    merge = visual.spatial_merge_unit
    with torch.autocast(patches.device.type, enabled=False):
        positions = get_vision_position_ids(grid_thw, visual.spatial_merge_size)
        whole, _ = get_vision_attention_seqlens(grid_thw, visual.config)
        order, windows = get_vision_window_index(
            grid_thw,
            spatial_merge_size=visual.spatial_merge_size,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )

        def reorder(x: Tensor) -> Tensor:
            return x.view(len(x) // merge, merge, -1)[order].flatten(0, 1)

        hidden = reorder(F.linear(patches.to(weight.dtype), weight.flatten(1)))
        rotary = tuple(map(reorder, visual.rotary_pos_emb(hidden, positions)))
        plans = {True: _equal_runs(whole), False: _equal_runs(windows)}
        for number, block in enumerate(visual.blocks):
            plan = plans[number in visual.fullatt_block_indexes]
            hidden = hidden + _attend(block.attn, block.norm1(hidden), rotary, plan)
            hidden = hidden + block.mlp(block.norm2(hidden))
        return visual.merger(hidden)[order.argsort()]


def _equal_runs(bounds: Tensor) -> list[Tensor]:
    """Windows by length: one tensor [windows, length] of token numbers for each length that occurs."""
    bounds = bounds.unique_consecutive()
    lengths = bounds.diff()
    return [
        bounds[:-1][lengths == length][:, None] + torch.arange(int(length), device=bounds.device)
        for length in lengths.unique()
    ]


def _attend(attention: Any, x: Tensor, rotary: tuple[Tensor, Tensor], plan: list[Tensor]) -> Tensor:
    query, key, value = attention.qkv(x).view(len(x), 3, attention.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *rotary)
    out = torch.empty_like(value)
    for places in plan:
        q, k, v = (tensor[places].transpose(1, 2) for tensor in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v, scale=attention.scaling)
        out[places] = attended.transpose(1, 2)
    return attention.proj(out.flatten(1))
