"""Two rows on the same questions: the difference, its interval, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    p: of the test named in `test`. p_mcnemar: exact, one seed only; ignores shared images.
    """

    difference: float
    interval: Interval
    p: float
    test: str
    n: int
    clusters: int
    seeds: tuple[int, int]
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


def compare(
    first: Sequence[Answers] | Answers,
    second: Sequence[Answers] | Answers,
    level: float = 0.95,
    noise: SeedNoise | None = None,
) -> Comparison:
    """Paired by question, and by seed where both have the same number of them (give them in the order of their seeds).

    noise: the seed noise of such differences, from a table's rows (`SeedNoise.of_differences`).

    One seed each: a cluster sign-flip test, about these two trained models only. Several: a t-test on the two-way
    variance, about the two recipes. Raises UnmatchedIds when the questions differ.
    """
    a = [first] if isinstance(first, Answers) else list(first)
    b = [second] if isinstance(second, Answers) else list(second)
    values = align([*a, *b])
    ours, theirs, index = values[: len(a)], values[len(a) :], a[0].cluster_index
    n = ours.shape[1]
    if len(a) == len(b):
        variance = two_way_variance(ours - theirs, index).pooled(noise)
    else:
        variance = _unpaired_seeds(ours, theirs, index)
    difference = float(ours.mean() - theirs.mean())
    # A sample without any discordant question is no proof that there are none: at least one gained and one lost.
    floor = 2.0 / (n * variance.clusters)
    variance = replace(variance, item=max(variance.item, floor))
    half = variance.quantile(level) * math.sqrt(variance.total)
    interval = Interval(max(-1.0, difference - half), min(1.0, difference + half), level)
    if len(a) == len(b):
        gained, lost = int(((ours - theirs) > 0).sum()), int(((ours - theirs) < 0).sum())
    else:
        shift = ours.mean(axis=0) - theirs.mean(axis=0)
        gained, lost = int((shift > 0).sum()), int((shift < 0).sum())
    if len(a) == len(b) == 1:
        totals = np.bincount(index, weights=ours[0] - theirs[0], minlength=variance.clusters)
        p, test, exact = sign_flip(totals), "sign flip by cluster", mcnemar_exact(gained, lost)
    else:
        p, test, exact = variance.p_value(difference), "t over seeds and clusters", None
    return Comparison(
        difference, interval, p, test, n, variance.clusters, (len(a), len(b)), gained, lost, variance, exact
    )


def _unpaired_seeds(ours: np.ndarray, theirs: np.ndarray, index: np.ndarray) -> Variance:
    """Rows with different numbers of seeds: item noise of the mean difference, seed noise of each side added."""
    item = two_way_variance((ours.mean(axis=0) - theirs.mean(axis=0))[None], index)
    parts = [(side.mean(axis=1).var(ddof=1) / len(side), len(side)) for side in (ours, theirs) if len(side) > 1]
    # A side with one seed borrows the other side's seed noise: unknown is not zero.
    if len(parts) == 1:
        variance, count = parts[0]
        parts.append((variance * count, count))
    seed = float(sum(part for part, _ in parts))
    dof = seed**2 / sum(part**2 / (count - 1) for part, count in parts) if seed else min(c for _, c in parts) - 1
    return Variance(item.item, seed, 0.0, item.clusters, max(2, math.floor(dof) + 1))
