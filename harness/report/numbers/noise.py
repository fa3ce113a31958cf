"""Seed noise of a column: each row's own variance, moderated by all trainings of the column in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from harness.report.numbers.trainings import Run
from harness.stats import Prior, SeedNoise, families, one_a_family

Means = dict[int, float]
"""Seed -> mean, as a fraction."""


@dataclass(frozen=True)
class ColumnNoise:
    """means: recipe -> seed -> mean under one latents mode; recipes of two seeds or more. trainings: recipe ->
    recipes of its trainings. step: what one question is worth."""

    means: dict[str, Means]
    trainings: dict[str, frozenset[str]]
    step: float

    @classmethod
    def read(cls, runs: Sequence[Run], latents: str, mean: Callable[[Run], float | None], step: float) -> ColumnNoise:
        """mean: of a run's answers; None if they cannot be read."""
        means: dict[str, Means] = {}
        for run in runs:
            if run.latents == latents and (value := mean(run)) is not None:
                means.setdefault(run.recipe, {})[run.seed] = value
        means = {recipe: seeds for recipe, seeds in means.items() if len(seeds) > 1}
        return cls(means, {run.recipe: run.trainings for run in runs if run.recipe in means}, step)

    @property
    def floor(self) -> float:
        """Variance of rounding a mean to whole questions."""
        return self.step**2 / 12

    @cached_property
    def prior(self) -> Prior | None:
        """Of any row of the column. Rows that share a training count as one."""
        own = {recipe: SeedNoise.own(list(seeds.values())) for recipe, seeds in self.means.items()}
        return Prior.fit(one_a_family(own, families(self.trainings)), self.floor)

    def row(self, recipe: str | None) -> SeedNoise | None:
        """Of one seed of a row. recipe: None for one that has no two seeds in the store; then it is the column's."""
        own = SeedNoise.own(list(self.means[recipe].values())) if recipe in self.means else None
        return self.prior.moderated(own) if self.prior else own

    def difference(self, first: str, second: str) -> SeedNoise | None:
        """Of one seed of first minus second. None where the store has no two seeds of one of them.

        Rows that share no training vary independently. Rows that part after the same training, and a row and its
        continuation, do not: what they share cancels, so the variance is that of their differences seed by seed,
        moderated by all pairs of the column that part in the same way.
        """
        if first not in self.means or second not in self.means:
            return None
        kind = self._kind(first, second)
        if kind is None:
            found = [self.row(recipe) for recipe in (first, second)]
            return SeedNoise.combined([(1.0, noise) for noise in found if noise is not None])
        own = self._between(first, second)
        if own is None:
            return None
        prior = self._related.get(kind)
        return prior.moderated(own) if prior else own

    def _kind(self, first: str, second: str) -> tuple[bool, bool] | None:
        """How two rows that share a training diverge: whether each continues training. None if they share none."""
        one, other = self.trainings[first], self.trainings[second]
        shared = one & other
        return (bool(one - shared or other - shared), bool(one - shared and other - shared)) if shared else None

    def _between(self, first: str, second: str) -> SeedNoise | None:
        one, other = self.means[first], self.means[second]
        common = sorted(one.keys() & other.keys())
        return SeedNoise.own([one[seed] - other[seed] for seed in common]) if len(common) > 1 else None

    @cached_property
    def _related(self) -> dict[tuple[bool, bool], Prior | None]:
        """How rows diverge -> what is known about the variance of their differences."""
        pairs: dict[tuple[bool, bool], list[SeedNoise]] = {}
        members: dict[tuple[bool, bool], set[str]] = {}
        for first, second in combinations(sorted(self.means), 2):
            kind = self._kind(first, second)
            if kind is not None and (own := self._between(first, second)) is not None:
                pairs.setdefault(kind, []).append(own)
                members.setdefault(kind, set()).update((first, second))
        return {kind: Prior.fit(found, self.floor, independent=self._degrees(members[kind])) for kind, found in pairs.items()}

    def _degrees(self, rows: set[str]) -> int:
        """Independent differences between rows: of n that share trainings, n - 1."""
        return len(rows) - len(set(families({row: self.trainings[row] for row in sorted(rows)}).values()))


def change(own: ColumnNoise, other: ColumnNoise, recipe: str) -> SeedNoise | None:
    """Of one seed of what another latents mode changes in a row, moderated by what it changes in all rows of the column."""
    found = {
        name: SeedNoise.own([other.means[name][seed] - own.means[name][seed] for seed in common])
        for name in own.means.keys() & other.means.keys()
        if len(common := sorted(own.means[name].keys() & other.means[name].keys())) > 1
    }
    if recipe not in found:
        return None
    family = families({name: own.trainings[name] for name in sorted(found)})
    prior = Prior.fit(one_a_family(dict(sorted(found.items())), family), own.floor)
    return prior.moderated(found[recipe]) if prior else found[recipe]
