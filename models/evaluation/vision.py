"""Pictures on their way to the language model: hashed, turned into patches, encoded once, kept.

The vision tower is frozen, so a picture's features depend on nothing but its pixels and the resizing limits. They are
cached by content, across questions, decodings and jobs of one process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from models.backbone.images import encode_images, patches_of


def rgb(image: Image.Image) -> Image.Image:
    """The picture in three channels; itself if it has them."""
    return image if image.mode == "RGB" else image.convert("RGB")


def content_hash(image: Image.Image) -> str:
    """A picture's identity: its size and RGB pixels."""
    state = hashlib.blake2b(f"{image.size}".encode(), digest_size=16)
    state.update(image.tobytes())
    return state.hexdigest()


def weights_digest(module: torch.nn.Module) -> str:
    """Of names, dtypes and values of all parameters and buffers."""
    state = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    return state.hexdigest()


def encode(model: Any, processor: Any, images: Sequence[Image.Image]) -> list[Tensor]:
    """Merged features [T_i, D] of every picture, in raster order, in main memory."""
    if not images:
        return []
    patches, grids = patches_of(processor, list(images))
    with torch.inference_mode():
        return [features.to("cpu") for features in encode_images(model, patches, grids)]


def merged_grid(processor: Any, image: Image.Image) -> tuple[int, int]:
    """Height and width of a picture in merged tokens, without making its patches."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    cell = processor.patch_size * processor.merge_size
    size = processor.size
    height, width = smart_resize(
        image.height, image.width, cell, min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"]
    )
    return height // cell, width // cell
