"""Clips in questions: what identifies one, how many tokens it has, its patches. Frames are read by `models.backbone.clips`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from models.backbone.clips import (
    MISSING,
    ClipFacts,
    Span,
    chosen,
    frames_in_turn,
    look_at,
    patches_of_frames,
    pixel_limits,
    seconds_per_grid,
)
from models.backbone.images import grid_of
from models.backbone.pictures import Unreadable
from models.backbone.template import ClipGrid
from models.config import Fetched
from models.schema import Clips, Orientation

_SAMPLE_BYTES = 1 << 16
_NAMED = "clip "
"""Begins a clip's identity; those of pictures are digests alone."""
_FRAGMENT = re.compile(r"#t=([0-9.e+-]+),([0-9.e+-]+)$")
_FETCHED_CELL = 28
"""Pixels that qwen_vl_utils brings both sides of a frame to multiples of."""


_AS_TRAINED = Clips()


@dataclass(frozen=True)
class ClipReader:
    """How an evaluation sees its clips. fetched: whether qwen_vl_utils's resizing to `clips` comes before the checkpoint's own
    (to the limits for pictures), as in lmms-eval's model, or each frame is resized once."""

    clips: Clips = _AS_TRAINED
    fetched: Fetched = "as_is"

    def facts(self, path: str) -> ClipFacts:
        """Of a whole clip, by the times that `clips` goes by. Raises Unreadable."""
        return looked_at(path, self.clips.orientation)[0].known_by(self.clips.times)

    def size(self, path: str) -> tuple[int, int]:
        """(width, height) of a frame, turned or not as `clips` says. Raises Unreadable."""
        return looked_at(path, self.clips.orientation)[1]

    def grid(self, processor: Any, path: str) -> ClipGrid:
        """Merged grid, without decoding more than one frame. processor: the checkpoint's for pictures. Raises Unreadable."""
        path, span = parted(path)
        facts, size = self.facts(path), self.size(path)
        numbers = chosen(facts, self.clips, span)
        width, height, limits = self._sizes(processor, *size, len(numbers))
        down, across = grid_of(processor, width, height, limits=limits)
        return ClipGrid((len(numbers) + 1) // 2, down, across, seconds_per_grid(facts, numbers, self.clips))

    def patches(self, processor: Any, path: str) -> tuple[Tensor, Tensor]:
        """Patches [t * h * w, 3 * 2 * side²] float32 and grid [3] (t, h, w) in patches. Raises Unreadable."""
        path, span = parted(path)
        size = self.size(path)
        numbers = chosen(self.facts(path), self.clips, span)
        shown = frames_in_turn(path, numbers, self.clips.orientation)
        width, height, limits = self._sizes(processor, *size, len(numbers))
        if self.fetched == "qwen_vl_utils":
            shown = (_resized(picture, width, height) for picture in shown)
        return patches_of_frames(processor, shown, len(numbers), limits)

    def _sizes(self, processor: Any, width: int, height: int, frames: int) -> tuple[int, int, tuple[int, int]]:
        """(width, height) of the frames that the processor is given, and its limits."""
        limits = pixel_limits(frames, self.clips)
        if self.fetched == "as_is":
            return width, height, limits
        from qwen_vl_utils.vision_process import smart_resize

        height, width = smart_resize(height, width, _FETCHED_CELL, *limits)
        return width, height, (processor.size["shortest_edge"], processor.size["longest_edge"])


def identity(path: str) -> str:
    """Of a clip's content: its size, and the bytes at its begin, middle and end (all bytes of a short one). Of a folder of
    frames: their names and sizes. Of a part of a clip also its span. Raises Unreadable for what is not there."""
    path, span = parted(path)
    state, place = hashlib.blake2b(f"{span}".encode() if span else b"", digest_size=16), Path(path)
    try:
        if place.is_dir():
            for file in sorted(place.iterdir()):
                state.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            return _NAMED + state.hexdigest()
        size = place.stat().st_size
        state.update(str(size).encode())
        with place.open("rb") as file:
            for start in (0, size // 2, max(0, size - _SAMPLE_BYTES)) if size > 3 * _SAMPLE_BYTES else (0,):
                file.seek(start)
                state.update(file.read(_SAMPLE_BYTES if size > 3 * _SAMPLE_BYTES else -1))
    except OSError:
        raise missing_clip(path) from None
    return _NAMED + state.hexdigest()


def span_of(path: str, span: Span) -> str:
    """A part of a clip, named as a media fragment (W3C): "film.mp4#t=12.5,18.0"."""
    return f"{path}#t={span[0]},{span[1]}"


def parted(path: str) -> tuple[str, Span | None]:
    """The file of a clip, and the span of it that `span_of` named."""
    found = _FRAGMENT.search(path)
    return (path[: found.start()], (float(found[1]), float(found[2]))) if found else (path, None)


def missing_clip(path: str) -> Unreadable:
    """The error of a clip that is not there."""
    return Unreadable(path, MISSING, "no such file; put it there")


def is_clip(key: str) -> bool:
    """Whether this is a clip's identity, and not a picture's."""
    return key.startswith(_NAMED)


def looked_at(path: str, orientation: Orientation = "stored") -> tuple[ClipFacts, tuple[int, int]]:
    """`look_at`, once for every clip as it lies there now."""
    try:
        stat = Path(path).stat()
    except OSError:
        raise missing_clip(path) from None
    return _kept(path, orientation, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 14)
def _kept(path: str, orientation: Orientation, _size: int, _time: int) -> tuple[ClipFacts, tuple[int, int]]:
    return look_at(path, orientation)


def _resized(picture: Any, width: int, height: int) -> Any:
    """As `qwen_vl_utils.fetch_video` resizes each frame: bicubic, on a tensor of 8 bits."""
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    frame = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    made = resize(frame, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return Image.fromarray(made.permute(1, 2, 0).numpy())
