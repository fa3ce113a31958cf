"""Honest ways in which printed numbers can belong together: a total and its parts, a difference and its two values.

Before the audit calls anything an error it tries, in this order: counts of one run, rounded (ties either way) or cut off
alike; the same computed from the printed numbers; some numbers cut off and others rounded; the plain instead of the
weighted mean, or the reverse; rounding twice; the mean over 2 to 5 runs, rounded or cut off alike, or each run rounded
before averaging. What only one of the later ways explains is reported with that way as its condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from harness.verdict.granularity import MOST_RUNS, Span, Way, behind, decimals_of, printable

MOST_SUMS = 20_000
"""Sums enumerated one by one; with more than that, the values lie so close together that their range stands for them."""

ALIKE = ((Way.ROUNDED, Way.ROUNDED), (Way.CUT, Way.CUT))
"""(way of the parts, way of the total), both printed alike."""
MIXED = ((Way.ROUNDED, Way.CUT), (Way.CUT, Way.ROUNDED))
OTHER = dict(MIXED)

UNLIKE = "some of these numbers are cut off and others rounded"

COMPOSED = "the overall scores are not counted, but put together from their parts in another way"
TIE = "the value lies halfway between the two, and was rounded up once and down once"
TWICE = "the number was rounded twice, first to one more decimal"


@dataclass(frozen=True)
class Share:
    """A printed percentage. n: its questions. counted: False where it is surely no count of them.

    composed: it has parts, so that it may be their plain mean, or computed from their printed values, instead of counted.
    """

    value: Decimal
    n: int
    counted: bool = True
    composed: bool = False

    def fits(self, runs: int) -> bool:
        """Whether counts over that many runs print it."""
        return not self.counted or printable(self.value, self.n * runs)


@dataclass(frozen=True)
class Explained:
    """condition: what has to be assumed, as words after "only if"; empty where nothing has to be."""

    condition: str = ""
    slip: bool = False
    """A slip of printing, not an assumption about what was measured."""


Attempt = tuple[Explained, bool]


def together(
    target: Span, shares: Sequence[Share], weights: Sequence[Fraction], way: Way, runs: int = 1, each: bool = False
) -> bool:
    """Whether exact values that print the shares have a weighted sum in `target`. each: a share that is not printed this way
    may be printed the other way."""
    sums, range_ = {Fraction(0)}, Span(Fraction(0), Fraction(0))
    enumerable = True
    for share, weight in zip(shares, weights, strict=True):
        span, n = behind(share.value, way), share.n * runs
        if share.counted:
            counts = span.counts(n) or (behind(share.value, OTHER[way]).counts(n) if each and way in OTHER else ())
            if not counts:
                return False
            values = [Fraction(100 * k, n) * weight for k in counts]
            enumerable = enumerable and len(sums) * len(values) <= MOST_SUMS
            if enumerable:
                sums = {total + value for total in sums for value in values}
            span = Span(Fraction(100 * counts[0], n), Fraction(100 * counts[-1], n))
        else:
            enumerable = False
        ends = sorted((span.low * weight, span.high * weight))
        range_ = Span(range_.low + ends[0], range_.high + ends[1])
    return any(total in target for total in sums) if enumerable else target.meets(range_)


def firm(shares: Sequence[Share]) -> tuple[list[Share], int]:
    """The shares, and the fewest runs whose counts print them all. One that no number of runs prints counts as any number."""
    possible = [s if any(s.fits(runs) for runs in range(1, MOST_RUNS + 1)) else replace(s, counted=False) for s in shares]
    runs = next((r for r in range(1, MOST_RUNS + 1) if all(s.fits(r) for s in possible)), MOST_RUNS)
    return possible, runs


def first(usual: Way | None) -> tuple[tuple[Way, Way], ...]:
    """ALIKE, as the table prints."""
    return tuple(pair for pair in ALIKE if usual in (None, pair[0]))


def averaged(runs: int) -> str:
    return f"it is a mean over {runs} runs"


def _first(attempts: Iterator[Attempt]) -> Explained | None:
    return next((explained for explained, fits in attempts if fits), None)


# --- a total and its parts ------------------------------------------------------------------------------------------


def weights(parts: Sequence[Share], plain: bool) -> list[Fraction]:
    total = sum(part.n for part in parts)
    return [Fraction(1, len(parts)) if plain else Fraction(part.n, total) for part in parts]


def explain_total(whole: Share, parts: Sequence[Share], plain: bool, usual: Way | None = None) -> Explained | None:
    """plain: whether the paper says that the overall score is the plain mean of its parts. usual: how the table is known to
    print. None: no honest way fits."""
    (_, *possible), fewest = firm([replace(whole, counted=whole.counted and not plain), *parts])
    return _first(_total(whole.value, possible, plain, fewest, usual))


def _total(value: Decimal, parts: Sequence[Share], plain: bool, fewest: int, usual: Way | None) -> Iterator[Attempt]:
    names = {False: "the mean weighted by questions", True: "the plain mean"}
    other = f"the overall score is {names[not plain]} of its parts"

    def fit(way: Way, whole: Way, runs: int, plainly: bool, each: bool = False) -> bool:
        return together(behind(value, whole), parts, weights(parts, plainly), way, runs, each)

    def printed(plainly: bool) -> bool:
        mean = sum((w * Fraction(p.value) for w, p in zip(weights(parts, plainly), parts)), Fraction(0))
        return any(mean in behind(value, way) for way in (Way.ROUNDED, Way.CUT))

    for way, whole in first(usual):
        yield Explained(), fit(way, whole, fewest, plain)
    yield Explained("the overall score was computed from the printed parts"), printed(plain)
    for way, whole in (*ALIKE, *MIXED):
        yield Explained(UNLIKE), fit(way, whole, fewest, plain, each=True)
    _, runs = firm(parts)
    for way, whole in ALIKE:
        yield Explained(other), fit(way, whole, runs, not plain)
    yield Explained(f"{other}, computed from the printed ones"), printed(not plain)
    yield Explained(TWICE, slip=True), fit(Way.ROUNDED, Way.TWICE, fewest, plain) or fit(Way.TWICE, Way.TWICE, fewest, plain)
    for runs in range(2, MOST_RUNS + 1):
        for way, whole in ALIKE:
            yield Explained(averaged(runs) if runs > fewest else ""), fit(way, whole, runs, plain)
    for runs in range(2, MOST_RUNS + 1):
        for way, whole in ALIKE:
            yield Explained(f"{averaged(runs)}, and {other}"), fit(way, whole, runs, not plain)
    for runs in range(2, MOST_RUNS + 1):
        yield Explained(f"{averaged(runs)}, each rounded before averaging"), fit(Way.RUNS, Way.RUNS, runs, plain)


# --- a difference ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A printed score of a difference. parts: the printed parts that it is the weighted mean of, where all of them are."""

    whole: Share
    parts: tuple[Share, ...] = ()

    @property
    def shares(self) -> Sequence[Share]:
        return self.parts or (as_printed(self.whole),)

    @property
    def weights(self) -> Sequence[Fraction]:
        return weights(self.parts, plain=False) if self.parts else [Fraction(1)]


