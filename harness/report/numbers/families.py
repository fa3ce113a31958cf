"""The comparisons that a table declares, tested and corrected together, and all other pairs, which are exploratory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import median

from harness.report.numbers.results import BASE, Results
from harness.spec.benchmark import Protocol
from harness.spec.comparisons import BASE as AGAINST_BASE
from harness.spec.comparisons import MOST_ROWS, Against, Pair, Trend, comparisons_of, trend_weights
from harness.stats import Comparison, Estimate, Family, SeedNoise, smallest_shown

PairName = tuple[str, str, str]
"""(row, row, column): first minus second."""


@dataclass(frozen=True)
class Tested:
    """comparisons: (row, row, column) or (shape, rows, column) -> comparison. family: their p-values, corrected together."""

    pairs: dict[PairName, Comparison]
    trends: dict[tuple[Trend, str], Comparison]

    @cached_property
    def family(self) -> Family:
        return Family({**{name: c.p for name, c in self.pairs.items()}, **{name: c.p for name, c in self.trends.items()}})

    @property
    def size(self) -> int:
        return len(self.pairs) + len(self.trends)


def base_row(results: Results) -> str | None:
    """The label under which the base model is measured, if it is: a row without stages, or the plan's own evaluation."""
    for label, arm in results.arms.items():
        if arm.row.stages == ():
            return label
    return BASE if results.study.base else None


def declared_pairs(results: Results) -> list[tuple[str, str]]:
    """Each once, first minus second, in the order of the table's comparisons. Rows that are not here are left out."""
    return results.once(("declared pairs",), lambda: _declared_pairs(results))


def _declared_pairs(results: Results) -> list[tuple[str, str]]:
    rows = [label for label, arm in results.arms.items() if arm.row.delta is None]
    found: dict[tuple[str, str], None] = {}
    for comparison in comparisons_of(results.study.experiment):
        if isinstance(comparison, Pair):
            named = [tuple(comparison.pair)]
        elif isinstance(comparison, Against):
            whom = comparison.against
            if whom == AGAINST_BASE and whom not in results.arms:
                whom = base_row(results) or ""
            named = [(row, whom) for row in comparison.rows or rows]
        else:
            named = []
        for first, second in named:
            known = all(row in results.arms or row == BASE == base_row(results) for row in (first, second))
            if known and first != second and (second, first) not in found:
                found[first, second] = None
    return list(found)


def declared(results: Results, protocol: Protocol = "paper") -> Tested:
    """The declared comparisons for which there are results. Rows that are the same run form no pair."""
    return results.once(("declared", protocol), lambda: _declared(results, protocol))


def _declared(results: Results, protocol: Protocol) -> Tested:
    pairs: dict[PairName, Comparison] = {}
    trends: dict[tuple[Trend, str], Comparison] = {}
    for column in results.columns:
        for first, second in declared_pairs(results):
            comparison = results.pair(first, second, column, protocol)
            if comparison is not None and not results.same_run(first, second, column, protocol):
                pairs[first, second, column] = comparison
        for trend in comparisons_of(results.study.experiment):
            if isinstance(trend, Trend) and (found := trend_of(results, trend, column, protocol)) is not None:
                trends[trend, column] = found
    return Tested(pairs, trends)


def trend_of(results: Results, trend: Trend, column: str, protocol: Protocol = "paper") -> Comparison | None:
    """One contrast over the rows along their axis. None where a row has no value."""
    if any(row not in results.arms for row in trend.trend):
        return None
    plot = results.study.experiment.plot
    places = [results.arms[row].row.x or 0.0 for row in trend.trend]
    along = tuple(math.log(x) if plot is not None and plot.log and x > 0 else x for x in places)
    weights = dict(zip(trend.trend, trend_weights(along, trend.shape), strict=True))
    return results.contrast(weights, column, protocol)


def exploratory(results: Results, protocol: Protocol = "paper") -> dict[PairName, Comparison]:
    """All other pairs of rows on the same questions; none where there are too many (`uncompared`)."""
    if uncompared(results, protocol):
        return {}
    return results.once(("exploratory", protocol), lambda: _exploratory(results, protocol))


def uncompared(results: Results, protocol: Protocol = "paper") -> int:
    """How many rows are measured, where they are too many to compare each with each other; else 0."""
    rows = {row for column in results.columns for row in results.measured_rows(column, protocol)}
    return len(rows) if len(rows) > MOST_ROWS else 0


def _exploratory(results: Results, protocol: Protocol) -> dict[PairName, Comparison]:
    known = {frozenset(pair) for pair in declared_pairs(results)}
    return {
        (second, first, column): comparison
        for column in results.columns
        for first, second in combinations(results.measured_rows(column, protocol), 2)
        if frozenset((first, second)) not in known
        and not results.same_run(first, second, column, protocol)
        and (comparison := results.pair(second, first, column, protocol)) is not None
    }


def one_seed(results: Results) -> bool:
    """Whether every compared row was trained with one seed only."""
    tested = declared(results)
    found: list[Comparison] | list[Estimate] = [*tested.pairs.values(), *tested.trends.values()] or list(exploratory(results).values())
    if not found and uncompared(results):
        found = [e for row in results.arms for column in results.columns if (e := results.estimate(row, column)) is not None]
    return {one.seeds for one in found} == {1}


@dataclass(frozen=True)
class Reach:
    """The smallest difference that a column's comparisons would show four times in five, in points. recipes: between recipes,
    where one seed alone compares two checkpoints; None where it is unknown how far seeds lie apart."""

    shown: float
    recipes: float | None


def reach(results: Results, column: str, tested: Tested, protocol: Protocol = "paper") -> Reach | None:
    """Of the column's median declared pair."""
    found: list[float] = []
    recipes: list[float] = []
    for (first, second, name), comparison in tested.pairs.items():
        if name != column:
            continue
        found.append(100 * smallest_shown(comparison.variance, tested.size))
        parts = [results.seed_noise(row, column, protocol) for row in (first, second) if row in results.arms]
        known = [part for part in parts if part is not None]
        trained = sum(bool(results.arms[row].row.stages) for row in (first, second) if row in results.arms)
        if comparison.seeds == 1 and known and len(known) == trained:
            noise = SeedNoise.combined([(1.0, part) for part in known])
            recipes.append(100 * smallest_shown(comparison.variance, tested.size, noise=noise))
    if not found:
        return None
    return Reach(median(found), median(recipes) if recipes else None)
