"""Which exact values a printed percentage can stand for, and which percentages n questions can give at all.

Exact arithmetic on fractions; standard library only. The audit and the verdicts share this file, so that a number is
called impossible by one rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

ROUNDINGS = ("half up", "half even", "half down", "truncation")
TWICE = "rounding twice"
"""Rounding to one more decimal first: 97/115 = 84.348 -> 84.35 -> 84.4. Tried only if nothing else prints the
number."""

MOST_RUNS = 5
"""Means over up to this many runs are tried before a number is called impossible."""


class Way(StrEnum):
    """How a number may be printed. Rounding may resolve a tie either way, as floating point does."""

    ROUNDED = "rounded"
    CUT = "cut off"
    TWICE = "rounded twice"
    RUNS = "rounded run by run, averaged, and rounded again"


@dataclass(frozen=True)
class Span:
    """An interval of exact values in percent. open_low, open_high: the end itself does not belong to it."""

    low: Fraction
    high: Fraction
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Fraction) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def meets(self, other: Span) -> bool:
        """Whether the two spans overlap."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return low < high or (low == high and low in self and low in other)

    def counts(self, n: int) -> range:
        """Every k from 0 to n whose 100 k / n lies in the span."""
        first, last = max(0, (self.low * n / 100).__ceil__()), min(n, (self.high * n / 100).__floor__())
        if first <= last and Fraction(100 * first, n) not in self:
            first += 1
        if first <= last and Fraction(100 * last, n) not in self:
            last -= 1
        return range(first, last + 1)


def behind(value: Decimal, way: Way) -> Span:
    """The exact values that are printed as `value`, whose own decimals count."""
    unit, target = Fraction(1, 10 ** decimals_of(value)), Fraction(value)
    if way is Way.CUT:  # towards zero
        low, high = (target - unit if target <= 0 else target), (target + unit if target >= 0 else target)
        return Span(low, high, open_low=target <= 0, open_high=target >= 0)
    half = {Way.ROUNDED: Fraction(1, 2), Way.TWICE: Fraction(11, 20), Way.RUNS: Fraction(1)}[way] * unit
    return Span(target - half, target + half)


def decimals_of(value: Decimal) -> int:
    return max(0, -int(value.as_tuple().exponent))


@dataclass(frozen=True)
class Granularity:
    """Whether `value` is 100 k / n printed with its decimals.

    ways: every (k, rounding) that prints it. below, above: the neighbouring (k, 100 k / n) where none does.
    """

    value: Decimal
    n: int
    ways: tuple[tuple[int, str], ...]
    below: tuple[int, float]
    above: tuple[int, float]

    @property
    def possible(self) -> bool:
        """Under some way of rounding, by one run over the n questions."""
        return bool(self.ways)

    @property
    def only(self) -> str:
        """ "truncation" or "rounding twice" where nothing but that prints the number; else ""."""
        ways = {rounding for _, rounding in self.ways}
        return next((odd for odd in ("truncation", TWICE) if ways == {odd}), "")

    @property
    def runs(self) -> tuple[int, ...]:
        """The numbers of runs, 2 to MOST_RUNS, whose mean would print the value."""
        return tuple(runs for runs in range(2, MOST_RUNS + 1) if printable(self.value, runs * self.n))

    @property
    def mean(self) -> str:
        """ "it is a mean over 2, 4 or 5 runs"; empty where no mean prints the number."""
        if not self.runs:
            return ""
        *most, last = self.runs
        if len(self.runs) > 2 and last - self.runs[0] == len(most):
            return f"it is a mean over {self.runs[0]} to {last} runs"
        return f"it is a mean over {', '.join(map(str, most))}{' or ' * bool(most)}{last} runs"

    @property
    def text(self) -> str:
        """The arithmetic, as a sentence."""
        if self.possible:
            k, _rounding = self.ways[0]
            twice = f" = {100 * k / self.n:.3f} only if rounded twice"
            condition = {"truncation": " only if truncated, not rounded", TWICE: twice}.get(self.only, "")
            return f"{self.value} = {k}/{self.n}{condition}"
        (k, low), (m, high) = self.below, self.above
        return f"{self.value} is no k/{self.n}: {k}/{self.n} = {low:.3f}, {m}/{self.n} = {high:.3f}"


def printable(value: Decimal, n: int) -> bool:
    """Whether some k / n, rounded or cut off, prints the value."""
    return any(behind(value, way).counts(n) for way in (Way.ROUNDED, Way.CUT))


def round_fraction(value: Fraction, decimals: int, rounding: str) -> Decimal:
    """`value` printed with that many decimals under one of ROUNDINGS (ties and truncation by magnitude)."""
    scaled = abs(value) * 10**decimals
    whole, rest = divmod(scaled, 1)
    half = Fraction(1, 2)
    tie_goes_up = rounding == "half up" or (rounding == "half even" and whole % 2 == 1)
    up = rounding != "truncation" and (rest > half or (rest == half and tie_goes_up))
    digits = int(whole) + up
    return Decimal(-digits if value < 0 else digits).scaleb(-decimals)


def granularity(value: Decimal, n: int) -> Granularity:
    """`value` in percent as printed (its decimals count); n: number of questions."""
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    decimals, target = decimals_of(value), Fraction(value)
    near = sorted({k for way in (Way.ROUNDED, Way.CUT) for k in behind(value, way).counts(n)})
    ways = [(k, r) for k in near for r in ROUNDINGS if round_fraction(Fraction(100 * k, n), decimals, r) == value]
    ways = ways or [(k, TWICE) for k in behind(value, Way.TWICE).counts(n)]
    low = min(n, max(0, (target * n / 100).__floor__()))
    high = min(n, low + 1)
    neighbours = [(k, float(Fraction(100 * k, n))) for k in (low, high)]
    return Granularity(value, n, tuple(sorted(ways, key=lambda way: (*ROUNDINGS, TWICE).index(way[1]))), *neighbours)
