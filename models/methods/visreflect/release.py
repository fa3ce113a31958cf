"""What VisReflect's released code does where its paper is silent: which pixels are a crop, and how an answer is written.
Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.backbone.template import LATENT, latent_text

LONGEST_ASPECT = 200
"""A crop this many times as long as wide, or more, is dropped."""
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)


def rectangle(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom in pixels of a picture of this size; None where the release drops the box.

    The box is clamped to 0..1, its corners are put in order, and it is dropped unless its area is above 0 and below 1. Edges
    are rounded to the nearest pixel, ties to even; a crop has at least one pixel a side.
    """
    x0, x1 = sorted(min(max(value, 0.0), 1.0) for value in box[::2])
    y0, y1 = sorted(min(max(value, 0.0), 1.0) for value in box[1::2])
    if not 0 < (x1 - x0) * (y1 - y0) < 1:
        return None
    left, top = min(round(x0 * width), width - 1), min(round(y0 * height), height - 1)
    return left, top, min(width, max(left + 1, round(x1 * width))), min(height, max(top + 1, round(y1 * height)))


def too_long(rectangle: tuple[int, int, int, int]) -> bool:
    """Whether the release drops a crop for its shape."""
    left, top, right, bottom = rectangle
    sides = right - left, bottom - top
    return max(sides) >= LONGEST_ASPECT * min(sides)


def answer_text(value: str, slots: Sequence[int]) -> str:
    """An assistant's turn: one segment for each crop, in box order, then "The answer is: A" in place of the answer's tags.

    slots: of each of the record's boxes, 0 where it is dropped; empty for a record without boxes and for later turns. `<lvr>`
    placeholders go, with white space between them and text before the first. With every crop dropped the text is stripped.
    """
    _first, *parts = value.split(LATENT)
    text = "".join([part for part in parts[:-1] if part.strip()] + parts[-1:]) if parts else value
    text = _ANSWER.sub(r"The answer is: \1", text)
    segments = "".join(latent_text(count) for count in slots if count)
    return text.strip() if slots and not segments else segments + text
