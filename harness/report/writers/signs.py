"""Signs for what a tone says, the same in every format: colour is lost on grey paper, and on some eyes."""

from __future__ import annotations

from dataclasses import replace

from harness.report.sections.types import Cell, Table

WARNED, HOLDS, FAILS = "\N{BLACK UP-POINTING TRIANGLE}", "\N{CHECK MARK}", "\N{BALLOT X}"


def with_signs(table: Table) -> Table:
    """As every writer shows it: what a tone says is said by a sign too, since colour is lost on grey paper and on some eyes,
    and what columns note stands below the table."""
    rows = tuple(replace(row, cells=tuple(sign(cell, table) for cell in row.cells)) for row in table.rows)
    return replace(table, rows=rows, notes=(*legend(table), *table.notes))


def sign(cell: Cell, table: Table) -> Cell:
    """Of a claim, how it came out, which is not bold: bold is p ≤ 0.05. Elsewhere that a value is to be read with care;
    a cell without a value says so in words."""
    if table.name == "claims" and cell.tone in ("strong", "warning"):
        holds = cell.tone == "strong"
        return replace(cell, display=f"{HOLDS if holds else FAILS} {cell.display}", tone="plain" if holds else "warning")
    return replace(cell, display=f"{WARNED} {cell.display}") if warned(cell) else cell


def warned(cell: Cell) -> bool:
    return cell.tone == "warning" and cell.value is not None


def legend(table: Table) -> list[str]:
    """What the sign means in this table, and the columns' notes that the table's own do not repeat."""
    found = [(row, column, cell) for row in table.rows for column, cell in zip(table.columns, row.cells) if warned(cell)]
    lines = [f"{WARNED} above 1 %."] * any(not cell.note for _, _, cell in found)  # a rate
    lines += [
        f"{WARNED} {row.label}, {column.group or column.title}: {cell.note}." for row, column, cell in found if cell.note
    ]
    for column in table.columns:
        if column.note and not any(column.note in said for said in table.notes):
            lines.append(f"{column.group}{', ' * bool(column.group)}{column.title}: {column.note}.")
    return lines
