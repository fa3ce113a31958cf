"""One cell: the measured value against the reported one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from harness.spec.reported import Reported
from harness.stats import Decision, Estimate, Interval, questions_or_seeds
from harness.verdict.granularity import granularity

DELTA = 2.0
"""Points within which two values count as the same, unless a spec says otherwise."""

APPROXIMATE_SLACK = 2.5
"""Points that "~15" may be off."""


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


@dataclass(frozen=True)
class Verdict:
    """text: one sentence for a reader. difference: interval of measured - reported in points. decision: what would decide."""

    outcome: Outcome
    text: str
    difference: Interval | None = None
    decision: Decision | None = None


def judge(
    measured: Estimate | None,
    reported: Reported | None,
    reported_n: int | None,
    *,
    proxy: bool,
    delta: float = DELTA,
    absent: tuple[Outcome, str] = (Outcome.NOT_RUN, ""),
) -> Verdict:
    """measured: None when there is none, and then `absent` says why. reported_n: questions behind the reported value.

    The interval of the difference holds the item noise of both sides as if their questions were drawn independently
    (wider than the truth when they are the same), our seed noise on both sides, since the reported value is one run, and
    the rounding of the printed number.
    """
    if measured is None:
        outcome, why = absent
        return Verdict(outcome, f"{outcome}: {why}" if why else str(outcome))
    if proxy:
        return Verdict(Outcome.PROXY, "proxy scale: not comparable with the reported value")
    if reported is None or reported.value is None:
        return Verdict(Outcome.NOT_REPORTED, "the paper reports no number here")
    if reported_n and not reported.approximate:
        exact = granularity(reported.value, reported_n)
        if not exact.possible:
            return Verdict(Outcome.IMPOSSIBLE, f"reported value impossible: {exact.text}")
    share = min(1.0, max(0.0, float(reported.value) / 100))
    own_seed = measured.seed_sd**2 if measured.seed_sd is not None else 0.0
    theirs = (share * (1 - share) / reported_n if reported_n else 0.0) + own_seed
    slack = APPROXIMATE_SLACK if reported.approximate else 0.5 * 10.0**-reported.decimals
    difference = measured.mean - share
    half = measured.variance.quantile(0.95) * math.sqrt(measured.variance.total + theirs) + slack / 100
    points = Interval(100 * (difference - half), 100 * (difference + half))
    shown = f"measured - reported = {100 * difference:+.1f} [{points.low:+.1f}, {points.high:+.1f}]"
    if not reported_n:
        shown += "; the reported value's own noise is unknown"
    if points.inside(delta):
        return Verdict(Outcome.CONSISTENT, f"consistent within {delta:g} points: {shown}", points)
    if 0 not in points:
        return Verdict(Outcome.DIFFERS, f"differs: {shown}", points)
    decision = questions_or_seeds(difference, measured.variance, measured.n, margin=delta / 100, fixed=theirs)
    return Verdict(Outcome.UNDETERMINED, f"undetermined: {shown}; would be decided by {decision}", points, decision)
