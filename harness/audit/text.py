"""Rules about what the text says: claims against the table they speak of, and sentences against each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal

from harness.audit.explain import Explained, Share, explain_difference, explain_repeat
from harness.audit.findings import Basis, Finding, Severity
from harness.audit.paper import Paper, Printed, PrintedTable, Statement
from harness.audit.totals import difference_text, score_of, severity
from harness.spec.claims import Claim, Close, DeltaEquals, Equals, Margin, MeanDelta, describe
from harness.verdict.claims import Holds, Part, judge_reported
from harness.verdict.granularity import decimals_of

Cells = Mapping[tuple[str, str], Printed]

BEFORE_PRINTING = "it was computed before the numbers were rounded or cut off"


def claims(paper: Paper) -> Iterator[Finding | None]:
    """What the text says, against the table it speaks of."""
    for table in paper.tables:
        cells = {(cell.row.label, cell.title): cell for cell in table.cells()}
        values = table.values()
        columns = [column.name for column in table.spec.columns]
        rows = [row.label for row in table.spec.rows if row.delta is None]
        levels = {c.name: table.benchmarks[c.benchmark].scores[c.score].chance for c in table.spec.columns}
        chance = {name: level for name, level in levels.items() if level is not None}
        for index, claim in enumerate(table.spec.claims):
            result = judge_reported(claim, values, rows, columns, chance)
            where = table.loaded.where("claims", index)
            wrong = [(part, explained) for part in result.parts if (explained := _explain(claim, part, cells)) != Explained()]
            if not wrong:
                yield None
            for part, explained in wrong:
                text, hint = f"{describe(claim)}: {_arithmetic(claim, part, cells)}", _meant(claim, table, part.column)
                condition = explained.condition if explained else ""
                yield Finding(
                    "claims", severity(explained), table.label, claim.rows[0], part.column, text, hint, claim.quote, where, condition
                )


def _explain(claim: Claim, part: Part, cells: Cells) -> Explained | None:
    """Under which assumption the text is right; Explained() where none is needed."""

    def cell(row: str) -> Printed | None:
        found = cells.get((row, part.column))
        return None if found is None or found.value.approximate else found

    as_judged = None if part.outcome is Holds.FAILS else Explained()
    match claim:
        case DeltaEquals():
            of, over = cell(claim.delta_equals), cell(claim.minus)
            if of is None or over is None:
                return as_judged
            return explain_difference(claim.points, score_of(cells, of), score_of(cells, over), of.usual)
        case Equals():
            printed = cell(claim.equals)
            if printed is None:
                return as_judged
            return Explained() if printed.number == claim.points else explain_repeat(_said(claim.points, printed), printed.share)
    if as_judged is None and _near_enough(claim, part, cells):
        return Explained(BEFORE_PRINTING)
    return as_judged


def _said(points: Decimal, printed: Printed) -> Share:
    return Share(points, printed.share.n, printed.share.counted, printed.share.composed)


def _near_enough(claim: Claim, part: Part, cells: Cells) -> bool:
    """Whether a bound that fails as printed can hold for the numbers behind. Printing moves two of them apart by a unit at most: exactly
    that where two ties were rounded to even (69.25 to 69.2, 59.75 to 59.8)."""

    def numbers(*rows: str) -> list[Printed]:
        return [cells[row, part.column] for row in rows if (row, part.column) in cells]

    if not all((row, part.column) in cells for row in claim.rows):
        return False  # a row of differences has no numbers behind it
    match claim:
        case Margin():
            a, b = numbers(claim.margin, claim.over)
            return a.number - b.number + max(_unit(a), _unit(b)) >= claim.at_least
        case Close():
            found = numbers(*claim.close)
            values = [cell.number for cell in found]
            return max(values) - min(values) - max(map(_unit, found)) <= claim.within
        case MeanDelta():
            pairs = [(cells[key], cells[claim.minus, key[1]]) for key in cells if key[0] == claim.mean_delta and (claim.minus, key[1]) in cells]
            wanted = [pair for pair in pairs if claim.on == "all" or pair[0].title in claim.on]
            mean = sum((a.number - b.number for a, b in wanted), Decimal(0)) / len(wanted)
            slack = max(max(_unit(a), _unit(b)) for a, b in wanted) + Decimal(1).scaleb(-decimals_of(claim.points))
            return abs(mean - claim.points) < slack
    return False


def _unit(cell: Printed) -> Decimal:
    return Decimal(1).scaleb(-cell.value.decimals)


def _arithmetic(claim: Claim, part: Part, cells: Cells) -> str:
    """As judged; for a difference within rounding, the counts that rule it out."""
    if isinstance(claim, DeltaEquals) and part.outcome is not Holds.FAILS:
        of, over = cells[claim.delta_equals, part.column], cells[claim.minus, part.column]
        return f"{difference_text(of, over, decimals_of(claim.points))}, claimed {claim.points:+}"
    return part.text


def _meant(claim: Claim, table: PrintedTable, column: str) -> str:
    """Where in the same table the claimed number does stand."""
    values = table.values()
    if isinstance(claim, Equals):
        found = [f"{row} on {name}" for (row, name), v in values.items() if v.value == claim.points]
        return f"{claim.points} is the value of {' and '.join(found)}" if found else ""
    if not isinstance(claim, DeltaEquals):
        return ""
    rows = [row.label for row in table.spec.rows if row.delta is None]
    of, over = claim.delta_equals, claim.minus
    elsewhere = [
        (of, over, c.name) for c in table.spec.columns if c.name != column
    ] + [(of, row, column) for row in rows if row not in (of, over)]  # fmt: skip
    for first, second, name in elsewhere:
        a, b = values.get((first, name)), values.get((second, name))
        if a and b and a.value is not None and b.value is not None and a.value - b.value == claim.points:
            return f"{a.text} - {b.text} = {claim.points:+} is {first} over {second} on {name}"
    return ""


def statements(paper: Paper) -> Iterator[Finding | None]:
    """Two sentences about one thing say the same; a number given as a measurement is not just a ratio of two settings.

    What a sentence says was typed by a person, so these findings are counted apart from arithmetic.
    """
    by_thing: dict[str, list[Statement]] = defaultdict(list)
    for statement in paper.statements:
        by_thing[statement.about].append(statement)
    for about, said in by_thing.items():
        first = said[0]
        others = [s for s in said[1:] if s.says != first.says]
        if others:
            text = f"“{first.says}” ({first.source}), but " + " and ".join(f"“{s.says}” ({s.source})" for s in others)
            yield _of_text(Severity.ERROR, about, text, first)
        else:
            yield None
        for statement in said:
            for number, ratio in statement.ratios():
                text = f"{number} % is exactly {ratio}: arithmetic on settings, printed as if it were measured"
                yield _of_text(Severity.REMARK, about, text, statement, statement.said.note, statement.quote)


def _of_text(severity: Severity, about: str, text: str, said: Statement, hint: str = "", quote: str = "") -> Finding:
    return Finding("statements", severity, "Text", "", about, text, hint, quote, said.where, basis=Basis.SUMMARY)
