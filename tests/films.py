"""Small films for tests: noise that changes from frame to frame, written with PyAV."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_film(
    path: Path, frames: int = 20, size: tuple[int, int] = (64, 48), seed: int = 0, rate: int = 10, codec: str = "mpeg4"
) -> Path:
    """size: width, height. codec: mpeg4 or png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    tiles = (size[1] // 16, size[0] // 16)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "rgb24" if codec == "png" else "yuv420p"
        for _ in range(frames):
            shown = np.kron(draw.integers(0, 256, (*tiles, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())
    return path


def damage(path: Path, frame: int) -> Path:
    """One frame of a film of png frames can no longer be decoded; the container does not show it."""
    content, at = bytearray(path.read_bytes()), -1
    for _ in range(frame + 1):
        at = content.index(b"IDAT", at + 1)
    content[at + 4 : at + 36] = b"\xff" * 32
    path.write_bytes(content)
    return path


def cut_off(path: Path, share: float = 0.6) -> Path:
    """Only the begin of a file is left."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
