"""The sentences of a paper as predicates, judged on reported numbers and on regenerated ones.

On reported numbers a claim is arithmetic: it holds or fails as printed, rounding allowed for. On regenerated numbers it
holds when every difference it needs is shown by a paired test, fails when the opposite of one is shown, and is
undetermined otherwise. A number of the paper's is held against ours by the rule of the cells (`harness.verdict.cells`). Shown means what it means in the table beside it: p corrected after Holm over the comparisons that
the table declares (over the claim's own tests, for a pair that is not among them), margins and closeness included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import combinations
from statistics import median

from harness.spec.claims import (
    BelowChance,
    Best,
    Claim,
    Close,
    Decreasing,
    DeltaEquals,
    Equals,
    Greater,
    Increasing,
    LessTime,
    Margin,
    MeanDelta,
    Unimodal,
    Worst,
)
from harness.spec.reported import Reported
from harness.stats import Comparison, Estimate, Family
from harness.verdict.cells import Outcome, Verdict

LEVEL = 0.05


class Holds(StrEnum):
    HOLDS = "holds"
    FAILS = "fails"
    UNDETERMINED = "undetermined"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Part:
    """The judgement of a claim on one column, with its arithmetic."""

    column: str
    outcome: Holds
    text: str


@dataclass(frozen=True)
class ClaimResult:
    """basis: "reported" or "regenerated at proxy scale" etc. The whole fails with any part, and holds with all of them."""

    claim: Claim
    basis: str
    parts: tuple[Part, ...]

    @property
    def outcome(self) -> Holds:
        found = {part.outcome for part in self.parts}
        for outcome in (Holds.FAILS, Holds.UNDETERMINED, Holds.NOT_JUDGED):
            if outcome in found:
                return outcome
        return Holds.HOLDS if self.parts else Holds.NOT_JUDGED

    @property
    def text(self) -> str:
        return "; ".join(f"{part.column}: {part.text}" for part in self.parts)


def ordered_pairs(claim: Claim, rows: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
    """The (higher, lower) pairs of rows that an ordering claim needs; None when it is not about order alone."""
    match claim:
        case Best():
            return tuple((claim.best, row) for row in claim.among or rows if row != claim.best)
        case Worst():
            return tuple((row, claim.worst) for row in claim.among or rows if row != claim.worst)
        case Greater():
            return tuple((claim.greater, row) for row in claim.than)
        case Increasing():
            return tuple((b, a) for a, b in zip(claim.increasing, claim.increasing[1:]))
        case Decreasing():
            return tuple(zip(claim.decreasing, claim.decreasing[1:]))
        case Unimodal():
            top = claim.unimodal.index(claim.peak)
            steps = list(zip(claim.unimodal, claim.unimodal[1:]))
            return tuple((b, a) if i < top else (a, b) for i, (a, b) in enumerate(steps))
    return None


def columns_of(claim: Claim, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(columns) if claim.on == "all" else tuple(claim.on)


# --- on the numbers as printed -------------------------------------------------------------------------------------


def judge_reported(
    claim: Claim,
    values: Mapping[tuple[str, str], Reported],
    rows: Sequence[str],
    columns: Sequence[str],
    chance: Mapping[str, float] | None = None,
) -> ClaimResult:
    """values: (row, column) -> as printed. chance: percent, for below_chance."""
    wanted = columns_of(claim, columns)
    if isinstance(claim, MeanDelta):
        return ClaimResult(claim, "reported", _reported_mean(claim, values, wanted))
    parts = [_reported_part(claim, values, rows, column, chance or {}) for column in wanted]
    return ClaimResult(claim, "reported", tuple(parts))


def _reported_part(
    claim: Claim,
    values: Mapping[tuple[str, str], Reported],
    rows: Sequence[str],
    column: str,
    chance: Mapping[str, float],
) -> Part:
    def number(row: str) -> Decimal:
        found = values.get((row, column))
        if found is None or found.value is None:
            raise LookupError(f"no value is reported for {row}")
        return found.value

    try:
        if (pairs := ordered_pairs(claim, rows)) is not None:
            if isinstance(claim, Best | Worst) and claim.among is None:
                pairs = tuple(
                    p for p in pairs if all((r, column) in values and values[r, column].value is not None for r in p)
                )
            return _reported_order(column, [(a, number(a), b, number(b)) for a, b in pairs])
        outcome, text = _reported_number(claim, number, values, column, chance)
    except LookupError as missing:
        return Part(column, Holds.NOT_JUDGED, str(missing.args[0]))
    return Part(column, outcome, text)


def _reported_mean(claim: MeanDelta, values: Mapping[tuple[str, str], Reported], columns: Sequence[str]) -> tuple[Part, ...]:
    pairs = [[values.get((row, column)) for row in (claim.mean_delta, claim.minus)] for column in columns]
    printed = [[found.value for found in pair if found is not None and found.value is not None] for pair in pairs]
    if not printed or any(len(pair) < 2 for pair in printed):
        missing = f"no value is reported for {claim.mean_delta} or {claim.minus}"
        return tuple(Part(column, Holds.NOT_JUDGED, missing) for column in columns)
    gaps = [a - b for a, b in printed]
    mean = sum(gaps, Decimal(0)) / len(gaps)
    units = sum((_unit(value) for pair in printed for value in pair), Decimal(0))
    slack = units / len(printed) / 2 + _unit(claim.points) / 2
    return _averaged(columns, _if(abs(mean - claim.points) < slack), [f"{gap:+}" for gap in gaps], f"{mean:+.2f}")


def _averaged(columns: Sequence[str], outcome: Holds, gaps: Sequence[str], mean: str) -> tuple[Part, ...]:
    """Every column's judgement; the last combines them."""
    texts = [*gaps[:-1], f"{gaps[-1]}; mean {mean}"]
    return tuple(Part(column, outcome, text) for column, text in zip(columns, texts, strict=True))


