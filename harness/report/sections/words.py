"""Formatting of numbers and lists for readers. Percentages everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from harness.stats import Comparison, Interval
from harness.verdict.claims import shown_p

MINUS = "\N{MINUS SIGN}"
LINKS = (
    "Links of a cell lead into the results folder, and to the MLflow server, of the machine that made this report; neither is "
    "part of the repository."
)


def percent(fraction: float, digits: int = 1) -> str:
    return f"{100 * fraction:.{digits}f}"


def signed(fraction: float, digits: int = 1) -> str:
    """A difference in points, with its sign; a rounded zero has none."""
    text = f"{100 * fraction:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def interval(bounds: Interval) -> str:
    return f"[{percent(bounds.low)}, {percent(bounds.high)}]"


def signed_interval(bounds: Interval) -> str:
    return f"[{signed(bounds.low)}, {signed(bounds.high)}]"


def scaled(bounds: Interval) -> Interval:
    """Fractions to percentages."""
    return Interval(100 * bounds.low, 100 * bounds.high, bounds.level)


def difference(comparison: Comparison) -> str:
    """+2.1 [-0.3, +4.5]."""
    return f"{signed(comparison.difference)} {signed_interval(comparison.interval)}"


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def with_p(comparison: Comparison, adjusted: float) -> str:
    """+2.1 [-0.3, +4.5], p = 0.16: the interval is uncorrected, p corrected, so that one can exclude 0 where nothing is shown."""
    return f"{difference(comparison)}, {shown_p(adjusted)}"


def share(value: float | None) -> str:
    """A rate: 0 %, <0.1 %, 12.3 %."""
    if value is None:
        return "n/a"
    if value == 0:
        return "0 %"
    if value < 0.001:
        return "<0.1 %"
    return "100 %" if value == 1 else f"{100 * value:.1f} %"


def listed(words: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def sentence(text: str) -> str:
    """With a full stop, unless it ends in a mark already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def count(number: int, noun: str) -> str:
    """1 seed, 3 seeds, 1,000 questions."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def seconds(value: float) -> str:
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"
