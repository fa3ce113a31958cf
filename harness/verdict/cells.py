"""One cell: the measured value against the reported one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.spec.reported import Reported
from harness.stats import Decision, Estimate, Interval, questions_or_seeds
from harness.stats.intervals import Variance
from harness.verdict.granularity import granularity

DELTA = 2.0
"""Points within which two values count as the same, unless a spec says otherwise."""

APPROXIMATE_SLACK = 2.5
"""Points that "~15" may be off."""

ONE_SEED = "one seed: seed noise is unknown and not counted"


class Outcome(StrEnum):
    """What a cell may say about the reported value."""

    DIFFERS = "differs"
    CONSISTENT = "consistent"
    UNDETERMINED = "undetermined"
    IMPOSSIBLE = "reported value impossible"
    NOT_REPORTED = "not reported"
    NOT_RUN = "not run"
    NOT_DEFINED = "not defined"
    FAILED = "failed"
    PROXY = "proxy"
    PART = "part of the benchmark"


@dataclass(frozen=True)
class Verdict:
    """text: one sentence for a reader. difference: interval of measured - reported in points. decision: what would decide.

    one_seed: the interval leaves seed noise out, because a single training cannot show it; the outcome is then about this
    training, and less certain about its recipe than the interval says.
    """

    outcome: Outcome
    text: str
    difference: Interval | None = None
    decision: Decision | None = None
    one_seed: bool = False

    @property
    def label(self) -> str:
        """The outcome for a narrow place, with its reservation."""
        return f"{self.outcome}, one seed" if self.one_seed else str(self.outcome)


def judge(
    measured: Estimate | None,
    reported: Reported | None,
    reported_n: int | None,
    *,
    proxy: bool,
    delta: float = DELTA,
    trained: bool = True,
    absent: tuple[Outcome, str] = (Outcome.NOT_RUN, ""),
    part: str = "",
) -> Verdict:
    """part: "14 of 300 questions", where the data set is not the whole benchmark; "" where it is. measured: None when there is none, and then `absent` says why. reported_n: questions behind the reported value.

    The interval of the difference holds the item noise of both sides as if their questions were drawn independently
    (wider than the truth when they are the same), our seed noise on both sides, since the reported value is one run, and
    the rounding of the printed number. With one seed our seed noise is unknown, and the verdict says that it is not in
    there; trained: False for a model that is not trained here, which has none.
    """
    if measured is None:
        outcome, why = absent
        return Verdict(outcome, f"{outcome}: {why}" if why else str(outcome))
    if proxy:
        return Verdict(Outcome.PROXY, "proxy scale: not comparable with the reported value")
    if part:
        return Verdict(Outcome.PART, f"{Outcome.PART}: {part}; not comparable with the reported value")
    if reported is None or reported.value is None:
        return Verdict(Outcome.NOT_REPORTED, "the paper reports no number here")
    if reported_n and not reported.approximate:
        exact = granularity(reported.value, reported_n)
        if not exact.possible:
            return Verdict(Outcome.IMPOSSIBLE, f"reported value impossible: {exact.text}")
    share = min(1.0, max(0.0, float(reported.value) / 100))
    theirs = share * (1 - share) / reported_n if reported_n else 0.0
    noise = both_sides(measured, theirs)
    slack = APPROXIMATE_SLACK if reported.approximate else 0.5 * 10.0**-reported.decimals
    difference = measured.mean - share
    half = noise.quantile(0.95) * math.sqrt(noise.total) + slack / 100
    points = Interval(100 * (difference - half), 100 * (difference + half))
    shown = f"measured - reported = {100 * difference:+.1f} [{points.low:+.1f}, {points.high:+.1f}]"
    if not reported_n:
        shown += "; the reported value's own noise is unknown"
    one_seed = trained and measured.seed_sd is None
    end = f"; {ONE_SEED}" if one_seed else ""
    if points.inside(delta):
        text = f"consistent within {delta:g} points: {shown}{end}"
        return Verdict(Outcome.CONSISTENT, text, points, one_seed=one_seed)
    if 0 not in points:
        return Verdict(Outcome.DIFFERS, f"differs: {shown}{end}", points, one_seed=one_seed)
    fixed = noise.total - measured.variance.total
    decision = questions_or_seeds(difference, measured.variance, measured.n, margin=delta / 100, fixed=fixed)
    text = f"undetermined: {shown}; would be decided by {decision}{end}"
    return Verdict(Outcome.UNDETERMINED, text, points, decision, one_seed)


def both_sides(measured: Estimate, theirs: float) -> Variance:
    """Variance of measured - reported. theirs: item variance of the reported value, whose one run has our seed noise too."""
    ours = measured.variance
    seed = None if ours.seed is None else ours.seed * (1 + ours.seeds)
    return replace(ours, item=ours.item + theirs, seed=seed)