def _reported_order(column: str, pairs: Sequence[tuple[str, Decimal, str, Decimal]]) -> Part:
    if not pairs:
        return Part(column, Holds.NOT_JUDGED, "no two rows to compare")
    wrong = [f"{a} {x} < {b} {y}" for a, x, b, y in pairs if x < y]
    tied = [f"{a} and {b} both {x}" for a, x, b, y in pairs if x == y]
    if wrong:
        return Part(column, Holds.FAILS, ", ".join(wrong))
    if tied:
        return Part(column, Holds.UNDETERMINED, ", ".join(tied) + " as printed")
    closest = min(pairs, key=lambda pair: pair[1] - pair[3], default=None)
    return Part(
        column, Holds.HOLDS, f"{closest[0]} {closest[1]} > {closest[2]} {closest[3]}" if closest else "no other row"
    )


def _unit(value: Decimal) -> Decimal:
    """One unit in the last printed digit."""
    return Decimal(1).scaleb(min(0, int(value.as_tuple().exponent)))


def _reported_number(
    claim: Claim,
    number: Callable[[str], Decimal],
    values: Mapping[tuple[str, str], Reported],
    column: str,
    chance: Mapping[str, float],
) -> tuple[Holds, str]:
    match claim:
        case Margin():
            a, b = number(claim.margin), number(claim.over)
            return _if(a - b >= claim.at_least), f"{a} - {b} = {a - b:+}, claimed at least {claim.at_least:+}"
        case DeltaEquals():
            a, b = number(claim.delta_equals), number(claim.minus)
            # Both values may be rounded by half a unit, and so may the claimed difference.
            slack = (_unit(a) + _unit(b) + _unit(claim.points)) / 2
            shown = f"{a} - {b} = {a - b:+}, claimed {claim.points:+}"
            off = abs(a - b - claim.points)
            return _if(off < slack), shown + (" (within rounding)" if 0 < off < slack else "")
        case Equals():
            a = number(claim.equals)
            return _if(abs(a - claim.points) < (_unit(a) + _unit(claim.points)) / 2 or a == claim.points), (
                f"the table has {values[claim.equals, column].text}, the text {claim.points}"
            )
        case Close():
            found = [number(row) for row in claim.close]
            gap = max(found) - min(found)
            return _if(
                gap <= claim.within
            ), f"{min(found)} to {max(found)} is {gap} apart, claimed within {claim.within}"
        case BelowChance():
            a = number(claim.below_chance)
            if column not in chance:
                return Holds.NOT_JUDGED, "the level of guessing is unknown"
            return _if(float(a) <= chance[column]), f"{a} against {chance[column]:.1f} by guessing"
        case LessTime():
            return Holds.NOT_JUDGED, "a table of accuracies holds no times"
    return Holds.NOT_JUDGED, f"no rule for claims of the form {claim.form}"


