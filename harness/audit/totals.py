"""Rules about numbers that make up another one: totals of parts, parts that changed places, differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

from harness.audit.explain import Explained, Score, explain_difference, explain_total, weights
from harness.audit.findings import Finding, Severity
from harness.audit.paper import Paper, Printed, partitions
from harness.verdict.granularity import Way, behind, granularity, printable, round_fraction


def split(paper: Paper) -> Iterator[tuple[Printed, list[Printed]]]:
    """Every overall score that is printed with all its parts, and these."""
    for table in paper.tables:
        by_row: dict[tuple[str, str], dict[str, Printed]] = defaultdict(dict)
        for cell in table.cells():
            by_row[cell.row.label, cell.column.benchmark][cell.column.score] = cell
        for (_, benchmark), cells in by_row.items():
            for whole, parts in partitions(dict(table.benchmarks[benchmark].scores)):
                needed = [cells.get(name) for name in (whole, *parts)]
                if all(cell is not None and not cell.value.approximate for cell in needed):
                    yield cells[whole], [cells[part] for part in parts]


def explain_whole(whole: Printed, parts: Sequence[Printed]) -> Explained | None:
    return explain_total(whole.share, [part.share for part in parts], whole.score.aggregate == "mean", whole.usual)


def severity(explained: Explained | None) -> Severity:
    if explained is None:
        return Severity.ERROR
    return Severity.REMARK if explained.slip else Severity.CONDITIONAL


def sums(paper: Paper) -> Iterator[Finding | None]:
    """An overall score is the mean of its parts, weighted by their questions (or plain, where the spec says so)."""
    for whole, parts in split(paper):
        explained = explain_whole(whole, parts)
        # What is no count of its questions at all is the business of the rule `counts`, which names the same condition.
        said_already = whole.is_count and not granularity(whole.number, whole.score.n).possible
        if explained is not None and (not explained.condition or said_already):
            yield None
            continue
        condition = explained.condition if explained else ""
        text = f"{whole.value.text}, but {_sum_text(whole, parts)}"
        yield whole.finding("sums", severity(explained), text, condition=condition)


def terms(whole: Printed, parts: Sequence[Printed], plain: bool) -> tuple[Fraction, str]:
    """The mean of the printed parts and how it is written: "(23.47·115 + 53.94·76) / 191"."""
    shares = [part.share for part in parts]
    mean = sum((w * Fraction(s.value) for w, s in zip(weights(shares, plain), shares, strict=True)), Fraction(0))
    written = " + ".join(part.value.text + ("" if plain else f"·{part.score.n}") for part in parts)
    return mean, f"({written}) / {len(parts) if plain else sum(part.score.n for part in parts)}"


def _sum_text(whole: Printed, parts: Sequence[Printed]) -> str:
    """The sum in percent; where that is within rounding, the counts that rule it out."""
    plain = whole.score.aggregate == "mean"
    mean, written = terms(whole, parts, plain)
    off = abs(Fraction(whole.number) - mean)
    if off > whole.unit or plain:
        return f"{written} = {float(mean):.2f}, {float(off):.2f} away"
    ways = [way for way in (Way.ROUNDED, Way.CUT) if all(behind(p.number, way).counts(p.score.n) for p in parts)]
    if not ways:
        return f"{written} = {float(mean):.{whole.value.decimals + 2}f}"
    counts = [behind(part.number, ways[0]).counts(part.score.n) for part in parts]
    n = sum(part.score.n for part in parts)
    low, high = sum(k[0] for k in counts), sum(k[-1] for k in counts)
    added = " + ".join(f"{k[0]}/{p.score.n}" if len(k) == 1 else f"{k[0]}…{k[-1]}/{p.score.n}" for k, p in zip(counts, parts, strict=True))
    digits = whole.value.decimals + 2
    if low != high:
        return f"{added} = {low}…{high}/{n} = {100 * low / n:.{digits}f} to {100 * high / n:.{digits}f}"
    way, verb = ("truncation", "cut off is") if whole.usual is Way.CUT else ("half up", "rounds to")
    printed = round_fraction(Fraction(100 * low, n), whole.value.decimals, way)
    return f"{added} = {low}/{n} = {100 * low / n:.{digits}f}, which {verb} {printed}"


def swapped(paper: Paper) -> Iterator[Finding | None]:
    """A total that does not fit its parts as they stand, and does when two of them change places."""
    for whole, parts in split(paper):
        explained = explain_whole(whole, parts)
        if explained is not None and not explained.condition:
            yield None
            continue
        pairs = [(a, b) for a, b in combinations(parts, 2) if a.number != b.number and a.score.n != b.score.n]
        fits = [pair for pair in pairs if _fits_exchanged(whole, parts, *pair)]
        if not fits:
            yield None
        for a, b in fits:
            text = (
                f"{whole.value.text} fits its parts if {a.value.text} ({a.title}) and {b.value.text} ({b.title}) change places; "
                f"of {len(pairs)} exchange{'s' * (len(pairs) != 1)} tried, {len(fits)} fit{'s' * (len(fits) == 1)}"
            )
            yield whole.finding("swapped parts", Severity.REMARK, text)


def _fits_exchanged(whole: Printed, parts: Sequence[Printed], a: Printed, b: Printed) -> bool:
    exchanged = {a.title: b.value, b.title: a.value}
    tried = [replace(part, value=exchanged.get(part.title, part.value)) for part in parts]
    if not all(printable(part.number, part.score.n) for part in tried):
        return False
    explained = explain_whole(whole, tried)
    return explained is not None and not explained.condition


def score_of(cells: Mapping[tuple[str, str], Printed], cell: Printed) -> Score:
    """The cell with its parts, where the row prints all of them and they fit it."""
    parts = [cells.get((cell.row.label, f"{cell.column.benchmark}.{name}")) for name in cell.parts]
    found = [part for part in parts if part is not None and not part.value.approximate]
    if not cell.is_count or len(found) < len(parts) or not found or explain_whole(cell, found) != Explained():
        return Score(cell.share)
    return Score(cell.share, tuple(part.share for part in found))


def differences(paper: Paper) -> Iterator[Finding | None]:
    """A printed row of differences is the difference of the rows it names, before or after they were rounded."""
    for table in paper.tables:
        cells = {(cell.row.label, cell.title): cell for cell in table.cells()}
        for index, row in enumerate(table.spec.rows):
            if row.delta is None:
                continue
            for column, value in zip(table.spec.columns, row.reported):
                of, over = (cells.get((label, column.name)) for label in (row.delta.of, row.delta.over))
                if value.value is None or of is None or over is None or any(v.approximate for v in (value, of.value, over.value)):
                    continue
                explained = explain_difference(value.value, score_of(cells, of), score_of(cells, over), of.usual)
                if explained is not None and not explained.condition:
                    yield None
                    continue
                text = f"printed {value.text}, but {difference_text(of, over, value.decimals)}"
                printed = table.cell(index, row, column, value)
                condition = explained.condition if explained else ""
                yield printed.finding("differences", severity(explained), text, condition=condition)


def difference_text(of: Printed, over: Printed, decimals: int) -> str:
    """ "72.3 - 66.7 = +5.6", with the counts where these are certain."""
    text = f"{of.value.text} - {over.value.text} = {float(of.number - over.number):+.{max(decimals, of.value.decimals, over.value.decimals)}f}"
    counts = [behind(cell.number, Way.ROUNDED).counts(cell.score.n) for cell in (of, over)]
    if any(cell.sizes or not cell.is_count for cell in (of, over)) or any(len(found) != 1 for found in counts):
        return text
    n, (a, b) = of.score.n, (found[0] for found in counts)
    return f"{text}, and {a}/{n} - {b}/{n} = {100 * (a - b) / n:+.3f}"
