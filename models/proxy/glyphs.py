"""The pixels of one object: shape outlines, fills and marker letters as small alpha masks.

Knows nothing of pictures, colours in use or questions.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross", "diamond", "heart")
FILLS = ("solid", "striped", "dotted", "hollow")
SIZES_PX = (11, 12, 13)
_OVERSAMPLE = 8

_LETTERS = {
    "A": ("01110", "10001", "10001", "11111", "10001", "10001", "10001"),
    "B": ("11110", "10001", "10001", "11110", "10001", "10001", "11110"),
    "C": ("01111", "10000", "10000", "10000", "10000", "10000", "01111"),
    "D": ("11110", "10001", "10001", "10001", "10001", "10001", "11110"),
    "?": ("01110", "10001", "00001", "00110", "00100", "00000", "00100"),
}
MARKERS = tuple(_LETTERS)
MARKER_PX = 14
"""Side of a marker plate in pixels."""


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points (x, y in -1..1, y downwards) lie inside the shape; every shape touches the unit square's sides."""
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return (np.abs(x) <= 1) & (np.abs(y) <= 1)
    if shape == "triangle":
        return np.abs(x) <= (y + 1) / 2
    if shape == "cross":
        return (np.abs(x) <= 0.34) | (np.abs(y) <= 0.34)
    if shape == "diamond":
        return np.abs(x) + np.abs(y) <= 1
    if shape == "heart":
        lobes = ((np.abs(x) - 0.5) ** 2 + (y + 0.5) ** 2 <= 0.25) | ((np.abs(x) <= 0.5) & (y <= -0.3) & (y >= -0.6))
        point = (y >= -0.45) & (np.abs(x) <= (1 - y) / 1.45)
        return lobes | point
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


@cache
def object_alpha(shape: str, fill: str, size_px: int) -> np.ndarray:
    """Opacity of an object, float32 [size_px, size_px] in 0..1. Nothing outside these pixels is drawn.

    Raises ValueError for an unknown shape or fill.
    """
    n = size_px * _OVERSAMPLE
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(axis, axis)
    full = _inside(shape, x, y).reshape(size_px, _OVERSAMPLE, size_px, _OVERSAMPLE).mean((1, 3))
    if fill == "solid":
        alpha = full
    elif fill == "striped":
        rows = (np.arange(size_px) // 2) % 2 == 0
        alpha = full * rows[:, None]
    elif fill == "dotted":
        checks = (np.arange(size_px)[:, None] + np.arange(size_px)[None, :]) % 2 == 0
        alpha = full * checks
    elif fill == "hollow":
        scale = size_px / (size_px - 4.5)
        if shape == "cross":
            core = ((np.abs(x) <= 0.14) & (np.abs(y) <= 0.8)) | ((np.abs(y) <= 0.14) & (np.abs(x) <= 0.8))
        else:  # a triangle's middle lies below the square's, or its base line would vanish
            core = _inside(shape, x * scale, (y - 0.2) * scale + 0.2 if shape == "triangle" else y * scale)
        alpha = full - core.reshape(size_px, _OVERSAMPLE, size_px, _OVERSAMPLE).mean((1, 3))
    else:
        raise ValueError(f"unknown fill {fill!r}; known: {', '.join(FILLS)}")
    return np.clip(alpha, 0, 1).astype(np.float32)


@cache
def marker_alpha(letter: str) -> np.ndarray:
    """Opacity of a marker's letter on its plate, float32 [MARKER_PX, MARKER_PX] in 0..1."""
    if letter not in _LETTERS:
        raise ValueError(f"unknown marker {letter!r}; known: {', '.join(MARKERS)}")
    bits = np.array([[int(c) for c in row] for row in _LETTERS[letter]], dtype=np.float32)
    plate = np.zeros((MARKER_PX, MARKER_PX), dtype=np.float32)
    plate[3:10, 4:9] = bits
    return plate