def _if(condition: bool) -> Holds:
    return Holds.HOLDS if condition else Holds.FAILS


# --- on regenerated numbers ----------------------------------------------------------------------------------------

Pair = Callable[[str, str, str], Comparison | None]
"""(row, row, column) -> paired comparison; None where one of the two has no value."""
Value = Callable[[str, str], Estimate | None]
"""(row, column) -> what was measured, if anything was."""
Against = Callable[[str, str, Decimal], Verdict]
"""(row, column, points) -> the verdict on what was measured, were this the reported value."""
Apart = Callable[[str, str, str], tuple[float, float] | None]
"""(row, row, column) -> how far another run's difference may lie from ours (`harness.verdict.cells.apart`)."""


@dataclass(frozen=True)
class Times:
    """ratios: of one row's time to the other's, one of each round. rest: on what they rest, in words."""

    ratios: tuple[float, ...]
    rest: str


Timed = Callable[[str], Times | str]
"""Column -> the times, or why there are none."""


def judge_measured(
    claim: Claim,
    pair: Pair,
    value: Value,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    proxy: bool,
    delta: float,
    against: Against | None = None,
    apart: Apart | None = None,
    chance: Mapping[str, float] | None = None,
    family: Family | None = None,
    timed: Timed | None = None,
) -> ClaimResult:
    """delta: points within which values count as the same. rows: those that `best` and `worst` range over. against, apart: what
    numbers of the paper are judged by; without them they are not judged, or undetermined. family: the comparisons that the
    table declares, by (row, row, column). timed: what claims of time are judged by."""
    wanted = columns_of(claim, columns)
    shown = Shown(family or Family({}))
    basis = "regenerated at proxy scale" if proxy else "regenerated"
    pairs = ordered_pairs(claim, rows)
    if isinstance(claim, MeanDelta):
        parts = _measured_mean(claim, pair, value, wanted, proxy, delta, apart)
    elif isinstance(claim, LessTime):
        parts = tuple(Part(column, *_measured_time(claim, timed(column) if timed else "no times", proxy, delta)) for column in wanted)
    elif pairs is not None:
        parts = tuple(_measured_order(pairs, pair, value, wanted, shown))
    elif isinstance(claim, Margin | Close):
        parts = tuple(_measured_bounds(claim, pair, value, wanted, shown))
    else:
        parts = tuple(
            Part(column, *_measured_number(claim, pair, value, column, proxy, delta, chance or {}, shown, against, apart))
            for column in wanted
        )
    return ClaimResult(claim, basis, parts)


def _without(value: Value, rows: Sequence[str], column: str) -> str:
    """Of rows that could not be compared, those that lack a value."""
    missing = [row for row in dict.fromkeys(rows) if value(row, column) is None]
    return f"no value for {', '.join(missing) or ' or '.join(rows)}"


@dataclass(frozen=True)
class Shown:
    """Corrects the p-values of a claim's tests."""

    family: Family

    def corrected(self, tests: Mapping[tuple[str, str, str], float]) -> dict[tuple[str, str, str], float]:
        """(row, row, column) -> corrected p. A pair that the table declares, either way round, is corrected in the table's
        family, with this p in its place; the others are corrected together."""
        found, rest = {}, {}
        for (first, second, column), p in tests.items():
            names = ((first, second, column), (second, first, column))
            declared = next((name for name in names if name in self.family.raw), None)
            if declared is None:
                rest[first, second, column] = p
            else:
                found[first, second, column] = self.family.with_p(declared, p)
        return {**found, **Family(rest).adjusted}


def _measured_order(
    pairs: Sequence[tuple[str, str]], pair: Pair, value: Value, columns: Sequence[str], shown: Shown
) -> Iterator[Part]:
    tested = {(a, b, column): pair(a, b, column) for column in columns for a, b in pairs}
    known = {key: comparison for key, comparison in tested.items() if comparison is not None}
    corrected = shown.corrected({key: comparison.p for key, comparison in known.items()})
    for column in columns:
        mine = [(a, b, known[a, b, column], corrected[a, b, column]) for a, b in pairs if (a, b, column) in known]
        missing = [row for a, b in pairs if (a, b, column) not in known for row in (a, b)]
        opposed = [one for one in mine if one[2].difference < 0 and one[3] <= LEVEL]
        open_ = [one for one in mine if not (one[2].difference > 0 and one[3] <= LEVEL)]
        if not pairs:
            yield Part(column, Holds.NOT_JUDGED, "no two rows to compare")
        elif opposed:
            yield Part(column, Holds.FAILS, _said(opposed))
        elif missing:
            yield Part(column, Holds.NOT_JUDGED, _without(value, missing, column))
        elif open_:
            yield Part(column, Holds.UNDETERMINED, _said(open_))
        else:
            yield Part(column, Holds.HOLDS, _said(mine))


