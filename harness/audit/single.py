"""Rules about single numbers: whether so many questions can give them, how they are printed, whether guessing does better."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from math import lcm

from harness.audit.findings import Finding, Severity
from harness.audit.paper import Paper, Printed, distinct
from harness.audit.totals import explain_whole, severity, split, terms
from harness.verdict.granularity import MOST_RUNS, TWICE, Granularity, Way, behind, granularity, printable

BELOW_CHANCE = 0.001
"""A value below guessing is remarked on when guessing would give it less often than this."""


def counts(paper: Paper) -> Iterator[Finding | None]:
    """A share of n questions is some k / n; most numbers with a decimal are not. A mean over runs, or an overall score put
    together from parts, is no count of n, so that only a number which none of these gives is an error."""
    parts = {(whole.table, whole.row.label, whole.title): found for whole, found in split(paper)}
    cut, said = cut_off(paper), set()
    for cell, also in distinct(paper):
        if not cell.is_count:
            continue
        found = granularity(cell.number, cell.score.n)
        if found.possible and not found.only:
            yield None
        elif found.only == "truncation" and cell.table in cut:
            yield None if cell.table in said else _cuts(cell, found, cut[cell.table])
            said.add(cell.table)
        elif found.only == "truncation":
            hint = f"or if {found.mean}" if found.mean else ""
            yield cell.finding("counts", Severity.CONDITIONAL, found.text + also, hint, "it was cut off, not rounded")
        elif found.only == TWICE:
            yield cell.finding("counts", Severity.REMARK, found.text + also)
        else:
            yield _impossible(cell, found, also, parts.get((cell.table, cell.row.label, cell.title), []))


def _cuts(cell: Printed, found: Granularity, others: tuple[int, int]) -> Finding:
    cut, of = others
    k, _ = found.ways[0]
    exact = f"{100 * k / found.n:.{cell.value.decimals + 2}f}"
    text = f"the table cuts numbers off instead of rounding them: {cell.value.text} is {k}/{found.n} = {exact}; so are {cut - 1} more of {of}"
    hint = "a way to print, not a mistake"
    return cell.finding("counts", Severity.CONDITIONAL, text, hint, condition="numbers are cut off throughout")


def _impossible(cell: Printed, found: Granularity, also: str, parts: list[Printed]) -> Finding:
    """No k / n: the least that has to be assumed for the number to be right."""
    text = found.text + also
    explained = explain_whole(cell, parts) if parts else None
    if explained and explained.condition:
        plain = "plain mean" in explained.condition
        mean, written = terms(cell, parts, plain)
        text += f", but {written} = {float(mean):.{cell.value.decimals + 1}f}"
        return cell.finding("counts", severity(explained), text, condition=explained.condition)
    if found.runs:
        return cell.finding("counts", Severity.CONDITIONAL, text, condition=found.mean)
    if cell.sizes and not parts and printable(cell.number, len(cell.sizes) * lcm(*cell.sizes)):
        condition = f"it is the plain mean of its {len(cell.sizes)} parts, which are not printed"
        return cell.finding("counts", Severity.CONDITIONAL, text, condition=condition)
    rounded = [runs for runs in range(2, MOST_RUNS + 1) if behind(cell.number, Way.RUNS).counts(runs * found.n)]
    if rounded:
        condition = f"it is a mean over {rounded[0]} runs, each rounded before averaging"
        return cell.finding("counts", Severity.CONDITIONAL, text, condition=condition)
    return cell.finding("counts", Severity.ERROR, text, "nor is it a mean over 2 to 5 runs")


def cut_off(paper: Paper) -> dict[str, tuple[int, int]]:
    """Tables whose every count can have been cut off, two at least in no other way: (so many, of so many numbers).

    Overall scores do not count against it: they may be computed from the printed parts, and then rounded.
    """
    found: dict[str, list[tuple[Printed, Granularity]]] = defaultdict(list)
    for cell in paper.cells():
        if cell.is_count and (one := granularity(cell.number, cell.score.n)).possible and one.only != TWICE:
            found[cell.table].append((cell, one))
    only = {table: sum(one.only == "truncation" for _, one in every) for table, every in found.items()}
    return {
        table: (only[table], len(every))
        for table, every in found.items()
        if only[table] > 1 and all(cell.sizes or "truncation" in {way for _, way in one.ways} for cell, one in every)
    }


def below_chance(paper: Paper) -> Iterator[Finding | None]:
    """Guessing is a floor that a broken answer format, not a weak model, falls below."""
    from harness.stats import binomial_tail

    for cell, also in distinct(paper):
        value, n, chance = Fraction(cell.number), cell.score.n, cell.score.chance
        if chance is None:
            continue
        slack = Fraction(5, 2) if cell.value.approximate else cell.unit
        k = int((value + slack) * n / 100)
        p = binomial_tail(min(k, n), n, chance / 100)
        if value < Fraction(chance) and p < BELOW_CHANCE:
            text = f"{cell.value.text} lies below guessing ({chance:g}); {n} guesses give that little with p = {p:.1g}{also}"
            hint = "answers that could not be read, or an option order that is always wrong, would explain it"
            yield cell.finding("below chance", Severity.REMARK, text, hint)
        else:
            yield None


def one_rounding(paper: Paper) -> Iterator[Finding | None]:
    """The paper's own numbers in one column are printed one way. Impossible ones are left to `counts`."""
    columns: dict[str, list[Printed]] = defaultdict(list)
    for cell in paper.cells():
        if cell.own and cell.is_count and printable(cell.number, cell.score.n):
            columns[cell.title].append(cell)
    for cells in columns.values():
        first: dict[Decimal, Printed] = {}
        for cell in cells:
            first.setdefault(cell.number, cell)
        ways = {
            value: {way for way in (Way.ROUNDED, Way.CUT) if behind(value, way).counts(cell.score.n)} for value, cell in first.items()
        }
        cut = [value for value, found in ways.items() if found == {Way.CUT}]
        rounded = [value for value, found in ways.items() if found == {Way.ROUNDED}]
        if not (cut and rounded):
            yield None
            continue
        others = ", ".join(granularity(value, first[value].score.n).text for value in rounded[:2])
        for value in cut:
            cell = first[value]
            text = f"{granularity(value, cell.score.n).text}, but the same column prints {others}, which only rounding gives"
            condition = "the paper rounds some numbers and cuts others off, or some are means over several runs"
            yield cell.finding("one rounding", Severity.CONDITIONAL, text, condition=condition)

