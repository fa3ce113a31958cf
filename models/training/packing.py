"""Which samples share a row. Pure functions of lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows of sample numbers, at most `room` tokens long: each sample goes, in order, into the first row that it fits.

    Raises ValueError for a sample that fits no row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for number, length in enumerate(lengths):
        if length > room:
            raise ValueError(f"sample {number} has {length} tokens, more than a row of {room}")
        for row, left in enumerate(free):
            if length <= left:
                rows[row].append(number)
                free[row] -= length
                break
        else:
            rows.append([number])
            free.append(room - length)
    return rows


def release_groups(
    lengths: Iterable[int], *, max_tokens: int = 16384, long: int = 4096, instances: int = 4, waiting: int = 100
) -> Iterator[list[int]]:
    """The release's dynamic batching of a stream: sample numbers of each micro-batch, in the order of emission.

    A sample of at least `long` tokens goes alone. Any other joins the longest waiting group that stays within
    `max_tokens`, or waits as a new group; a group leaves when it has `instances` samples, or as the longest one once
    more than `waiting` groups wait. The release then pads the group's samples to the longest: these are batches, not
    packed rows. What still waits at the end leaves longest first.
    """
    groups: list[list[int]] = []
    sizes: list[int] = []
    for number, length in enumerate(lengths):
        if length >= long:
            yield [number]
            continue
        place = next((i for i, size in enumerate(sizes) if size + length <= max_tokens), None)
        group, size = ([], 0) if place is None else (groups.pop(place), sizes.pop(place))
        group, size = [*group, number], size + length
        if len(group) == instances:
            yield group
            continue
        place = next((i for i, other in enumerate(sizes) if other < size), len(sizes))
        groups.insert(place, group)
        sizes.insert(place, size)
        if len(groups) > waiting:
            sizes.pop(0)
            yield groups.pop(0)
    yield from groups
