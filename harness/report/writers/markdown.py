"""A report as GitHub-flavoured markdown."""

from __future__ import annotations

import re
from itertools import groupby
from urllib.parse import quote

from harness.report.numbers.fingerprint import STAMP
from harness.report.sections.types import Cell, Report, Section, Table, TableRow
from harness.report.writers.signs import with_signs

_SPECIAL = re.compile(r"([\\`*_<>|]|\[(?=[^\]]*\]\()|\](?=\())")
"""What markdown would read as markup; brackets only where they would make a link."""


def markdown(report: Report) -> str:
    """The whole file."""
    lines = [f"# {escape(report.label)}: {escape(report.title)}", "", escape(report.subtitle), ""]
    for words, address in report.links.items():
        lines += [f"[{escape(words)}]({quote(address.removesuffix('.html'))}.md)", ""]
    if report.warning:
        lines += [f"> **{escape(report.warning)}**", ""]
    if report.conclusion:
        lines += [f"**Conclusion.** {escape(report.conclusion)}", ""]
    if report.headline:
        lines += [f"- {escape(line)}" for line in report.headline] + [""]
    main, *rest = report.sections
    lines += section_lines(main)
    if report.chart is not None:
        lines += [f"![{escape(report.chart.title)}]({report.name}.png)", ""]
    for one in report.drawings:
        lines += [f"![{escape(one.title)}](figures/{one.stem}.png)", ""]
    for section in rest:
        lines += section_lines(section)
    if report.data.get("cells"):
        lines += [f"Every cell with its n, seeds, rates and the keys of its jobs: [{report.name}.json]({report.name}.json).", ""]
    lines.append(f"<!-- {STAMP} {report.fingerprint} -->")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """So that the text stands as it is, also inside a table."""
    return _SPECIAL.sub(r"\\\1", text).replace("\n", " ")


def section_lines(section: Section) -> list[str]:
    lines = [f"## {escape(section.title)}", ""] if section.title else []
    if section.folded:
        lines = ["<details>", f"<summary>{escape(section.title)}</summary>", ""]
    for paragraph in section.text:
        lines += [escape(paragraph), ""]
    for table in section.tables:
        lines += table_lines(with_signs(table))
    if section.bullets:
        lines += [f"- {escape(line)}" for line in section.bullets] + [""]
    if section.folded:
        lines += ["</details>", ""]
    return lines


def table_lines(table: Table) -> list[str]:
    """A pipe table; column groups become part of the heading, row groups a line of their own."""
    heading = [escape(table.stub)]
    for column in table.columns:
        group = f"{escape(column.group)}: " if column.group else ""
        heading.append(f"{group}{escape(column.title)}")
    rule = [":---"] + ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [f"**{escape(table.caption)}**", "", pipe(heading), pipe(rule)]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        if group:
            lines.append(pipe([f"*{escape(group)}*"] + [""] * len(table.columns)))
        lines += [row_line(row) for row in rows]
    lines.append("")
    notes = [f"- {escape(note)}" for note in table.notes]
    if table.command:
        notes = [*notes[:-1], f"{notes[-1] if notes else '-'} `{table.command.replace('`', '')}`"]
    if notes:
        lines += [*notes, ""]
    return lines


def pipe(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def row_line(row: TableRow) -> str:
    label = escape(row.label) + (f" <sup>{escape(row.marks)}</sup>" if row.marks else "")
    return pipe([label] + [cell_text(cell) for cell in row.cells])


def cell_text(cell: Cell) -> str:
    """Value and interval; a cell without a value says why."""
    text = escape(cell.display)
    if cell.tone == "strong" and text:
        text = f"**{text}**"
    if cell.detail:
        text += f" {escape(cell.detail)}"
    if cell.inline and cell.note:
        text = escape(cell.note)
    return text
