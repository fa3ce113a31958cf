"""The evidence crop: which pixels of the original picture lie under a box, and at what size the frozen tower sees them.

Sizes are counted in merged tokens, not pixels, so that they mean the same for every backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from models.backbone.boxes import rectangle
from models.backbone.images import load_image_processor
from models.methods.visreflect import release
from models.methods.visreflect.spec import CropRule, Crops
from models.schema import Images

if TYPE_CHECKING:
    from models.training.data import ImageFile, Sample


@dataclass(frozen=True)
class Crop:
    """What lies under one box of one picture."""

    file: ImageFile
    box: tuple[float, float, float, float]
    """Normalised x0, y0, x1, y1."""

    @property
    def key(self) -> str:
        """The same on every machine."""
        return f"{self.file.key}#{','.join(map(repr, self.box))}"

    def open(self, least: int, rule: CropRule = "outward") -> Image.Image | None:
        """The crop in the picture's own resolution, as RGB. least: see `rectangle`. None: the rule gives this box no crop."""
        return cut(self.file.open(), self.box, least, rule)


def cut(picture: Image.Image, box: Sequence[float], least: int, rule: CropRule = "outward") -> Image.Image | None:
    """A picture's pixels under a box, see `rectangle` and `release.rectangle`; None where the rule gives the box no crop."""
    if rule == "outward":
        return picture.crop(rectangle(box, picture.width, picture.height, least))
    found = release.rectangle(box, picture.width, picture.height)
    return None if found is None or release.too_long(found) else picture.crop(found)


def crops_of(sample: Sample) -> list[Crop]:
    """One for each box, in order."""
    return [Crop(sample.images[image], box) for box, image in zip(sample.boxes, sample.box_image, strict=True)]


def cell_px(processor: Any) -> int:
    """Side of a merged token in pixels."""
    return processor.patch_size * processor.merge_size


def load_crop_processor(checkpoint: Path | str, images: Images, crops: Crops) -> Any:
    """The checkpoint's image processor for crops of this size; `images` names the backend."""
    area = cell_px(load_image_processor(checkpoint, images)) ** 2
    limits = {"min_pixels": crops.min_tokens * area, "max_pixels": crops.max_tokens * area}
    return load_image_processor(checkpoint, images.model_copy(update=limits))


@dataclass(frozen=True)
class CropPieces:
    """Evidence crops of this size, as `models.methods.base.Pieces`."""

    crops: Crops

    def of(self, sample: Sample) -> list[Crop]:
        return crops_of(sample)

    def processor(self, checkpoint: Path | str, images: Images) -> Any:
        return load_crop_processor(checkpoint, images, self.crops)

    def open(self, piece: Crop, processor: Any) -> Image.Image | None:
        return piece.open(cell_px(processor), self.crops.rule)

    def cut(self, picture: Image.Image, box: Sequence[float], processor: Any) -> Image.Image | None:
        return cut(picture, box, cell_px(processor), self.crops.rule)
