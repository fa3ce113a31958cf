"""A picture file as RGB: what is readable, and how what is no 8-bit RGB becomes it. Knows no tensors.

One rule of orientation for training and evaluation (`Images.orientation`): `upright` turns a picture as its EXIF tag says,
as `datasets` does when it decodes a benchmark; `stored` leaves the raster as it lies in the file, as the release trains.
Boxes are drawn on the stored raster, so that they turn with the picture (`turned`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageFile

from models.schema import Orientation

MOST_ASPECT = 200
"""Longer side over shorter side; above it Qwen2-VL's `smart_resize` refuses a picture."""
FULL_SCALES = (255, 1023, 4095, 16383, 65535)
"""White of pictures with 8 to 16 bits a sample. A picture says its container's bits, not its own: the smallest that holds
its brightest sample is taken."""
_TAG = 0x0112
_DEEP = ("I", "F")

Box = tuple[float, float, float, float]


class Unreadable(ValueError):
    """A picture cannot be used; the message names the file and says why. `reason`: one of data.REASONS."""

    def __init__(self, path: Path | str, reason: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.reason = Path(path), reason


@dataclass(frozen=True)
class Facts:
    """What decoding a picture once tells about it."""

    width: int
    height: int
    """Pixels of the stored raster."""
    tag: int
    """EXIF orientation, 1 to 8; 1 where there is none."""
    mends: tuple[str, ...]
    """How it was made 8-bit RGB, where that is more than a change of notation."""


def open_image(path: Path | str, orientation: Orientation = "upright") -> Image.Image:
    """An image file as RGB; transparency becomes white, unless all of it is transparent. Raises Unreadable, naming the file."""
    picture, facts = _decoded(path)
    return _turn(picture, facts.tag) if orientation == "upright" else picture


def as_rgb(picture: Image.Image, name: str = "a picture") -> Image.Image:
    """A picture that somebody else has opened, made RGB by the same rules. Raises Unreadable, beginning with `name`."""
    return picture if picture.mode == "RGB" else _rgb(picture, name)


def facts_of(path: Path | str) -> Facts:
    """Decodes the whole file. Raises Unreadable."""
    return _decoded(path)[1]


def tag_of(path: Path | str) -> int:
    """The EXIF orientation of a file, from its head alone; 1 where there is none or the file cannot be read."""
    try:
        with Image.open(path) as picture:
            return _tag(picture)
    except Exception:  # noqa: BLE001 - what ails it is said where it is decoded
        return 1


def turned(box: Box, tag: int) -> Box:
    """A normalised box on the stored raster -> on the upright picture."""
    x0, y0, x1, y1 = box
    (ax, ay), (bx, by) = (_POINTS[tag](x, y) for x, y in ((x0, y0), (x1, y1)))
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


_POINTS: dict[int, Callable[[float, float], tuple[float, float]]] = {
    1: lambda x, y: (x, y),
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def _turn(picture: Image.Image, tag: int) -> Image.Image:
    return picture.transpose(_TURNS[tag]) if tag in _TURNS else picture


def _tag(picture: Image.Image) -> int:
    try:
        tag = picture.getexif().get(_TAG, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block says nothing about the pixels
        return 1
    return tag if tag in _POINTS else 1


class _WholeFiles:
    """While any thread is inside, files that are cut off are errors, though lmms-eval lets Pillow fill them with gray in
    the whole process."""

    def __init__(self) -> None:
        self.lock, self.inside, self.lenient = Lock(), 0, False

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                ImageFile.LOAD_TRUNCATED_IMAGES = self.lenient


whole_files = _WholeFiles()


def _decoded(path: Path | str) -> tuple[Image.Image, Facts]:
    try:
        with whole_files, Image.open(path) as picture:
            width, height = picture.size
            if max(width, height) > MOST_ASPECT * min(width, height):
                raise Unreadable(
                    path, "picture shape",
                    f"{width} x {height} pixels, more than {MOST_ASPECT} times as long as wide; crop it or take its sample out",
                )  # fmt: skip
            picture.load()
            # Pillow turns a TIFF while it loads it, and takes the tag away.
            facts = Facts(*picture.size, _tag(picture), tuple(_mends(picture)))
            return _rgb(picture, path), facts
    except (Unreadable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(path, "picture too large", f"{error}; make it smaller or take its sample out") from None
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever their parsers meet
        raise Unreadable(
            path, "unreadable picture",
            f"not a readable image ({error or type(error).__name__}); replace the file or take its sample out",
        ) from None  # fmt: skip


def _mends(picture: Image.Image) -> list[str]:
    """What `_rgb` will change, in words."""
    found = []
    if picture.mode.startswith(_DEEP):
        found.append("samples of more than 8 bits scaled to 8")
    if _see_through(picture):
        found.append("transparency made white")
    if picture.mode == "CMYK":
        found.append("CMYK made RGB")
    if picture.format in ("GIF", "WEBP", "PNG", "TIFF") and getattr(picture, "is_animated", False):
        found.append("first of several pages" if picture.format == "TIFF" else "first frame of an animation")
    return found


def _see_through(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def _rgb(picture: Image.Image, path: Path | str) -> Image.Image:
    if picture.mode.startswith(_DEEP):
        return Image.fromarray(_eight_bits(np.asarray(picture), path)).convert("RGB")
    if _see_through(picture):
        picture = picture.convert("RGBA")
        if picture.getextrema()[3][1] == 0:
            raise Unreadable(
                path, "unreadable picture",
                "wholly transparent, so it would become a white area; save it without its alpha channel or take its sample out",
            )  # fmt: skip
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(samples: np.ndarray, path: Path | str) -> np.ndarray:
    """Grey of more than 8 bits, or float, linearly to 0..255; white is the smallest of 1 (float only) and FULL_SCALES
    that holds every sample. (Pillow clips at 255: white.)"""
    low, high = float(samples.min()), float(samples.max())
    scales = ((1,) if samples.dtype.kind == "f" else ()) + FULL_SCALES
    if not (low >= 0 and high <= scales[-1]):  # also NaN
        raise Unreadable(
            path, "unreadable picture",
            f"its samples reach from {low:g} to {high:g}, outside 0 to {scales[-1]}; save it with 8 bits a sample",
        )  # fmt: skip
    white = next(scale for scale in scales if high <= scale)
    return np.rint(samples.astype(np.float64) * (255 / white)).astype(np.uint8)
