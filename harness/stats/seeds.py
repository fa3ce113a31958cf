"""Seed noise that the rows of a table lend each other, and which rows are no independent evidence of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class SeedNoise:
    """variance: of one seed's mean (or of one seed's difference), estimated with `dof` degrees of freedom.

    Three seeds of one row say little about its seed noise; the rows of a table together say more. Pooling assumes that
    the rows are equally noisy, as an analysis of variance does.

    Rows of one *family* share trainings, so their deviations repeat each other. All of them are averaged, which needs no
    choice between them, but a family counts as one row, in weight and in degrees of freedom: right where its rows
    repeat each other wholly, and to the safe side where they do so in part.
    """

    variance: float
    dof: int

    @classmethod
    def within(
        cls, means: Sequence[Sequence[float]], families: Sequence[Hashable] | None = None
    ) -> SeedNoise | None:
        """From each row's means by seed; None when no row has two seeds. families: one entry a row; left out, all differ."""
        by_family: dict[Hashable, list[Sequence[float]]] = {}
        for family, row in zip(range(len(means)) if families is None else families, means, strict=True):
            if len(row) > 1:
                by_family.setdefault(family, []).append(row)
        parts = [
            (float(np.mean([np.var(row, ddof=1) for row in rows])), min(len(row) for row in rows) - 1)
            for rows in by_family.values()
        ]
        dof = sum(count for _, count in parts)
        return cls(sum(variance * count for variance, count in parts) / dof, dof) if dof else None

    @classmethod
    def of_differences(
        cls, means: Sequence[Sequence[float]], families: Sequence[Hashable] | None = None
    ) -> SeedNoise | None:
        """Of the difference of two rows of different families: means [rows, seeds], the same seeds in every row.

        The mean variance of the differences of all such pairs, each two families once. Without shared families that is
        twice the residual mean square of an analysis of variance with seeds as blocks. None below two families or seeds.
        """
        table = np.asarray(means, dtype=float)
        if table.ndim != 2 or min(table.shape) < 2:
            return None
        names = list(range(len(table)) if families is None else families)
        by_pair: dict[frozenset[Hashable], list[float]] = {}
        for (one, first), (other, second) in combinations(zip(names, table, strict=True), 2):
            if one != other:
                by_pair.setdefault(frozenset((one, other)), []).append(float(np.var(first - second, ddof=1)))
        if not by_pair:
            return None
        variance = float(np.mean([np.mean(found) for found in by_pair.values()]))
        return cls(variance, (len(set(names)) - 1) * (table.shape[1] - 1))


def families(parts: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """Name -> number of its family. Names that have a part in common, directly or through others, are of one family."""
    found: list[tuple[list[str], frozenset[str]]] = []
    for name, own in parts.items():
        near = [family for family in found if family[1] & own]
        names = [other for others, _ in near for other in others] + [name]
        found = [family for family in found if family not in near] + [(names, own.union(*(held for _, held in near)))]
    return {name: number for number, (names, _) in enumerate(found) for name in names}
