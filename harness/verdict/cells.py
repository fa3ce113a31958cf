"""One cell: the measured value against the reported one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from harness.spec.reported import Reported
from harness.stats import Comparison, Estimate, Interval, SeedNoise
from harness.stats.intervals import Variance, normal_quantile
from harness.verdict.granularity import MOST_RUNS, Granularity, granularity

DELTA = 2.0
"""Equivalence margin in points, unless a spec says otherwise."""

APPROXIMATE_SLACK = 2.5
"""Tolerance in points of a value printed as "~15"."""

DIFFERS_LEVEL, CONSISTENT_LEVEL = 0.98, 0.90
"""Nominal levels of the intervals behind "differs" and "consistent". A variance that is itself estimated from few seeds makes
98 % nominal hold at least 95 % of the truth (`benchmarks/statistics.md`); 90 % is two one-sided tests at 5 %."""


class Outcome(StrEnum):
    """What a cell may say about the reported value."""

    DIFFERS = "differs"
    CONSISTENT = "consistent"
    UNDETERMINED = "undetermined"
    NOT_ONE_RUN = "reported value not from one run"
    NOT_REPORTED = "not reported"
    NOT_RUN = "not run"
    NOT_DEFINED = "not defined"
    FAILED = "failed"
    PROXY = "proxy"
    PART = "part of the benchmark"


@dataclass(frozen=True)
class Verdict:
    """text: one sentence for a reader. difference: interval of measured - reported in points.

    borrowed: a single training cannot show its own seed noise, so another's stands in for it.
    """

    outcome: Outcome
    text: str
    difference: Interval | None = None
    borrowed: bool = False

    @property
    def label(self) -> str:
        """The outcome in a few words, with its caveat."""
        return f"{self.outcome}, one seed" if self.borrowed else str(self.outcome)


def judge(
    measured: Estimate | None,
    reported: Reported | None,
    reported_n: int | None,
    *,
    proxy: bool,
    delta: float = DELTA,
    trained: bool = True,
    noise: SeedNoise | None = None,
    source: str = "",
    absent: tuple[Outcome, str] = (Outcome.NOT_RUN, ""),
    part: str = "",
    counted: bool = True,
) -> Verdict:
    """measured: None when there is none, and then `absent` says why. reported_n: questions behind the reported value.
    noise: between seeds of one training, for a row that has a single one; source: whose it is. trained: False for a model that
    is not trained here, which has no seeds. part: "14 of 300 questions", where the data set is not the whole benchmark.
    counted: whether the value is a count of right answers over its questions.

    consistent: the 90 % interval of measured - reported lies within delta (two one-sided tests at 5 %). differs: the
    interval excludes 0. The reported value is one more run of the recipe, with the same noise. Where both sides answered
    the same questions, these add nothing: only the answers that turn from one run to the next do, and what moves a whole run.
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
    if counted and reported_n and not reported.approximate:
        exact = granularity(reported.value, reported_n)
        if not exact.possible:
            return Verdict(Outcome.NOT_ONE_RUN, _not_one_run(exact))
    share = min(1.0, max(0.0, float(reported.value) / 100))
    difference = measured.mean - share
    slack = (APPROXIMATE_SLACK if reported.approximate else 0.5 * 10.0**-reported.decimals) / 100
    shown = f"measured - reported = {100 * difference:+.1f}"
    same = reported_n == measured.n
    if not trained and same:
        return _untrained(difference, slack, measured, share, delta, shown)
    spread = run_to_run(measured, noise) if trained else None
    if trained and spread is None:
        return Verdict(
            Outcome.UNDETERMINED,
            f"undetermined: {shown}; one seed, and nothing says how far another would lie from it: neither other rows with "
            "several seeds nor a spread that the paper states",
        )
    other = None if same else share * (1 - share) / (reported_n or measured.n)
    narrow, wide = (width + slack for width in _half_widths(measured, spread, other))
    points = Interval(100 * (difference - wide), 100 * (difference + wide))
    shown += f" [{points.low:+.1f}, {points.high:+.1f}]"
    if not reported_n:
        shown += "; how many questions the reported value rests on is unknown"
    elif not same and trained:
        shown += f"; on {measured.n:,} questions here and {reported_n:,} there"
    borrowed = trained and measured.seed_sd is None
    end = f"; one seed, with the seed noise of {source or 'other rows'}" if borrowed else ""
    if abs(difference) + narrow <= delta / 100:
        text = f"consistent within {delta:g} points: {shown}{end}"
        return Verdict(Outcome.CONSISTENT, text, points, borrowed)
    if 0 not in points:
        return Verdict(Outcome.DIFFERS, f"differs: {shown}{end}", points, borrowed)
    if narrow > delta / 100:
        end = f"; not even equal values could be shown to lie within {delta:g} points{end}"
    return Verdict(Outcome.UNDETERMINED, f"undetermined: {shown}{end}", points, borrowed)


