"""Seed noise: each row's own variance between seeds, shrunk towards what all rows of a column have in common.

Three seeds of one row say little about its noise, and rows are not equally noisy: pooling them as equals rejects too
often for the noisy ones and hardly ever for the quiet ones. Empirical Bayes does neither (Smyth 2004, "Linear models and
empirical Bayes methods for assessing differential expression"): a row's variance counts with its own degrees of freedom,
the column's with as many as the rows' variances agree with each other.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

LARGEST_DOF = 1e6
"""Prior degrees of freedom from which the rows count as equally noisy."""
CAUTION = 0.75
"""Standard errors that are added to the estimated spread of the rows' variances. Without them a prior from eight rows of two
seeds claims to know too much, and equal rows are told apart 6 to 7 times in 100; with them 3 to 5 times
(`benchmarks/statistics.md`)."""


@dataclass(frozen=True)
class SeedNoise:
    """Variance of one seed's mean, difference or contrast, as (variance, degrees of freedom) of its independent parts.

    Parts are kept apart because Satterthwaite's single number of degrees of freedom is too bold for two or three seeds: tests
    take Cochran's weighted mean of the parts' t quantiles instead.
    """

    parts: tuple[tuple[float, float], ...]

    @property
    def variance(self) -> float:
        return sum(variance for variance, _ in self.parts)

    @property
    def dof(self) -> float:
        """Welch and Satterthwaite's approximation, for display only."""
        total = self.variance
        if total == 0:
            return min(dof for _, dof in self.parts)
        return total**2 / sum(variance**2 / dof for variance, dof in self.parts)

    def times(self, factor: float) -> SeedNoise:
        """Of a mean that varies `factor` times as much (in variance)."""
        return SeedNoise(tuple((variance * factor, dof) for variance, dof in self.parts))

    @classmethod
    def own(cls, means: Sequence[float]) -> SeedNoise:
        """From one row's means by seed alone; at least two."""
        return cls(((float(np.var(means, ddof=1)), float(len(means) - 1)),))

    @classmethod
    def combined(cls, parts: Iterable[tuple[float, SeedNoise]]) -> SeedNoise:
        """Of a sum of independent rows, each times its weight."""
        return cls(tuple(part for weight, noise in parts for part in noise.times(weight**2).parts))


@dataclass(frozen=True)
class Prior:
    """What the rows of a column say about the seed noise of any row.

    variance: of one seed's mean around its row's, worth `dof` degrees of freedom; infinite where the rows are no more
    unequal than chance makes them. rows: how many it rests on. total: their degrees of freedom together, which no
    estimate of any row can exceed.
    """

    variance: float
    dof: float
    rows: int
    total: float

    @classmethod
    def fit(cls, rows: Sequence[SeedNoise], floor: float = 0.0, independent: int | None = None) -> Prior | None:
        """By the moments of the logarithms of the rows' variances (Smyth 2004, section 6.2). None below two rows.

        floor: the least variance that whole numbers of questions can tell from none; logarithms need one. independent: as how
        many rows they count where some repeat others, as all pairs of few rows do.
        """
        count = len(rows) if independent is None else min(independent, len(rows))
        if count < 2:
            return None
        dof = np.array([row.dof for row in rows], dtype=float)
        found = np.array([row.variance for row in rows], dtype=float)
        total, pooled = float(dof.mean()) * count, float((found * dof).sum() / dof.sum())
        least = max(floor, 1e-4 * pooled)
        if least == 0:
            return cls(0.0, math.inf, count, total)
        logs = np.log(np.maximum(found, least)) - special.digamma(dof / 2) + np.log(dof / 2)
        seen = float(np.var(logs, ddof=1))
        chance, tails = (float(special.polygamma(order, dof / 2).mean()) for order in (1, 3))
        error = math.sqrt(2 * seen**2 / (count - 1) + tails / count)
        worth = _inverse_trigamma(seen - chance + CAUTION * error)
        if math.isinf(worth):
            return cls(max(pooled, floor), worth, count, total)
        middle = float(np.mean(logs)) + float(special.digamma(worth / 2)) - math.log(worth / 2)
        return cls(max(math.exp(middle), floor), worth, count, total)

    def moderated(self, own: SeedNoise | None) -> SeedNoise:
        """A row's variance shrunk towards the column's. own: None for a row of one seed, which has no estimate."""
        if own is None:
            return SeedNoise(((self.variance, min(self.dof, self.total)),))
        most = max(self.total, own.dof)
        if math.isinf(self.dof):
            return SeedNoise(((self.variance, most),))
        dof = self.dof + own.dof
        return SeedNoise((((self.dof * self.variance + own.dof * own.variance) / dof, min(dof, most)),))


def _inverse_trigamma(spread: float) -> float:
    """The degrees of freedom d with trigamma(d / 2) = spread; infinite where there is no spread left to explain."""
    if spread <= special.polygamma(1, LARGEST_DOF / 2):
        return math.inf
    return float(2 * optimize.brentq(lambda half: special.polygamma(1, half) - spread, 1e-4, LARGEST_DOF / 2))


def families(parts: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """Name -> number of its family. Names that have a part in common, directly or through others, are of one family."""
    found: list[tuple[list[str], frozenset[str]]] = []
    for name, own in parts.items():
        near = [family for family in found if family[1] & own]
        names = [other for others, _ in near for other in others] + [name]
        found = [family for family in found if family not in near] + [(names, own.union(*(held for _, held in near)))]
    return {name: number for number, (names, _) in enumerate(found) for name in names}


def one_a_family(noises: Mapping[str, SeedNoise], family: Mapping[str, Hashable]) -> list[SeedNoise]:
    """The mean variance of each family. Rows of a family share trainings and repeat each other, so they count as one row:
    right where they repeat each other wholly, and to the safe side where they do so in part."""
    together: dict[Hashable, list[SeedNoise]] = {}
    for name, noise in noises.items():
        together.setdefault(family[name], []).append(noise)
    return [
        SeedNoise(((float(np.mean([one.variance for one in members])), min(one.dof for one in members)),))
        for members in together.values()
    ]
