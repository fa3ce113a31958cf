"""How much more would have to be asked, or trained, before an open comparison is decided."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.stats.intervals import Variance, normal_quantile

POWER = 0.8
MOST_QUESTIONS = 1_000_000
MOST_SEEDS = 100


@dataclass(frozen=True)
class Decision:
    """questions, seeds: the totals that would decide, the other held fixed; None where no feasible number would.

    target: what would then be shown: "differs" or "consistent". note: what the numbers assume.
    """

    target: str
    questions: int | None
    seeds: int | None
    note: str

    def __str__(self) -> str:
        ways = []
        if self.questions is not None:
            ways.append(f"{self.questions:,} questions")
        if self.seeds is not None:
            ways.append(f"{self.seeds} seeds")
        if not ways:
            return f"undecidable by more questions or seeds alone ({self.note})"
        return f"about {' or '.join(ways)} ({self.note})"


def questions_or_seeds(
    difference: float,
    variance: Variance,
    n: int,
    *,
    margin: float | None = None,
    fixed: float = 0.0,
    power: float = POWER,
    level: float = 0.95,
) -> Decision:
    """What decides a comparison if the true difference is the one seen.

    n: questions asked. margin: also accept a proof that the difference lies inside +-margin. fixed: variance that nothing
    on our side can lower (the other side's item noise). A decision is expected with probability `power`.
    """
    targets = [("differs", abs(difference))]
    if margin is not None and abs(difference) < margin:
        targets.append(("consistent", margin - abs(difference)))
    target, room = max(targets, key=lambda pair: pair[1])
    between = 0.0 if variance.seed is None else max(variance.seed - variance.residual, 0.0)
    note = "if the difference is as seen"
    if variance.seed is None:
        note += "; seed noise unknown with one seed"
    if room <= 0:
        return Decision(target, None, None, "no difference seen")
    needed = (room / (variance.quantile(level) + normal_quantile(2 * power - 1))) ** 2
    if needed <= fixed:
        return Decision(target, None, None, "the reported value's own noise is already too wide")
    spare = needed - fixed - between
    questions = None
    if spare > 0:
        questions = max(n + 1, math.ceil(n * variance.item / spare))
        questions = questions if questions <= MOST_QUESTIONS else None
    return Decision(target, questions, _seeds(room, variance, fixed, power, level), note)


def _seeds(room: float, variance: Variance, fixed: float, power: float, level: float) -> int | None:
    """The smallest number of seeds, the questions held fixed; None with one seed (its noise is unknown) or beyond reach."""
    if variance.seed is None:
        return None
    items = max(variance.total - variance.seed, 0.0)
    single = variance.seed * variance.seeds
    for seeds in range(variance.seeds + 1, MOST_SEEDS + 1):
        dof = (variance.seed_dof or variance.seeds - 1) * (seeds - 1) // (variance.seeds - 1)
        planned = Variance(items, single / seeds, 0.0, variance.clusters, seeds, dof)
        quantile = planned.quantile(level) + normal_quantile(2 * power - 1)
        if quantile**2 * (planned.total + fixed) <= room**2:
            return seeds
    return None