def explain_difference(value: Decimal, of: Score, over: Score, usual: Way | None = None) -> Explained | None:
    """value: printed for of − over. usual: how the table is known to print. None: no honest way fits."""
    return _first(_difference(value, of, over, usual))


def as_printed(share: Share) -> Share:
    """A score with parts that no count of one run prints was put together from them: any number."""
    return share if share.fits(1) or not share.composed else replace(share, counted=False)


def _difference(value: Decimal, of: Score, over: Score, usual: Way | None) -> Iterator[Attempt]:
    shares, fewest = firm([*of.shares, *over.shares])
    signed = [*of.weights, *(-weight for weight in over.weights)]
    wholes = (of.whole, over.whole)
    loose = [replace(share, counted=share.counted and not share.composed) for share in wholes]

    def fit(way: Way, target: Way, runs: int, each: bool = False) -> bool:
        return together(behind(value, target), shares, signed, way, runs, each)

    def fit_loosely(way: Way, target: Way) -> bool:
        return any(s.composed for s in wholes) and together(behind(value, target), loose, (Fraction(1), Fraction(-1)), way, fewest)

    printed = Fraction(of.whole.value) - Fraction(over.whole.value)
    for way, target in first(usual):
        yield Explained(), printed in behind(value, target) or fit(way, target, fewest)
    for way, target in (*ALIKE, *MIXED):
        yield Explained(UNLIKE), printed in behind(value, target) or fit(way, target, fewest, each=True)
    yield Explained(TWICE, slip=True), fit(Way.ROUNDED, Way.TWICE, fewest)
    for way, target in ALIKE:
        yield Explained(COMPOSED), fit_loosely(way, target)
    yield Explained(f"{COMPOSED}, computed from printed ones"), fit_loosely(Way.RUNS, Way.ROUNDED)
    for runs in range(2, MOST_RUNS + 1):
        for way, target in ALIKE:
            yield Explained(f"both numbers are means over {runs} runs" if runs > fewest else ""), fit(way, target, runs)
    # Each number's runs may have moved it by half a unit, in opposite directions, and the difference is rounded once more.
    half, rounded = Fraction(1, 2 * 10 ** decimals_of(value)), behind(value, Way.RUNS)
    wide = Span(rounded.low - half, rounded.high + half)
    for runs in range(2, MOST_RUNS + 1):
        condition = f"both numbers are means over {runs} runs, each rounded before averaging"
        yield Explained(condition), together(wide, shares, signed, Way.RUNS, runs)


# --- one number, printed twice --------------------------------------------------------------------------------------


def explain_repeat(first: Share, second: Share) -> Explained | None:
    """Whether two prints can be of one number. None: no honest way fits."""
    (first, second), _ = firm([as_printed(first), as_printed(second)])
    return _first(_repeat(first, second))


def _repeat(first: Share, second: Share) -> Iterator[Attempt]:
    def fit(a: Way, b: Way) -> bool:
        spans = behind(first.value, a), behind(second.value, b)
        if not (first.counted and second.counted) or first.composed:
            return spans[0].meets(spans[1])
        sizes = [first.n * runs for runs in range(1, MOST_RUNS + 1)]
        return any(set(spans[0].counts(n)) & set(spans[1].counts(n)) for n in sizes)

    alike = decimals_of(first.value) == decimals_of(second.value)
    for a, b in ALIKE:
        yield Explained(TIE if alike and first.value != second.value else ""), fit(a, b)
    for a, b in MIXED:
        yield Explained(f"{first.value} is {a} and {second.value} is {b}"), fit(a, b)
    yield Explained(TWICE, slip=True), fit(Way.ROUNDED, Way.TWICE) or fit(Way.TWICE, Way.ROUNDED)
