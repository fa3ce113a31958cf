"""Which samples share a row or a micro-batch. Pure functions of lengths and counts."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence


def uneven(global_batch: int, micro_batch: int, ranks: int) -> str:
    """Why a step's samples cannot be cut into micro-batches of this size on so many ranks; "" if they can."""
    if global_batch % (micro_batch * ranks) == 0:
        return ""
    fitting = [m for m in range(1, global_batch + 1) if global_batch % (m * ranks) == 0]
    return (
        f"global_batch {global_batch} is no multiple of micro_batch {micro_batch} x {ranks} ranks; "
        f"micro_batch can be {', '.join(map(str, fitting)) or 'nothing: change the number of ranks'}"
    )


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


def shares(lengths: Sequence[int], parts: int, *, padded: bool = False) -> list[list[int]]:
    """Sample numbers in so many groups, none of them empty, whose costs are as alike as may be; the dearest group first.

    A group costs its tokens, or, padded, its samples times the longest of them: then it holds neighbours in length. Ranks that
    work on neighbouring groups at the same time wait little for each other. Raises ValueError for fewer samples than groups.
    """
    if len(lengths) < parts:
        raise ValueError(f"{len(lengths)} samples cannot be cut into {parts} groups")
    lengths = [max(length, 1) for length in lengths]
    falling = sorted(range(len(lengths)), key=lambda k: -lengths[k])
    if not padded:
        groups: list[list[int]] = [[] for _ in range(parts)]
        loads = [(0, part) for part in range(parts)]
        for number in falling:  # the longest sample that is left goes where there is least: at most a third above the best
            load, part = heapq.heappop(loads)
            groups[part].append(number)
            heapq.heappush(loads, (load + lengths[number], part))
        return [groups[part] for _, part in sorted(loads, key=lambda item: (-item[0], item[1]))]
    low, high = 1, max(lengths) * len(lengths)
    while low < high:  # the smallest cost that no group has to exceed
        middle = (low + high) // 2
        low, high = (low, middle) if len(_neighbours(lengths, falling, middle)) <= parts else (middle + 1, high)
    found = _neighbours(lengths, falling, low)
    while len(found) < parts:  # groups left over halve what costs most
        at = max((k for k, group in enumerate(found) if len(group) > 1), key=lambda k: len(found[k]) * lengths[found[k][0]])
        half = len(found[at]) // 2
        found[at : at + 1] = [found[at][:half], found[at][half:]]
    return sorted(found, key=lambda group: (-len(group) * lengths[group[0]], group[0]))


def _neighbours(lengths: Sequence[int], falling: Sequence[int], most: int) -> list[list[int]]:
    """Groups of neighbours in falling length, each as large as padding it to its first sample costs at most `most`, or one."""
    found: list[list[int]] = []
    for number in falling:
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= most:
            found[-1].append(number)
        else:
            found.append([number])
    return found


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
