"""A batch kept full: waiting questions take the places of answers that have ended. Torch-free; knows nothing of models."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

REFILL_BELOW, SHRINK_BELOW = 0.9, 0.75
"""Share of a batch's rows still running at which ended rows are replaced, or dropped where none may join. Each time costs a copy of the
cache (`benchmarks.real_answers`)."""

PART = 0.125
"""Share of a batch that is read, and joins, at once: smaller parts leave fewer places free, larger ones read faster."""
Name = Hashable


class Row(Protocol):
    """One answer of a batch."""

    name: Name
    done: bool


class Batch(Protocol):
    """Answers that are decoded together, a token a step."""

    rows: Sequence[Row]
    """Ended rows are carried along until the next `join`."""

    def join(self, more: Any | None) -> Mapping[Name, Any]:
        """Drop ended rows and take in `more`; returns those of its answers that have ended already."""

    def step(self) -> Mapping[Name, Any]:
        """One forward; returns the answers that it ended."""


class Queue:
    """Questions waiting for room in a batch, in order.

    groups: questions that join together. columns: of the cache, that a question and its answer take at most. room: rows times
    columns of a batch, padding included. A group that is too large even alone joins an empty batch. refill: False keeps each group
    a batch of its own.
    """

    def __init__(
        self, groups: Iterable[Sequence[Name]], columns: Callable[[Any], int], room: float, refill: bool = True
    ) -> None:
        self.waiting = deque(groups)
        self.columns, self.room, self.refill = columns, room, refill

    def next(self, running: Sequence[Name]) -> list[Name]:
        """Removes and returns the questions that fit beside those running; [] if none do."""
        if not self.refill:
            return [*self.waiting.popleft()] if self.waiting and not running else []
        rows, widest = len(running), max(map(self.columns, running), default=0)
        taken: list[Name] = []
        while self.waiting:
            group = self.waiting[0]
            rows, widest = rows + len(group), max(widest, *map(self.columns, group))
            if rows > len(group) and rows * widest > self.room:
                break
            taken += self.waiting.popleft()
        return taken


def parts_of(columns: Sequence[int], most: float) -> list[slice]:
    """Consecutive rows together, as many as take at most so much, padding included, but at least one. columns: of each row."""
    ends: list[int] = []
    begin = widest = 0
    for at, own in enumerate(columns):
        widest = max(widest, own)
        if at > begin and (at + 1 - begin) * widest > most:
            ends.append(at)
            begin, widest = at, own
    return [slice(one, other) for one, other in pairwise([0, *ends, len(columns)])]


def run(
    batch: Batch, source: Callable[[list[Name]], Any | None], below: float = REFILL_BELOW
) -> Iterator[Mapping[Name, Any]]:
    """Steps a batch until every answer has ended, and yields the answers as they end.

    source: given the names of the running rows, returns what joins them, or None; asked whenever no more than `below` of the rows run.
    """
    while True:
        running = _running(batch)
        while len(running) <= below * len(batch.rows):
            more = source(running)
            if ended := batch.join(more):
                yield ended
            running = _running(batch)
            if more is None:
                break
        if not running:
            return
        if ended := batch.step():
            yield ended


def _running(batch: Batch) -> list[Name]:
    return [row.name for row in batch.rows if not row.done]
