"""Rules about numbers that stand in two places: one run that should have one number, two runs that should not share theirs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import pi, sqrt
from statistics import median

from harness.audit.explain import Explained, explain_repeat
from harness.audit.findings import Finding, Severity
from harness.audit.paper import Paper, Printed, PrintedTable
from harness.audit.totals import severity
from harness.spec.experiment import Row

FEW = 0.5
"""Two rows that share numbers are remarked on when chance alone would give fewer such pairs than this in the whole paper."""

APPROXIMATE_SLACK = 2.5
"""Points that "~15" may be off."""


# --- one run, one number --------------------------------------------------------------------------------------------


def equal_runs(paper: Paper) -> Iterator[Finding | None]:
    """Cells that are one run have one number, and one description."""
    groups: dict[str, list[Printed]] = defaultdict(list)
    for cell in paper.cells():
        groups[cell.run].append(cell)
    described: set[tuple[str, ...]] = set()
    for cells in groups.values():
        if len(cells) < 2:
            continue
        common = _most_printed(cells)
        odd = [(cell, explained) for cell in cells if (explained := _same(common, cell)) != Explained()]
        if not odd:
            yield None
        told = ", ".join(f"{c.value.text} in {c.table} ({c.row.label})" for c in cells if c.number == common.number)
        for cell, explained in odd:
            text = f"{cell.value.text}, but the same run has {told}"
            condition = explained.condition if explained else ""
            yield cell.finding("equal runs", severity(explained), text, _who_has(paper, cell), condition)
        for first, second in combinations({cell.row.label + cell.table: cell for cell in cells}.values(), 2):
            for heading in first.row.cells.keys() & second.row.cells.keys():
                a, b = first.row.cells[heading], second.row.cells[heading]
                key = (heading, first.table, first.row.label, second.table, second.row.label)
                if a != b and key not in described:
                    described.add(key)
                    text = f"{heading} is {a} in {first.table} and {b} in {second.table} ({second.row.label}) for one model"
                    yield Finding("equal runs", Severity.ERROR, first.table, first.row.label, heading, text, where=first.where)
    yield from _descriptions(paper, described)


def _most_printed(cells: Sequence[Printed]) -> Printed:
    """A cell with the number that most of them print; the first of these, an approximate one only where all are."""
    exact = [cell for cell in cells if not cell.value.approximate] or list(cells)
    times = Counter(cell.number for cell in exact)
    return max(exact, key=lambda cell: times[cell.number])


def _same(common: Printed, cell: Printed) -> Explained | None:
    if cell.value.approximate or common.value.approximate:
        return Explained() if abs(cell.number - common.number) <= APPROXIMATE_SLACK else None
    return explain_repeat(cell.share, common.share)


def _descriptions(paper: Paper, described: set[tuple[str, ...]]) -> Iterator[Finding]:
    """Rows of different tables that train the same stages the same way, though they share no column."""
    rows: dict[str, list[tuple[PrintedTable, Row, str]]] = defaultdict(list)
    for table in paper.tables:
        for index, row in enumerate(table.spec.rows):
            if row.cells and row.stages is not None:
                rows[system(row)].append((table, row, table.loaded.where("rows", index)))
    for found in rows.values():
        for (one, a, place), (other, b, _) in combinations(found, 2):
            for heading in a.cells.keys() & b.cells.keys():
                pair = (heading, one.label, a.label, other.label, b.label)
                if a.cells[heading] != b.cells[heading] and pair not in described:
                    described.add(pair)
                    text = f"{heading} is {a.cells[heading]} in {one.label} and {b.cells[heading]} in {other.label} ({b.label})"
                    yield Finding("equal runs", Severity.ERROR, one.label, a.label, heading, text, where=place)


def _who_has(paper: Paper, cell: Printed) -> str:
    """Other rows that print the odd value in the same column: where it may have come from."""
    found = {
        f"{other.row.label} ({other.table})": None
        for other in paper.cells()
        if other.title == cell.title and other.run != cell.run and other.number == cell.number
    }
    return f"{cell.value.text} is what {' and '.join(found)} has" if found else ""


# --- two runs, shared numbers ---------------------------------------------------------------------------------------


def system(row: Row) -> str:
    """Equal for rows that are one model, whatever the table calls them."""
    return f"{row.stages} {sorted(row.set.items())}" if row.stages is not None else row.label.strip().lower()


@dataclass(frozen=True)
class Shared:
    """Two models and what they print in common. matched: columns with the same number. chance: of so many or more."""

    matched: tuple[tuple[Printed, Printed], ...]
    columns: int
    chance: float


def duplicates(paper: Paper) -> Iterator[Finding | None]:
    """Two different models that print the same numbers in two columns or more, beyond what chance would give.

    By chance, two numbers of a column agree with probability step / (2 s √π): normal values with the column's spread s
    (from the median distance between its numbers, so that an outlier does not widen it), printed in steps of the last digit
    or of one question, whichever is larger. Columns count as independent; a total with its parts beside it does not count.
    """
    systems: dict[str, dict[str, Printed]] = defaultdict(dict)
    for cell in paper.cells():
        if not cell.value.approximate:
            systems[system(cell.row)].setdefault(cell.title, cell)
    columns: dict[str, list[float]] = defaultdict(list)
    for cells in systems.values():
        for title, cell in cells.items():
            columns[title].append(float(cell.number))
    compared = [shared for a, b in combinations(systems.values(), 2) if (shared := _shared(a, b, columns)) is not None]
    for shared in compared:
        expected = shared.chance * len(compared)
        if len(shared.matched) < 2 or expected >= FEW:
            yield None
            continue
        first, other = shared.matched[0]
        numbers = ", ".join(f"{a.value.text} ({a.title})" for a, _ in shared.matched)
        every = "all" if len(shared.matched) == shared.columns else f"{len(shared.matched)} of"
        text = (
            f"prints the same as {other.row.label} ({other.table}) in {every} {shared.columns} columns: {numbers}; "
            f"{len(compared)} pairs of rows would give {expected:.1g} such by chance"
        )
        yield Finding("duplicates", Severity.REMARK, first.table, first.row.label, "", text, where=first.where)


def _shared(a: Mapping[str, Printed], b: Mapping[str, Printed], columns: Mapping[str, list[float]]) -> Shared | None:
    """None where fewer than two columns can be compared."""
    both = [title for title in a if title in b and a[title].run != b[title].run]
    whole = {title for title in both if a[title].sizes and sum(t.startswith(f"{title}.") for t in both) > 1}
    odds = {title: p for title in both if title not in whole and (p := _agree(a[title], columns[title])) is not None}
    if len(odds) < 2:
        return None
    matched = tuple((a[title], b[title]) for title in odds if a[title].number == b[title].number)
    return Shared(matched, len(odds), at_least(len(matched), list(odds.values())))


def _agree(cell: Printed, values: list[float]) -> float | None:
    """The chance that two numbers of the column agree; None with fewer than three, or with no spread."""
    different = sorted(set(values))
    if len(different) < 3:
        return None
    spread = median(b - a for a, b in combinations(different, 2)) / 0.954  # of two normals, |a − b| has median 0.954 s
    step = max(float(cell.unit), 100 / cell.score.n)
    return min(1.0, step / (2 * spread * sqrt(pi)))


def at_least(wanted: int, odds: Sequence[float]) -> float:
    """The chance that so many or more of independent events with these odds happen."""
    exactly = [1.0] + [0.0] * len(odds)
    for p in odds:
        for k in range(len(odds), 0, -1):
            exactly[k] = exactly[k] * (1 - p) + exactly[k - 1] * p
        exactly[0] *= 1 - p
    return sum(exactly[wanted:])