def _not_one_run(exact: Granularity) -> str:
    """Without an accusation: a table rarely says whether it prints means, and the parts that it might have averaged are unknown."""
    honest = f"it would be right if {exact.mean}" if exact.mean else (
        f"it is no mean over 2 to {MOST_RUNS} runs either; rounded runs or parts averaged afterwards could still give it"
    )
    return f"{Outcome.NOT_ONE_RUN}: {exact.text}; {honest}"


def apart(measured: Comparison, noise: SeedNoise | None, *, same: bool, trained: bool) -> tuple[float, float] | None:
    """How far a difference that another run of the same two recipes reports may lie from the measured one: half the width of the
    intervals behind "consistent" and "differs", as fractions. noise: of the difference, where each row has a single seed. same: the other
    run's questions are these. None where nothing tells how far seeds lie apart."""
    if not trained:  # as for one value: other questions of the kind would have to explain it
        return 0.0, normal_quantile(0.95) * math.sqrt(2 * measured.variance.item)
    spread = run_to_run(measured, noise)
    return None if spread is None else _half_widths(measured, spread, None if same else measured.variance.item)


def run_to_run(measured: Estimate | Comparison, noise: SeedNoise | None = None) -> SeedNoise | None:
    """Variance of one run's mean, or difference, on these questions. Its parts: answers that turn from seed to seed, which many questions
    tell well, and what moves whole runs, which only seeds tell. noise: for a single seed. None where nothing is known."""
    variance = measured.variance
    if variance.noise is None:
        return noise
    turning = variance.residual * variance.seeds
    one = variance.noise.times(variance.seeds)
    moving = max(one.variance - turning, 0.0)
    parts = one.times(moving / one.variance).parts if one.variance else ()
    return SeedNoise(((turning, float(max(variance.clusters - 1, 1))), *parts))


def _half_widths(measured: Estimate | Comparison, spread: SeedNoise | None, other: float | None) -> tuple[float, float]:
    """Of measured - reported, at the levels of "consistent" and "differs". other: variance of the reported value from its
    questions, where they are others than ours; None: the same."""
    noise = spread.times(1 + 1 / measured.seeds) if spread else None
    item = 0.0 if other is None else measured.variance.item + other
    variance = Variance(item, noise, 0.0, measured.clusters, measured.seeds)
    narrow, wide = (variance.quantile(level) * math.sqrt(variance.total) for level in (CONSISTENT_LEVEL, DIFFERS_LEVEL))
    return narrow, wide


def _untrained(difference: float, slack: float, measured: Estimate, share: float, delta: float, shown: str) -> Verdict:
    """A model that is given, on the same questions: no seed, no draw of questions; what is left are answers that another
    machine or prompt turns, which nothing here tells. So it is consistent where the numbers are close, and differs only where
    even other questions of the kind would not explain it."""
    wide = normal_quantile(0.95) * math.sqrt(measured.variance.item + share * (1 - share) / measured.n) + slack
    points = Interval(100 * (difference - wide), 100 * (difference + wide))
    if abs(difference) + slack <= delta / 100:
        return Verdict(Outcome.CONSISTENT, f"consistent within {delta:g} points: {shown} on the same questions", points)
    end = f"; as if the questions were others: [{points.low:+.1f}, {points.high:+.1f}]"
    outcome = Outcome.UNDETERMINED if 0 in points else Outcome.DIFFERS
    return Verdict(outcome, f"{outcome}: {shown} on the same questions{end}", points)
