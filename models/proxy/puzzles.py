"""Two puzzles with pictures of their own, after BLINK's IQ test and jigsaw. The base sees them in its last phases.

A puzzle is a question plus its pictures; single-scene questions live in `questions`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.proxy.questions import Question, pick
from models.proxy.scenes import (
    ATTRIBUTES,
    CELL_PX,
    Item,
    Marker,
    Scene,
    SceneStyle,
    place,
    random_tint,
    render,
    sample_scene,
)

PATTERN_TEXT = "Which picture follows the same pattern or rule established by the previous pictures?"
PATTERN_OPTIONS = ("picture A", "picture B", "picture C", "picture D")
JIGSAW_TEXT = (
    "Given the first image with the lower right corner missing, can you tell which one of the second image or the third "
    "image is the missing part? Imagine which image would be more appropriate to place in the missing spot. You can also "
    "carefully observe and compare the edges of the images."
)
JIGSAW_OPTIONS = ("the second image", "the third image")
_SIDE_PX = 128
_PIECE_PX = 64
_PIECE_STYLE = SceneStyle(items=(10, 18))


@dataclass(frozen=True)
class Puzzle:
    """A question over one or several pictures, and the scenes whose content decides the split."""

    question: Question
    scenes: tuple[Scene, ...]
    pictures: tuple[np.ndarray, ...]


def pattern(rng: np.random.Generator) -> Puzzle:
    """A row of objects alternates with period two or three in one attribute; which of four candidates comes next?

    Row 1 holds the sequence and a '?' plate, row 5 the candidates over plates A to D. The box is the sequence's: that of
    the right candidate would give the letter away.
    """
    varying = str(pick(rng, list(ATTRIBUTES)))
    words = {a: str(pick(rng, list(v))) for a, v in ATTRIBUTES.items()}
    period = int(pick(rng, [2, 3]))
    cycle = [str(w) for w in rng.permutation(ATTRIBUTES[varying])[:4]]

    def object_at(value: str, row: int, col: int) -> Item:
        kind = {**words, varying: value}
        return place(rng, kind["color"], kind["shape"], kind["fill"], row, col)

    shown = period * 2 + int(rng.integers(0, period)) if period == 2 else 5
    sequence = [object_at(cycle[k % period], 1, 1 + k) for k in range(shown)]
    right = cycle[shown % period]
    order = [str(w) for w in rng.permutation(cycle)]
    candidates = [object_at(value, 5, 2 * k) for k, value in enumerate(order)]
    level = int(rng.integers(5))
    markers = (Marker("?", level, 1, 1 + shown), *(Marker(c, level, 6, 2 * k) for k, c in enumerate("ABCD")))
    scene = Scene(_SIDE_PX, tuple(sequence + candidates), markers, random_tint(rng), int(rng.integers(2**31)), content_is_layout=False)
    answer = order.index(right)
    question = Question("pattern", PATTERN_TEXT, PATTERN_OPTIONS, answer, scene.box(*sequence), tuple(sequence))
    return Puzzle(question, (scene,), (render(scene),))


def jigsaw(rng: np.random.Generator) -> Puzzle:
    """The lower right quarter is black; the second or third picture fits. The wrong piece is from a scene of another tint.

    The evidence is the first picture's region around the missing corner's edges.
    """
    scene = sample_scene(rng, _PIECE_STYLE)
    while True:
        other = sample_scene(rng, _PIECE_STYLE)
        if max(abs(a - b) for a, b in zip(scene.tint, other.tint, strict=True)) >= 16:
            break
    whole = render(scene)
    first = whole.copy()
    first[_PIECE_PX:, _PIECE_PX:] = 0
    pieces = [whole[_PIECE_PX:, _PIECE_PX:].copy(), render(other)[_PIECE_PX:, _PIECE_PX:].copy()]
    answer = int(rng.integers(2))
    if answer == 1:
        pieces.reverse()
    edge = (_PIECE_PX - CELL_PX) / _SIDE_PX
    question = Question("jigsaw", JIGSAW_TEXT, JIGSAW_OPTIONS, answer, (edge, edge, 1.0, 1.0))
    return Puzzle(question, (scene, other), (first, *pieces))


PUZZLES = {"pattern": pattern, "jigsaw": jigsaw}
__all__ = ["JIGSAW_OPTIONS", "JIGSAW_TEXT", "PATTERN_OPTIONS", "PATTERN_TEXT", "PUZZLES", "Puzzle", "jigsaw", "pattern"]
