"""Clips as video files: H.264 in an mp4, without loss, so that what is decoded is what was drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from models.proxy.clips import FPS


def write_film(path: Path, frames: np.ndarray) -> None:
    """frames: uint8 [frames, side, side, 3], `FPS` a second. The same bytes every time from the same version of PyAV."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264rgb", rate=FPS, options={"qp": "0", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def content_of(frames: np.ndarray) -> str:
    """sha256 of a clip's pixels, whatever its file's bytes are."""
    return hashlib.sha256(frames.tobytes()).hexdigest()


def content_of_all(contents: Iterable[tuple[str, str]]) -> str:
    """sha256 over (name, content) of many clips."""
    return hashlib.sha256(repr(sorted(contents)).encode()).hexdigest()
