"""The rules. Each looks at every number of its kind in a paper and yields what does not add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import combinations

from harness.audit.findings import Audit, Finding, Severity
from harness.audit.paper import Paper, Printed, PrintedTable, Statement
from harness.spec.benchmark import Score
from harness.spec.claims import DeltaEquals, Equals
from harness.spec.experiment import Row
from harness.spec.reported import Reported
from harness.verdict.claims import Holds, describe, judge_reported
from harness.verdict.granularity import ROUNDINGS, Granularity, granularity, round_fraction

BELOW_CHANCE = 0.001
"""A value below guessing is flagged when guessing would give it less often than this."""

MOST_RUNS = 10
"""Averages of up to so many runs are tried as an explanation before a value is called impossible."""

Rule = Callable[[Paper], Iterator[Finding | None]]
"""Yields a finding, or None for something that was looked at and is fine."""


def unit(value: Reported) -> Fraction:
    """One in the last printed digit."""
    return Fraction(1, 10**value.decimals)


def exact(value: Reported) -> Fraction:
    assert value.value is not None
    return Fraction(value.value)


def shown(value: Fraction, digits: int = 2) -> str:
    return f"{float(value):.{digits}f}"


# --- single numbers -------------------------------------------------------------------------------------------------


def distinct(paper: Paper) -> Iterator[tuple[Printed, str]]:
    """Every number of every run once, with the other tables that print it: ", also in Table 3c and Table 4"."""
    groups: dict[tuple[str, Decimal], list[Printed]] = defaultdict(list)
    for cell in paper.cells():
        groups[cell.run, cell.number].append(cell)
    for cells in groups.values():
        others = list(dict.fromkeys(cell.table for cell in cells[1:] if cell.table != cells[0].table))
        yield cells[0], f" (also in {', '.join(others)})" if others else ""


def counts(paper: Paper) -> Iterator[Finding | None]:
    """A share of n questions is some k / n; most numbers with a decimal are not. An overall score may have been put together
    from its printed parts instead of counted, which moves its last digit."""
    parts_of = {(whole.table, whole.row.label, whole.title): parts for whole, parts in split(paper)}
    cut, said = cut_off(paper), set()
    for cell, also in distinct(paper):
        if cell.value.approximate or cell.score.aggregate == "mean":
            continue
        found, column = granularity(cell.number, cell.score.n), (cell.table, cell.title)
        if found.possible and (not found.only or (found.only == "truncation" and column in said)):
            yield None
        elif found.possible and column in cut:
            said.add(column)
            text = f"{found.text}{also}; so are {cut[column] - 1} more of the column"
            yield _finding("counts", Severity.CONDITIONAL, cell, text, "truncation gives its other numbers too: a way to print")
        elif found.possible:  # cut off, or rounded twice
            yield _finding("counts", Severity.CONDITIONAL, cell, found.text + also)
        elif parts := _made_of(cell, parts_of.get((cell.table, cell.row.label, cell.title), [])):
            yield _finding("counts", Severity.CONDITIONAL, cell, f"{found.text}{also}, but {parts}", "made of the printed parts, not counted")
        else:
            yield _finding("counts", Severity.ERROR, cell, found.text + also, _averaged(cell))


def cut_off(paper: Paper) -> dict[tuple[str, str], int]:
    """Columns of tables whose every number truncation gives, with how many of them no rounding does: two at least."""
    ways: dict[tuple[str, str], list[Granularity]] = defaultdict(list)
    for cell in paper.cells():
        if not cell.value.approximate and cell.score.aggregate != "mean":
            found = granularity(cell.number, cell.score.n)
            if found.possible:
                ways[cell.table, cell.title].append(found)
    only = {column: sum(one.only == "truncation" for one in found) for column, found in ways.items()}
    return {
        column: number
        for column, number in only.items()
        if number > 1 and all(("truncation" in {way for _, way in one.ways}) for one in ways[column])
    }


def _made_of(cell: Printed, parts: list[Printed]) -> str:
    """The arithmetic that gives the number from the printed parts, if any way of rounding does."""
    if not parts:
        return ""
    mean, terms = _mean(cell, parts)
    made = any(round_fraction(mean, cell.value.decimals, way) == cell.number for way in ROUNDINGS)
    return f"{terms} = {shown(mean, cell.value.decimals + 1)}" if made else ""


def _averaged(cell: Printed) -> str:
    """Whether a mean of a few runs would print the number."""
    for runs in range(2, MOST_RUNS + 1):
        if granularity(cell.number, runs * cell.score.n).possible:
            return f"it would fit a mean of {runs} runs, if the paper said so"
    return f"nor is it the mean of up to {MOST_RUNS} runs"


def below_chance(paper: Paper) -> Iterator[Finding | None]:
    """Guessing is a floor that a broken answer format, not a weak model, falls below."""
    from harness.stats import binomial_tail

    for cell, also in distinct(paper):
        value, n, chance = exact(cell.value), cell.score.n, cell.score.chance
        slack = Fraction(5, 2) if cell.value.approximate else unit(cell.value)
        k = int((value + slack) * n / 100)
        p = binomial_tail(min(k, n), n, chance / 100)
        if value < Fraction(chance) and p < BELOW_CHANCE:
            text = f"{cell.value.text} lies below guessing ({chance:g}); {n} guesses give that little with p = {p:.1g}{also}"
            hint = "answers that could not be read, or an option order that is always wrong, would explain it"
            yield _finding("below chance", Severity.FLAG, cell, text, hint)
        else:
            yield None


def one_rounding(paper: Paper) -> Iterator[Finding | None]:
    """The paper's own numbers in one column are printed one way. Impossible ones are left to `counts`."""
    columns: dict[str, list[Printed]] = defaultdict(list)
    for cell in paper.cells():
        if cell.own and not cell.value.approximate and cell.score.aggregate != "mean":
            columns[cell.title].append(cell)
    for title, cells in columns.items():
        ways: dict[Decimal, set[str]] = {}
        first: dict[Decimal, Printed] = {}
        for cell in cells:
            found = {rounding for _, rounding in granularity(cell.number, cell.score.n).ways}
            if found & set(ROUNDINGS):
                ways[cell.number] = found
                first.setdefault(cell.number, cell)
        common = set(ROUNDINGS).intersection(*ways.values()) if ways else set(ROUNDINGS)
        if common:
            yield None
            continue
        truncated = [value for value, found in ways.items() if found == {"truncation"}]
        rounded = [value for value, found in ways.items() if "truncation" not in found]
        n = cells[0].score.n
        for value in truncated or list(ways)[:1]:
            others = ", ".join(f"{granularity(v, n).text}" for v in rounded[:2]) or "others"
            text = f"{granularity(value, n).text}, but the same column prints {others}, which only rounding gives"
            yield _finding("one rounding", Severity.CONDITIONAL, first[value], text, "no one way of rounding prints both")
        if not truncated and not rounded:
            yield _finding("one rounding", Severity.CONDITIONAL, cells[0], f"no one way of rounding prints all of {title}")


