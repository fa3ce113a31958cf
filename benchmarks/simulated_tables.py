"""Simulated tables whose truth is known: how often the statistics err, what they find, how verdicts fall out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from harness.spec.reported import Reported
from harness.stats import Answers, Comparison, Prior, SeedNoise, compare, estimate, smallest_shown
from harness.verdict import Outcome, judge

Seed = int | Sequence[int]
"""What NumPy's default_rng takes."""


@dataclass(frozen=True)
class World:
    """Rows of models that mostly agree on a question, as trainings from one base do.

    noise: how unequal the rows' seed noise is. "equal"; "unequal": variances scaled by inverse chi squares with 4 degrees of
    freedom, which puts the middle 90 % of standard deviations within a factor of 3.6; "very unequal": with 2, a factor of
    7.6; "two kinds": every second row ten times as noisy, which no smooth prior fits. sd: of seeds, in points, typically.
    turning: share of answers drawn anew in every run; own: share drawn anew by every row and kept by its seeds.
    """

    noise: str = "equal"
    rows: int = 12
    seeds: int = 3
    n: int = 800
    sd: float = 2.0
    turning: float = 0.1
    own: float = 0.15
    per_image: int = 2
    mean: float = 0.65

    def sds(self, random: np.random.Generator) -> np.ndarray:
        """[rows] fractions."""
        typical = self.sd / 100
        match self.noise:
            case "equal":
                return np.full(self.rows, typical)
            case "two kinds":
                return typical * np.where(np.arange(self.rows) % 2 == 0, 0.2, 2.0)
        dof = {"unequal": 4, "very unequal": 2}[self.noise]
        return np.minimum(typical * np.sqrt(dof / random.chisquare(dof, self.rows)), 0.08)

    def draw(self, random: np.random.Generator, lift: float = 0.0) -> np.ndarray:
        """[rows, seeds, n] answers, right or wrong. lift: by how much the first row is truly better, as a fraction."""
        hard = random.random((self.n + self.per_image - 1) // self.per_image).repeat(self.per_image)[: self.n]
        shape = (self.rows, self.seeds, self.n)
        by_row = np.where(random.random((self.rows, 1, self.n)) < self.own, random.random((self.rows, 1, self.n)), hard)
        draws = np.where(random.random(shape) < self.turning, random.random(shape), by_row)
        shift = np.clip(random.normal(size=(self.rows, self.seeds, 1)), -3, 3) * self.sds(random)[:, None, None]
        level = np.full((self.rows, 1, 1), self.mean)
        level[0] += lift
        return (draws < level + shift).astype(float)

    def answers(self, values: np.ndarray) -> list[list[Answers]]:
        """Rows of seeds."""
        ids = tuple(range(self.n))
        images = tuple(question // self.per_image for question in ids)
        return [[Answers(ids, images, run) for run in row] for row in values]


def moderated(world: World, values: np.ndarray) -> list[SeedNoise]:
    """Each row's seed noise as a report estimates it, from all rows."""
    own = [SeedNoise.own(list(row.mean(axis=1))) for row in values]
    prior = Prior.fit(own, 1 / (12 * world.n**2))
    assert prior is not None
    return [prior.moderated(one) for one in own]


def tested(world: World, random: np.random.Generator, pairs: Sequence[tuple[int, int]], lift: float = 0.0) -> list[Comparison]:
    """Pairs of rows of one drawn table, compared as a report compares them."""
    values = world.draw(random, lift)
    rows, noise = world.answers(values), moderated(world, values)
    return [compare(rows[i], rows[j], noise=SeedNoise.combined([(1, noise[i]), (-1, noise[j])])) for i, j in pairs]


def size(world: World, repetitions: int, seed: Seed = 1) -> tuple[float, float]:
    """(share of equal pairs told apart at p <= 0.05, share of intervals that hold the truth)."""
    random = np.random.default_rng(seed)
    found = [c for _ in range(repetitions) for c in tested(world, random, ((0, 1), (2, 4), (3, 5)))]
    return float(np.mean([c.p <= 0.05 for c in found])), float(np.mean([0 in c.interval for c in found]))


def power(world: World, repetitions: int, seed: Seed = 2) -> tuple[float, float, dict[float, float]]:
    """(difference that the report calls the smallest it would show, how often that is shown, by true points: how often)."""
    random = np.random.default_rng(seed)
    stated = float(np.median([smallest_shown(c.variance) for _ in range(50) for c in tested(world, random, ((0, 1),))]))
    rates = {
        points: float(np.mean([tested(world, random, ((0, 1),), points / 100)[0].p <= 0.05 for _ in range(repetitions)]))
        for points in (2.0, 5.0, 10.0, 100 * stated)
    }
    return 100 * stated, rates.pop(100 * stated), rates


def verdicts(world: World, repetitions: int, apart: float = 0.0, seed: Seed = 3, borrowed: bool = False) -> dict[Outcome, float]:
    """Outcome -> how often, of the first row against one run of a model that is `apart` points better in truth, on the same
    questions. borrowed: the first row has one seed, the others have what the world says."""
    random, found = np.random.default_rng(seed), dict.fromkeys(Outcome, 0)
    for _ in range(repetitions):
        # One seed more of every row: the first row's is the paper's run.
        larger = replace(world, seeds=world.seeds + 1)
        values = larger.draw(random)
        paper = values[0, -1]
        if apart:
            wrong = np.flatnonzero(paper == 0)
            paper[random.permutation(wrong)[: round(apart / 100 * world.n)]] = 1
        ours = values[:, :-1]
        share = Decimal(round(1e6 * float(paper.mean()))).scaleb(-4)
        printed = Reported(text=f"{share}", value=share)
        if borrowed:
            one = world.answers(ours[:1, :1])[0]
            prior = Prior.fit([SeedNoise.own(list(row.mean(axis=1))) for row in ours[1:]], 1 / (12 * world.n**2))
            assert prior is not None
            verdict = judge(estimate(one), printed, world.n, proxy=False, noise=prior.moderated(None))
        else:
            value = estimate(world.answers(ours[:1])[0], noise=moderated(world, ours)[0])
            verdict = judge(value, printed, world.n, proxy=False)
        found[verdict.outcome] += 1
    return {outcome: count / repetitions for outcome, count in found.items() if count}


def section(seed: int, share: float = 1.0) -> str:
    """The section of statistics.md on tests."""
    repetitions = max(round(600 * share), 10)
    lines = [
        "Tables of twelve rows whose true accuracies are equal; 800 questions, two per image. Each run draws 10 % of its answers anew,",
        "each row another 15 %; the standard deviation between seeds is typically 2 points. Size: how often p ≤ 0.05 for two of",
        "the rows (target: 3 to 6 %). Unequal: variances scaled by inverse chi squares (4 degrees of freedom; very unequal: 2). Two",
        "kinds: every second row is ten times as noisy, which no smooth prior fits: a stress test, without a target.",
        "",
        "| Noise | Seeds | Size | 95 % interval contains the true value |",
        "| :--- | ---: | ---: | ---: |",
    ]
    sizes = []
    for kind, noise in enumerate(("equal", "unequal", "very unequal", "two kinds")):
        for seeds in (2, 3, 5):
            wrong, held = size(World(noise, seeds=seeds), repetitions, (seed, 1, kind, seeds))
            sizes += [wrong] if noise != "two kinds" else []
            lines.append(f"| {noise} | {seeds} | {100 * wrong:.1f} % | {100 * held:.1f} % |")
    error = 200 * (0.05 * 0.95 / (3 * repetitions)) ** 0.5
    lines += ["", f"Two standard errors of a 5 % size are {error:.1f} points here. {kept(sizes, 0.03, 0.06, 'sizes')}", ""]
    lines += [
        "Power: how often a true difference is shown (p ≤ 0.05, one test). The stated gap is the smallest difference that, according to",
        "the report, it would show four times in five; the last column is how often it really does.",
        "",
        "| Noise | Seeds | True gap 2 points | 5 points | 10 points | Stated gap | Stated gap shown in |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    shown = []
    for kind, noise in enumerate(("equal", "unequal")):
        for seeds in (2, 3, 5):
            stated, rate, rates = power(World(noise, seeds=seeds), max(repetitions // 2, 10), (seed, 2, kind, seeds))
            found = " | ".join(f"{100 * rates[points]:.0f} %" for points in (2.0, 5.0, 10.0))
            lines.append(f"| {noise} | {seeds} | {found} | {stated:.1f} points | {100 * rate:.0f} % |")
            shown.append(rate)
    lines += ["", f"The stated difference is shown in {100 * np.mean(shown):.0f} % of all these tables; the target is 80 %."]
    return "\n".join(lines) + "\n"


def kept(rates: Sequence[float], least: float, most: float, what: str) -> str:
    """How many rates meet the target, as a sentence."""
    inside = sum(least <= rate <= most for rate in rates)
    bar = f"{100 * least:.0f} to {100 * most:.0f} %" if least else f"at most {100 * most:.0f} %"
    return f"Target ({bar}): met by {inside} of {len(rates)} {what}, which lie between {100 * min(rates):.1f} and {100 * max(rates):.1f} %."


def verdict_section(seed: int, share: float = 1.0) -> str:
    """The section of statistics.md on verdicts against a reported value."""
    repetitions = max(round(1000 * share), 10)
    lines = [
        "A row of three seeds (or of one, with seed noise taken from eleven other rows) is compared with one run of the same model, or of a",
        "model that is 6 points better, on the same questions; δ = 2. Redrawn: share of answers that each run draws anew. Targets:",
        '"consistent" in at least 80 % for equal models where questions and noise allow it, "differs" in at most 5 %.',
        "",
        "| Questions | Redrawn | Further sd between runs, points | Equal: consistent | Equal: differs | Equal, one seed: consistent | Equal, one seed: differs | 6 points apart: differs |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    false = []
    for n in (300, 800, 1919):
        for number, (turning, sd) in enumerate(((0.05, 0.0), (0.1, 0.0), (0.1, 0.5), (0.1, 2.0))):
            world, drawn = World(n=n, turning=turning, sd=sd), (seed, 3, n, number)
            equal, one = verdicts(world, repetitions, seed=(*drawn, 0)), verdicts(world, repetitions, seed=(*drawn, 1), borrowed=True)
            apart = verdicts(world, max(repetitions // 4, 10), apart=6.0, seed=(*drawn, 2))
            rates = [equal.get(Outcome.CONSISTENT, 0), equal.get(Outcome.DIFFERS, 0), one.get(Outcome.CONSISTENT, 0)]
            rates += [one.get(Outcome.DIFFERS, 0), apart.get(Outcome.DIFFERS, 0)]
            false += [rates[1], rates[3]]
            lines.append(f"| {n} | {100 * turning:.0f} % | {sd:g} | " + " | ".join(f"{100 * rate:.1f} %" for rate in rates) + " |")
    return "\n".join([*lines, "", kept(false, 0, 0.05, 'rates of a false "differs"')]) + "\n"
