"""Two rows on the same questions: the difference, its interval, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from harness.stats.answers import Answers, align
from harness.stats.intervals import Interval, Variance, two_way_variance
from harness.stats.seeds import SeedNoise

FLIPS = 10_000
"""Random sign flips of a permutation test; its p-values are multiples of about 1e-4."""


@dataclass(frozen=True)
class Comparison:
    """first minus second, both as means over the same questions.

    gained, lost: questions only the first, only the second answered right (with several seeds: summed over seeds).
    seeds: how many trainings of each row.
    p: of the test named in `test`. p_mcnemar: exact, one seed only; ignores shared images.
    """

    difference: float
    interval: Interval
    p: float
    test: str
    n: int
    clusters: int
    seeds: int
    gained: int
    lost: int
    variance: Variance
    p_mcnemar: float | None = None

    @property
    def separates(self) -> bool:
        return 0 not in self.interval


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: the discordant questions are coin tosses under the null hypothesis."""
    total = gained + lost
    if total == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), total, 0.5)))


def sign_flip(totals: np.ndarray, flips: int = FLIPS, seed: int = 0) -> float:
    """Two-sided p of the sum of `totals` ([clusters] differences), signs flipped cluster by cluster.

    Exact for whole numbers (one seed: questions gained minus lost in an image) and for at most 14 differing clusters;
    otherwise `flips` random ones under a fixed seed, counted with the observed one.
    """
    moving = totals[totals != 0]
    observed = abs(float(moving.sum()))
    if len(moving) == 0:
        return 1.0
    if np.array_equal(moving, np.round(moving)):
        return _whole_number_flips(np.abs(moving).astype(int), observed)
    if len(moving) <= 14:
        bits = (np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving))) & 1
        return float((np.abs((bits * 2 - 1) @ moving) >= observed - 1e-9).mean())
    random = np.random.default_rng(seed)
    extreme = done = 0
    while done < flips:
        batch = min(1000, flips - done)
        signs = random.integers(0, 2, size=(batch, len(moving)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moving) >= observed - 1e-9).sum())
        done += batch
    return (extreme + 1) / (flips + 1)


def _whole_number_flips(sizes: np.ndarray, observed: float) -> float:
    """The exact distribution of the sum of +-sizes, convolved from one binomial for each distinct size."""
    distribution = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True)):
        steps = np.arange(count + 1)
        part = np.zeros(2 * size * count + 1)
        part[2 * size * steps] = special.binom(count, steps) * 0.5**count if count <= 1000 else _binomial(steps, count)
        distribution = np.convolve(distribution, part)
    reach = len(distribution) // 2
    sums = np.arange(-reach, reach + 1)
    return min(1.0, float(distribution[np.abs(sums) >= observed - 1e-9].sum()))


def _binomial(steps: np.ndarray, count: int) -> np.ndarray:
    """P(steps of count) at one half, by logarithms, where the coefficients overflow."""
    logs = special.gammaln(count + 1) - special.gammaln(steps + 1) - special.gammaln(count - steps + 1)
    return np.exp(logs - count * math.log(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values after Holm (1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


@dataclass(frozen=True)
class Family:
    """Tests that are corrected together. raw: name -> uncorrected p."""

    raw: Mapping[Any, float]

    @cached_property
    def adjusted(self) -> dict[Any, float]:
        """Name -> p after Holm over all of them."""
        return dict(zip(self.raw, holm(list(self.raw.values())), strict=True))

    def with_p(self, name: Hashable, p: float) -> float:
        """p corrected as if it were this test's, for instance the p of a margin where the test is of a difference."""
        return Family({**self.raw, name: p}).adjusted[name]


def compare(
    first: Sequence[Answers] | Answers,
    second: Sequence[Answers] | Answers,
    level: float = 0.95,
    noise: SeedNoise | None = None,
    *,
    share: bool = True,
) -> Comparison:
    """first minus second, paired by question, and by seed: give both the same seeds in the same order."""
    a = [first] if isinstance(first, Answers) else list(first)
    b = [second] if isinstance(second, Answers) else list(second)
    return contrast([(1.0, a), (-1.0, b)], level, noise, share=share)


def contrast(
    rows: Sequence[tuple[float, Sequence[Answers]]], level: float = 0.95, noise: SeedNoise | None = None, *, share: bool = True
) -> Comparison:
    """The weighted sum of several rows' means; weights sum to 0. Every row holds the same seeds in the same order.

    noise: variance between seeds of one seed's sum (`SeedNoise.combined`); left out, what these seeds show by themselves.
    share: whether the values are shares of right answers, between which a difference lies within 1, and of which a sample that
    holds no discordant question is no proof that there are none.

    One seed each: a cluster sign-flip test, about these trained models only. Several: a t-test on the two-way variance,
    about the recipes. Raises UnmatchedIds when the questions differ.
    """
    seeds = len(rows[0][1])
    if any(len(runs) != seeds for _, runs in rows):
        raise ValueError(f"rows of {' and '.join(str(len(runs)) for _, runs in rows)} seeds; give those that all of them have")
    values = align([run for _, runs in rows for run in runs]).reshape(len(rows), seeds, -1)
    index = rows[0][1][0].cluster_index
    combined = np.tensordot(np.array([weight for weight, _ in rows]), values, axes=1)
    n, difference = combined.shape[1], float(sum(weight * row.mean() for (weight, _), row in zip(rows, values)))
    variance = two_way_variance(combined, index).with_noise(noise)
    if share:  # at least one question gained and one lost
        variance = replace(variance, item=max(variance.item, 2.0 / (n * variance.clusters)))
    half = variance.quantile(level) * math.sqrt(variance.total)
    most = 1.0 if share else math.inf
    interval = Interval(max(-most, difference - half), min(most, difference + half), level)
    gained, lost = int((combined > 0).sum()), int((combined < 0).sum())
    if seeds == 1:
        totals = np.bincount(index, weights=combined[0], minlength=variance.clusters)
        p, test = sign_flip(totals), "sign flip by cluster"
        exact = mcnemar_exact(gained, lost) if len(rows) == 2 and share else None
    else:
        p, test, exact = variance.p_value(difference), "t over seeds and clusters", None
    return Comparison(difference, interval, p, test, n, variance.clusters, seeds, gained, lost, variance, exact)
