"""The questions of a card: which are twins, and their pictures with one region painted over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image, ImageStat

from models.evaluation.questions import MirrorQuestion, number_of_questions, read_questions
from models.evaluation.tasks import tasks_for
from models.evaluation.vision import content_hash

LARGEST_REGION = 0.25
"""Share of a picture: a larger region has no other of its size elsewhere that is really elsewhere."""
Key = tuple[str, int]
"""Task, doc_id."""


@dataclass(frozen=True)
class Posed:
    """One question. twin: the neighbour with the same words about another picture and another answer. pictures: content hashes."""

    key: Key
    asked: MirrorQuestion
    pictures: tuple[str, ...]
    twin: Key | None = None

    @property
    def letters(self) -> int:
        return len(self.asked.options)


def chosen(mirror: Path, benchmark: str, most: int) -> list[Key]:
    """At most so many questions, neighbours (2k, 2k + 1) together, evenly spread over every task."""
    pairs: list[tuple[Key, ...]] = []
    for task in tasks_for(benchmark):
        count = number_of_questions(mirror, task)
        pairs += [tuple((task, doc) for doc in (first, first + 1) if doc < count) for first in range(0, count, 2)]
    wanted = min(len(pairs), max(most // 2, 1))
    kept = [pairs[at * len(pairs) // wanted] for at in range(wanted)]
    return [key for pair in kept for key in pair]


def batches(mirror: Path, benchmark: str, keys: list[Key], size: int) -> Iterator[list[Posed]]:
    """The questions with their pictures, at least two pairs at a time: each can be fed another's latents."""
    size = max(4, size - size % 2)
    starts = list(range(0, len(keys), size))
    if len(starts) > 1 and len(keys) - starts[-1] < 4:
        starts.pop()
    for at, start in enumerate(starts):
        yield _read(mirror, benchmark, keys[start : starts[at + 1] if at + 1 < len(starts) else len(keys)])


def _read(mirror: Path, benchmark: str, keys: list[Key]) -> list[Posed]:
    by_task: dict[str, list[int]] = {}
    for task, doc in keys:
        by_task.setdefault(task, []).append(doc)
    found: Mapping[Key, MirrorQuestion] = {
        (task, doc): asked for task, docs in by_task.items() for doc, asked in read_questions(mirror, benchmark, task, docs).items()
    }
    hashes = {key: tuple(content_hash(picture) for picture in asked.images) for key, asked in found.items()}
    return [Posed(key, found[key], hashes[key], _twin(key, found, hashes)) for key in keys]


def _twin(key: Key, found: Mapping[Key, MirrorQuestion], hashes: Mapping[Key, tuple[str, ...]]) -> Key | None:
    other = (key[0], key[1] ^ 1)
    if other not in found or hashes[other] == hashes[key]:
        return None
    a, b = found[key], found[other]
    return other if (a.text, a.options) == (b.text, b.options) and a.target != b.target else None


def regions(posed: Posed) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(evidence box of the first picture, a box of its size as far from it as the picture allows), both normalised. None where no
    box of the first picture is known, or it is larger than LARGEST_REGION, or nothing of its size lies wholly beside it."""
    box = next((tuple(box[1:]) for box in posed.asked.boxes if box[0] == 0), None)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if width * height > LARGEST_REGION:
        return None
    places = [(x * (1 - width), y * (1 - height)) for x, y in product((0, 0.5, 1), repeat=2)]
    apart = [(x, y) for x, y in places if x + width <= x0 or x >= x1 or y + height <= y0 or y >= y1]
    if not apart:
        return None
    x, y = max(apart, key=lambda place: (place[0] - x0) ** 2 + (place[1] - y0) ** 2)
    return box, (x, y, x + width, y + height)


def painted(picture: Image.Image, box: tuple[float, ...]) -> Image.Image:
    """The picture with the box filled with its mean colour."""
    changed = picture.convert("RGB").copy()
    colour: Any = tuple(round(value) for value in ImageStat.Stat(changed).mean)
    x0, y0, x1, y1 = (round(value * side) for value, side in zip(box, (*changed.size, *changed.size), strict=True))
    changed.paste(colour, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    return changed
