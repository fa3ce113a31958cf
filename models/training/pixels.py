"""Where the vision side of a batch comes from: files opened and cut into patches here, or features from a store (`collate.Cached`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from models.backbone.clips import patches_of_file
from models.backbone.images import patches_of
from models.backbone.template import ClipGrid, Grid
from models.methods.base import Pieces
from models.training.parse import ClipFile


class Pixels(Protocol):
    """Where the vision side of a batch comes from."""

    def __call__(self, pictures: Sequence[Any]) -> tuple[list[Tensor], list[Grid], Tensor | None]:
        """Of picture and clip files, or of pieces: one tensor each, merged grids, and grid_thw [n, 3] if the tensors are patches,
        not features. A box without a piece has the grid (0, 0)."""
        ...


Opened = Image.Image | tuple[Tensor, Tensor, float] | None
"""A picture or piece as RGB; of a clip its patches, grid [3] and seconds from one pair of frames to the next; None for a box without a
piece."""


@dataclass
class Live:
    """Patches, for the tower in the model."""

    processor: Any
    """As from `load_image_processor`."""
    pieces: Pieces | None = None
    """What the pictures are cut out by; None for whole files."""

    def __call__(self, pictures: Sequence[Any]) -> tuple[list[Tensor], list[Grid], Tensor]:
        return self.patches([self.open(one) for one in pictures])

    def open(self, one: Any) -> Opened:
        """Reads one file; may be called in several threads. Raises pictures.Unreadable."""
        if isinstance(one, ClipFile):
            return patches_of_file(self.processor, one.path, one.clips)
        return one.open() if self.pieces is None else self.pieces.open(one, self.processor)

    def patches(self, opened: Sequence[Opened]) -> tuple[list[Tensor], list[Grid], Tensor]:
        """What `Pixels` gives, of files that are open."""
        patches, grid_thw = [torch.zeros(0, 0)] * len(opened), torch.zeros(len(opened), 3, dtype=torch.long)
        seconds: dict[int, float] = {}
        shown: dict[int, Image.Image] = {}
        for at, one in enumerate(opened):
            if isinstance(one, tuple):
                patches[at], grid_thw[at], seconds[at] = one
            elif one is not None:
                shown[at] = one
        if shown:
            made, grid_thw[list(shown)] = patches_of(self.processor, list(shown.values()))
            for at, own in zip(shown, made, strict=True):
                patches[at] = own
        merge = self.processor.merge_size
        grids: list[Grid] = [
            ClipGrid(t, h // merge, w // merge, seconds[at]) if at in seconds else (h // merge, w // merge)
            for at, (t, h, w) in enumerate(grid_thw.tolist())
        ]
        return patches, grids, grid_thw