# --- numbers that belong together -----------------------------------------------------------------------------------


def partitions(scores: dict[str, Score]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(whole, parts): scores that split the overall questions by the values of one group."""
    whole = scores.get("overall")
    if whole is None or whole.where or whole.aggregate == "cluster":
        return
    by_group: dict[str, list[str]] = defaultdict(list)
    for name, score in scores.items():
        if len(score.where) == 1 and score.aggregate == "micro":
            by_group[next(iter(score.where))].append(name)
    for names in by_group.values():
        if len(names) > 1 and sum(scores[name].n for name in names) == whole.n:
            yield "overall", tuple(names)


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


def sums(paper: Paper) -> Iterator[Finding | None]:
    """An overall score is the mean of its parts, weighted by their questions (or plain, where the spec says so)."""
    for whole, parts in split(paper):
        yield _sum(whole, parts)


def _weights(whole: Printed, parts: list[Printed]) -> list[Fraction]:
    total = sum(part.score.n for part in parts)
    plain = whole.score.aggregate == "mean"
    return [Fraction(1, len(parts)) if plain else Fraction(part.score.n, total) for part in parts]


def _mean(whole: Printed, parts: list[Printed]) -> tuple[Fraction, str]:
    """The mean of the printed parts, and how it is written."""
    plain = whole.score.aggregate == "mean"
    terms = " + ".join(part.value.text + ("" if plain else f"·{part.score.n}") for part in parts)
    mean = sum((w * exact(part.value) for w, part in zip(_weights(whole, parts), parts)), Fraction(0))
    return mean, f"({terms}) / {len(parts) if plain else sum(part.score.n for part in parts)}"


def _sum(whole: Printed, parts: list[Printed]) -> Finding | None:
    total = sum(part.score.n for part in parts)
    plain = whole.score.aggregate == "mean"
    weights, (mean, terms) = _weights(whole, parts), _mean(whole, parts)
    # Rounding moves each number by at most half a unit; truncation moves all of them the same way by less than one.
    slack = max(unit(whole.value), (unit(whole.value) + sum(w * unit(p.value) for w, p in zip(weights, parts))) / 2)
    off = exact(whole.value) - mean
    if abs(off) <= slack:
        return None
    text = f"{whole.value.text}, but {terms} = {shown(mean)}, {shown(abs(off))} away"
    other = [Fraction(part.score.n, total) if plain else Fraction(1, len(parts)) for part in parts]
    alternative = sum((w * exact(part.value) for w, part in zip(other, parts)), Fraction(0))
    if abs(exact(whole.value) - alternative) <= slack:
        name = "weighted by questions" if plain else "plain"
        hint = f"it is the {name} mean of its parts, {shown(alternative)}"
        return _finding("sums", Severity.CONDITIONAL, whole, text, hint)
    return _finding("sums", Severity.ERROR, whole, text, f"printed digits allow {shown(slack)}")


def differences(paper: Paper) -> Iterator[Finding | None]:
    """A printed row of differences is the difference of the rows it names."""
    for table in paper.tables:
        values = table.values()
        for index, row in enumerate(table.spec.rows):
            if row.delta is None:
                continue
            for column, value in zip(table.spec.columns, row.reported):
                a, b = (values.get((label, column.name)) for label in (row.delta.of, row.delta.over))
                if value.value is None or a is None or b is None:
                    continue
                off = abs(exact(a) - exact(b) - exact(value))
                if off < (unit(a) + unit(b) + unit(value)) / 2:
                    yield None
                    continue
                text = f"printed {value.text}, but {a.text} - {b.text} = {float(exact(a) - exact(b)):+.{value.decimals}f}"
                where = table.loaded.where("rows", index, "reported")
                yield Finding("differences", Severity.ERROR, table.label, row.label, column.name, text, where=where)


def equal_runs(paper: Paper) -> Iterator[Finding | None]:
    """Cells that are one run have one number, and one description."""
    groups: dict[str, list[Printed]] = defaultdict(list)
    for cell in paper.cells():
        groups[cell.run].append(cell)
    described: set[tuple[str, ...]] = set()
    for cells in groups.values():
        if len(cells) < 2:
            continue
        values = defaultdict(list)
        for cell in cells:
            values[_agreed(cell, cells)].append(cell)
        if len(values) == 1:
            yield None
        else:
            common = max(values, key=lambda value: len(values[value]))
            odd = [cell for value, found in values.items() if value != common for cell in found]
            told = ", ".join(f"{c.value.text} in {c.table} ({c.row.label})" for c in values[common])
            for cell in odd:
                text = f"{cell.value.text}, but the same run has {told}"
                yield _finding("equal runs", Severity.ERROR, cell, text, _who_has(paper, cell))
        for first, second in combinations({cell.row.label + cell.table: cell for cell in cells}.values(), 2):
            for heading in first.row.cells.keys() & second.row.cells.keys():
                a, b = first.row.cells[heading], second.row.cells[heading]
                key = (heading, first.table, first.row.label, second.table, second.row.label)
                if a != b and key not in described:
                    described.add(key)
                    text = f"{heading} is {a} in {first.table} and {b} in {second.table} ({second.row.label}) for one model"
                    yield Finding("equal runs", Severity.ERROR, first.table, first.row.label, heading, text, where=first.where)
    yield from _descriptions(paper, described)


def _agreed(cell: Printed, cells: list[Printed]) -> Decimal | None:
    """The value with the fewest decimals that any of the cells prints; an approximate one agrees with what is close."""
    if cell.value.approximate:
        sharp = [c.number for c in cells if not c.value.approximate]
        near = [v for v in sharp if abs(v - cell.number) <= Decimal("2.5")]
        return near[0] if near else cell.number
    fewest = min(c.value.decimals for c in cells if not c.value.approximate)
    return cell.number.quantize(Decimal(1).scaleb(-fewest))


def _descriptions(paper: Paper, described: set[tuple[str, ...]]) -> Iterator[Finding]:
    """Rows of different tables that train the same stages the same way, though they share no column."""
    rows: dict[str, list[tuple[PrintedTable, Row, str]]] = defaultdict(list)
    for table in paper.tables:
        for index, row in enumerate(table.spec.rows):
            if row.cells and row.stages is not None:
                key = f"{row.stages} {sorted(row.set.items())}"
                rows[key].append((table, row, table.loaded.where("rows", index)))
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


# --- the text -------------------------------------------------------------------------------------------------------


def claims(paper: Paper) -> Iterator[Finding | None]:
    """What the text says, against the table it speaks of."""
    for table in paper.tables:
        values = table.values()
        columns = [column.name for column in table.spec.columns]
        rows = [row.label for row in table.spec.rows if row.delta is None]
        chance = {c.name: table.benchmarks[c.benchmark].scores[c.score].chance for c in table.spec.columns}
        for index, claim in enumerate(table.spec.claims):
            result = judge_reported(claim, values, rows, columns, chance)
            where = table.loaded.where("claims", index)
            failed = [part for part in result.parts if part.outcome is Holds.FAILS]
            if not failed:
                yield None
            for part in failed:
                text = f"{describe(claim)}: {part.text}"
                hint = _meant(claim, table, part.column)
                yield Finding("claims", Severity.ERROR, table.label, claim.rows[0], part.column, text, hint, claim.quote, where)


def _meant(claim: object, table: PrintedTable, column: str) -> str:
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
        if a and b and exact(a) - exact(b) == Fraction(claim.points):
            return f"{a.text} - {b.text} = {claim.points:+} is {first} over {second} on {name}"
    return ""


def _finding(rule: str, severity: Severity, cell: Printed, text: str, hint: str = "") -> Finding:
    return Finding(rule, severity, cell.table, cell.row.label, cell.title, text, hint, where=cell.where)


def statements(paper: Paper) -> Iterator[Finding | None]:
    """Two sentences about one thing say the same; a number given as a measurement is not just a ratio of two settings."""
    by_thing: dict[str, list[Statement]] = defaultdict(list)
    for statement in paper.statements:
        by_thing[statement.about].append(statement)
    for about, said in by_thing.items():
        first = said[0]
        others = [s for s in said[1:] if s.says != first.says]
        yield None if not others else Finding(
            "statements",
            Severity.ERROR,
            "Text",
            "",
            about,
            f"“{first.says}” ({first.source}), but " + " and ".join(f"“{s.says}” ({s.source})" for s in others),
            where=first.where,
        )
        for statement in said:
            for number, ratio in statement.ratios():
                text = f"{number} % is exactly {ratio}: arithmetic on settings, printed as if it were measured"
                note = statement.said.note
                yield Finding("statements", Severity.FLAG, "Text", "", about, text, note, statement.quote, statement.where)


RULES: dict[str, Rule] = {
    "sums": sums,
    "differences": differences,
    "counts": counts,
    "one rounding": one_rounding,
    "equal runs": equal_runs,
    "below chance": below_chance,
    "claims": claims,
    "statements": statements,
}


def audit(paper: Paper, rules: tuple[str, ...] = tuple(RULES)) -> Audit:
    """Every rule over every number."""
    findings: list[Finding] = []
    checked: dict[str, int] = {}
    for name in rules:
        found = list(RULES[name](paper))
        checked[name] = len(found)
        findings += [finding for finding in found if finding is not None]
    return Audit(tuple(findings), checked, paper.files)
