"""Accuracy independent of format: among readable answers, the upper bound, and by kind of question."""

from __future__ import annotations

import pandas as pd

from harness.report.numbers.measure import Unmeasured
from harness.report.numbers.results import BASE, Results
from harness.report.sections.tables import own_base
from harness.report.sections.types import Cell, Column, Table, TableRow
from harness.report.sections.words import count, percent, share
from harness.spec.benchmark import Protocol

KINDS = ("category", "task", "kind")
"""Groups of a sample that say what kind of question it is; the first with several values counts."""
MOST_KINDS = 30


def shown_rows(results: Results) -> list[str]:
    labels = [label for label, arm in results.arms.items() if arm.row.delta is None and not arm.silent]
    return [*([BASE] if own_base(results) else []), *labels]


def answered(results: Results, row: str, column: str, protocol: Protocol) -> pd.DataFrame | None:
    """The rows of all seeds that a column's score counts, `correct` as the row's answers are read. None without a result, or
    where the score is no mean over questions."""
    try:
        found = results.found(row, column, protocol)
    except Unmeasured:
        return None
    column_spec, extract = results.columns[column], results.arms[row].extract if row in results.arms else "strict"
    benchmark = results.study.benchmarks[column_spec.benchmark]
    measured = list(found.by_job.values())
    if not all(one.is_mean(benchmark, column_spec.score) for one in measured):
        return None
    return pd.concat([one.scored(benchmark, column_spec.score, extract) for one in measured], ignore_index=True)


def readable_table(results: Results, protocol: Protocol = "paper") -> Table | None:
    """Accuracy as counted (unreadable is wrong), among readable answers, and were all unreadable ones right."""
    columns = [
        column
        for name in results.columns
        for column in (Column("accuracy", results.title(name)), Column("among readable", results.title(name)), Column("at most", results.title(name)))
    ]
    rows = []
    for row in shown_rows(results):
        cells: list[Cell] = []
        for name in results.columns:
            frame = answered(results, row, name, protocol)
            if frame is None:
                cells += [Cell("–", tone="muted")] * 3
                continue
            read = frame["unparsed"] == 0
            right = frame["correct"].mean()
            among = frame["correct"][read].mean() if read.any() else None
            most = frame["correct"].where(read, 1.0).mean()
            note = f"{share(float((~read).mean()))} unreadable"
            cells += [
                Cell(percent(right), 100 * right),
                Cell("–", tone="muted") if among is None else Cell(percent(among), 100 * among, note=note),
                Cell(percent(most), 100 * most, note=note),
            ]
        rows.append(TableRow(row, tuple(cells)))
    if not any(cell.value is not None for row in rows for cell in row.cells):
        return None
    return Table(
        f"readable-{protocol}",
        "Ability and format: accuracy in percent where an unreadable answer is wrong, among the answers with a readable option "
        "letter, and at most, were every unreadable answer right. Questions weigh alike.",
        tuple(columns),
        tuple(rows),
        stub="Row",
    )


def kind_tables(results: Results, protocol: Protocol = "paper") -> tuple[Table, ...]:
    """One table a benchmark whose samples carry kinds: accuracy by kind, since a column can rise by one and fall by another."""
    tables = []
    for name in results.columns:
        if results.columns[name].score != "overall":
            continue
        frames = {row: frame for row in shown_rows(results) if (frame := answered(results, row, name, protocol)) is not None}
        kinds = {row: kind_of(frame) for row, frame in frames.items()}
        order = sorted({kind for found in kinds.values() if found is not None for kind in found.unique()})
        if not 1 < len(order) <= MOST_KINDS:
            continue
        rows = []
        for row, frame in frames.items():
            found = kinds[row]
            by_kind = frame["correct"].groupby(found).mean() if found is not None else pd.Series(dtype=float)
            cells = [Cell(percent(by_kind[kind]), 100 * float(by_kind[kind])) if kind in by_kind else Cell("–", tone="muted") for kind in order]
            rows.append(TableRow(row, tuple(cells)))
        asked = next(frame for row, frame in frames.items() if kinds[row] is not None).drop_duplicates("id")
        sizes = kind_of(asked)
        assert sizes is not None
        counts = sizes.value_counts()
        tables.append(
            Table(
                f"kinds-{name}-{protocol}",
                f"{results.title(name)} by kind of question, accuracy in percent; exploratory, without intervals.",
                tuple(Column(kind, note=count(int(counts.get(kind, 0)), "question")) for kind in order),
                tuple(rows),
                stub="Row",
            )
        )
    return tuple(tables)


def kind_of(frame: pd.DataFrame) -> pd.Series | None:
    """Each sample's kind: a group of KINDS, else its task where there are several. None where all are of one kind."""
    for name in KINDS:
        found = frame["groups"].map(lambda groups, name=name: groups.get(name))
        if found.notna().all() and found.nunique() > 1:
            return found.astype(str)
    tasks = frame["id"].map(lambda identity: str(identity[0]))
    return tasks if tasks.nunique() > 1 else None