def _said(tests: Sequence[tuple[str, str, Comparison, float]]) -> str:
    return ", ".join(f"{a} - {b} = {points(c)}, {shown_p(p)}" for a, b, c, p in tests)


def shown_p(p: float) -> str:
    """A corrected p."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def points(comparison: Comparison) -> str:
    """The difference with its interval, in points."""
    found = (comparison.difference, comparison.interval.low, comparison.interval.high)
    middle, low, high = (f"{100 * number:+.1f}" if f"{100 * number:.1f}" not in ("0.0", "-0.0") else "0.0" for number in found)
    return f"{middle} [{low}, {high}]"


def _measured_bounds(
    claim: Margin | Close, pair: Pair, value: Value, columns: Sequence[str], shown: Shown
) -> Iterator[Part]:
    """A lead of at least so much, or rows within so much of each other: the difference is tested against the bound itself."""
    bound = float(claim.at_least if isinstance(claim, Margin) else claim.within) / 100
    rows = [(claim.margin, claim.over)] if isinstance(claim, Margin) else list(combinations(claim.close, 2))
    tested = {(a, b, column): pair(a, b, column) for column in columns for a, b in rows}
    known = {key: comparison for key, comparison in tested.items() if comparison is not None}
    room = {
        key: c.difference - bound if isinstance(claim, Margin) else bound - abs(c.difference) for key, c in known.items()
    }
    raw = {
        key: c.p if bound == 0 and isinstance(claim, Margin) else c.variance.p_value(room[key]) for key, c in known.items()
    }
    corrected = shown.corrected(raw)
    for column in columns:
        missing = [row for a, b in rows if (a, b, column) not in known for row in (a, b)]
        if missing:
            yield Part(column, Holds.NOT_JUDGED, _without(value, missing, column))
            continue
        mine = [(a, b, known[a, b, column], corrected[a, b, column], room[a, b, column] > 0) for a, b in rows]
        failed = [one[:4] for one in mine if one[3] <= LEVEL and not one[4]]
        open_ = [one[:4] for one in mine if one[3] > LEVEL]
        against = f" (of a lead of {100 * bound:g})" if isinstance(claim, Margin) and bound else ""
        if failed or open_:
            outcome = Holds.FAILS if failed else Holds.UNDETERMINED
            yield Part(column, outcome, _said(failed or open_) + against)
        else:
            widest = max(mine, key=lambda one: abs(one[2].difference))
            yield Part(column, Holds.HOLDS, _said([widest[:4]]) + against)


def _measured_number(
    claim: Claim,
    pair: Pair,
    value: Value,
    column: str,
    proxy: bool,
    delta: float,
    chance: Mapping[str, float],
    shown: Shown,
    against: Against | None,
    apart: Apart | None,
) -> tuple[Holds, str]:
    match claim:
        case DeltaEquals():
            first, second = claim.delta_equals, claim.minus
            comparison = pair(first, second, column)
            if comparison is None:
                return Holds.NOT_JUDGED, _without(value, (first, second), column)
            p = shown.corrected({(first, second, column): comparison.p})[first, second, column]
            text = _said([(first, second, comparison, p)])
            if proxy:  # the direction alone, as the table of pairs shows it
                above = comparison.difference > 0
                if p > LEVEL:
                    return Holds.UNDETERMINED, text + DIRECTION_ONLY
                return _if(above == (claim.points > 0)), text + DIRECTION_ONLY
            outcome, why = _same_difference(claim.points, comparison.difference, [apart and apart(first, second, column)], delta)
            return outcome, text + why
        case Equals():
            found = value(claim.equals, column)
            if proxy:
                return Holds.NOT_JUDGED, "a value of the paper is not comparable at proxy scale"
            if found is None or against is None:
                return Holds.NOT_JUDGED, "no value"
            verdict = against(claim.equals, column, claim.points)
            return OF_CELL.get(verdict.outcome, Holds.NOT_JUDGED), f"{100 * found.mean:.1f}; {verdict.text}"
        case BelowChance():
            found = value(claim.below_chance, column)
            if found is None or column not in chance:
                return Holds.NOT_JUDGED, "no value" if found is None else "the level of guessing is unknown"
            low, high, level = 100 * found.interval.low, 100 * found.interval.high, chance[column]
            text = f"{100 * found.mean:.1f} [{low:.1f}, {high:.1f}] against {level:.1f} by guessing"
            # "No better than guessing" is shown by an interval that ends at or below it, refuted by one that starts above.
            return _from_interval(high <= level, low > level), text
    return Holds.NOT_JUDGED, f"no rule for claims of the form {claim.form}"


DIRECTION_ONLY = "; judged by direction only, the number itself is not comparable"


OF_CELL = {Outcome.CONSISTENT: Holds.HOLDS, Outcome.DIFFERS: Holds.FAILS, Outcome.UNDETERMINED: Holds.UNDETERMINED}
"""What a cell's verdict makes of a claim about its number; any other is no judgement."""


