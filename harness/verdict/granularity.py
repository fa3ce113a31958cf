"""Which percentages n questions can give at all. Exact arithmetic on fractions; standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

ROUNDINGS = ("half up", "half even", "truncation")
TWICE = "rounding twice"
"""To one more decimal first: 97/115 = 84.348 -> 84.35 -> 84.4. Asked about only where nothing else prints a number."""


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
        """Under some way of rounding."""
        return bool(self.ways)

    @property
    def only(self) -> str:
        """ "truncation" or "rounding twice" where nothing but that prints the number; else ""."""
        ways = {rounding for _, rounding in self.ways}
        return next((odd for odd in ("truncation", TWICE) if ways == {odd}), "")

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


def round_fraction(value: Fraction, decimals: int, rounding: str) -> Decimal:
    """`value` printed with that many decimals under one of ROUNDINGS (ties and truncation by magnitude)."""
    scaled = abs(value) * 10**decimals
    whole, rest = divmod(scaled, 1)
    half = Fraction(1, 2)
    up = rest > half or (rest == half and (rounding == "half up" or whole % 2 == 1))
    digits = int(whole) + (1 if up and rounding != "truncation" else 0)
    return Decimal(-digits if value < 0 else digits).scaleb(-decimals)


def granularity(value: Decimal, n: int) -> Granularity:
    """`value` in percent as printed (its decimals count); n: number of questions."""
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    decimals = max(0, -int(value.as_tuple().exponent))
    unit, target = Fraction(1, 10**decimals), Fraction(value)
    first, last = ((target - unit) * n / 100).__floor__(), ((target + unit) * n / 100).__ceil__()
    ways = [
        (k, rounding)
        for k in range(max(0, first), min(n, last) + 1)
        for rounding in ROUNDINGS
        if round_fraction(Fraction(100 * k, n), decimals, rounding) == value
    ]
    low = min(n, max(0, (target * n / 100).__floor__()))
    high = min(n, low + 1)
    if not ways:
        once = ((k, Fraction(round_fraction(Fraction(100 * k, n), decimals + 1, "half up"))) for k in (low, high))
        ways = [(k, TWICE) for k, rounded in once if round_fraction(rounded, decimals, "half up") == value]
    neighbours = [(k, float(Fraction(100 * k, n))) for k in (low, high)]
    return Granularity(value, n, tuple(sorted(ways, key=lambda way: (*ROUNDINGS, TWICE).index(way[1]))), *neighbours)
