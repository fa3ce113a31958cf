"""A box of a picture as whole pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SLACK_PX = 0.01
"""Boxes are written with some six digits: an edge that is off by less than this still stands on its pixel."""


def rectangle(box: Sequence[float], width: int, height: int, least: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels: the box rounded outwards, and grown about its middle to `least` pixels a side
    (a sliver would be stretched, or refused by the image processor)."""
    (left, right), (top, bottom) = (
        _span(box[axis], box[axis + 2], size, least) for axis, size in ((0, width), (1, height))
    )
    return left, top, right, bottom


def _span(low: float, high: float, size: int, least: int) -> tuple[int, int]:
    first = min(max(math.floor(low * size + _SLACK_PX), 0), size - 1)
    end = max(min(math.ceil(high * size - _SLACK_PX), size), first + 1)
    if end - first < least:
        first = max(0, min((first + end - least) // 2, size - least))
        end = min(size, first + least)
    return first, end