def _same_difference(claimed: Decimal, measured: float, widths: Sequence[tuple[float, float] | None], delta: float) -> tuple[Holds, str]:
    """Whether the paper's difference can be another run's, and why as words to append. measured: ours, as a fraction. widths:
    `Apart` of each difference that it is the mean of; their mean is wide enough, whatever these share."""
    known = [width for width in widths if width is not None]
    if len(known) < len(widths):
        return Holds.UNDETERMINED, "; one seed, and nothing says how far another would lie from it"
    narrow, wide = (100 * sum(found) / len(known) + float(_unit(claimed)) / 2 for found in zip(*known, strict=True))
    off = 100 * measured - float(claimed)
    outcome = _from_interval(abs(off) + narrow <= delta, abs(off) > wide)
    return outcome, f"; ours - claimed = {off:+.1f} [{off - wide:+.1f}, {off + wide:+.1f}]"


def _measured_mean(
    claim: MeanDelta, pair: Pair, value: Value, columns: Sequence[str], proxy: bool, delta: float, apart: Apart | None
) -> tuple[Part, ...]:
    """The mean's half-width is the mean of the columns' own: no wider is needed, whatever questions the columns share."""
    compared = [pair(claim.mean_delta, claim.minus, column) for column in columns]
    found = [comparison for comparison in compared if comparison is not None]
    if not found or len(found) < len(compared):
        rows = (claim.mean_delta, claim.minus)
        return tuple(Part(column, Holds.NOT_JUDGED, _without(value, rows, column)) for column in columns)
    mean, low, high = (
        100 * sum(values) / len(found)
        for values in zip(*((c.difference, c.interval.low, c.interval.high) for c in found), strict=True)
    )
    if proxy:  # the sign alone
        outcome, why = _from_interval(low > 0, high < 0) if claim.points > 0 else _from_interval(high < 0, low > 0), DIRECTION_ONLY
    else:
        widths = [apart and apart(claim.mean_delta, claim.minus, column) for column in columns]
        outcome, why = _same_difference(claim.points, mean / 100, widths, delta)
    return _averaged(columns, outcome, [points(c) for c in found], f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{why}")


def _measured_time(claim: LessTime, found: Times | str, proxy: bool, delta: float) -> tuple[Holds, str]:
    """By the median of the rounds; their range encloses the true one 97 times in 100 or more."""
    if isinstance(found, str):
        return Holds.NOT_JUDGED, f"not measured: {found}"
    less = [1 - ratio for ratio in found.ratios]
    middle, low, high = median(less), min(less), max(less)
    text = f"{100 * middle:.0f} % less time [{100 * low:.0f}, {100 * high:.0f}], {found.rest}"
    if proxy:  # the sign alone
        return _from_interval(low > 0, high < 0), text + DIRECTION_ONLY
    half = max(middle - low, high - middle)
    outcome, why = _same_difference(claim.percent, middle, [(half, half)], delta)
    return outcome, text + why


def _from_interval(holds: bool, fails: bool) -> Holds:
    return Holds.HOLDS if holds else Holds.FAILS if fails else Holds.UNDETERMINED
