"""The one rule of orientation (`Images.orientation`) while a benchmark is read: `datasets` turns pictures as EXIF says when it
decodes them, and lmms-eval's tasks see nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import PIL.ImageOps

from models.schema import Orientation

_TURN = PIL.ImageOps.exif_transpose


def applied() -> Orientation:
    """The rule in force."""
    return "upright" if PIL.ImageOps.exif_transpose is _TURN else "stored"


@contextmanager
def oriented(orientation: Orientation) -> Iterator[None]:
    """Meanwhile, pictures that `datasets` decodes are turned (upright) or left as they are (stored).

    `datasets` has no option for it, so Pillow's function is stood in for. Of a TIFF it is Pillow that turns it while it
    loads it, in place, in training too: that stays.
    """
    if orientation == "upright":
        yield
        return
    turn = PIL.ImageOps.exif_transpose

    def leave(image: Any, *, in_place: bool = False) -> Any:
        return turn(image, in_place=True) if in_place else image

    PIL.ImageOps.exif_transpose = leave
    try:
        yield
    finally:
        PIL.ImageOps.exif_transpose = turn
