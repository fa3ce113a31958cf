"""A report on a terminal: its name, its conclusion, and the table in lines of at most 100 characters."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cli.words import columns

WIDTH = 100


def screen(report: Mapping[str, Any], width: int | None = None) -> str:
    """report: what its JSON file holds (`harness.report.writers.machine`). width: characters in a line; None asks the terminal."""
    width = width or min(WIDTH, max(60, shutil.get_terminal_size((WIDTH, 24)).columns))
    parts = [f"{report['table']}: {report['title']}", *textwrap.wrap(report["subtitle"], width)]
    for text in (report["warning"], report["conclusion"], *report["headline"]):
        if text:
            parts += ["", *textwrap.wrap(text, width)]
    table = (
        accuracies(report["cells"], width)
        if any("latents" in cell for cell in report["cells"])
        else first(report["cells"], width)
    )
    return "\n".join([*parts, *(["", table] if table else [])])


def accuracies(cells: Sequence[Mapping[str, Any]], width: int) -> str:
    """A line for each row, in as many blocks of columns as the width asks for."""
    protocol = cells[0]["protocol"]
    shown = [cell for cell in cells if cell["latents"] == "own" and cell["protocol"] == protocol]
    found = {(cell["row"], cell["column"]): cell for cell in shown}
    titles = {cell["column"]: cell["title"] for cell in shown}
    rows = list(dict.fromkeys(cell["row"] for cell in shown))
    paper = any(cell["reported"] for cell in shown)
    blocks = []
    for column, title in titles.items():
        lines = [(title, "paper") if paper else (title,)]
        for row in rows:
            cell = found[row, column]
            lines.append((value(cell), printed(cell)) if paper else (value(cell),))
        blocks.append(lines)
    return in_blocks(["", *rows], blocks, width)


def value(cell: Mapping[str, Any]) -> str:
    """87.5 [58.4, 97.2], or why there is no value; * marks a row that is shown to be above all others."""
    if cell["value"] is None:
        return str(cell["state"])
    return f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" + "*" * bool(cell.get("best_shown"))


def printed(cell: Mapping[str, Any]) -> str:
    """The paper's value, and the verdict where the scale allows one."""
    verdict = (
        cell["verdict"] if cell["verdict"] not in (None, "proxy", "not reported") and cell["value"] is not None else ""
    )
    return " ".join(filter(None, (cell["reported"] or "–", verdict)))


def first(cells: Sequence[Mapping[str, Any]], width: int) -> str:
    """The first table of a report without accuracies."""
    shown = [cell for cell in cells if cell["table"] == cells[0]["table"]] if cells else []
    found = {(cell["row"], cell["column"]): cell["display"] for cell in shown}
    rows = list(dict.fromkeys(cell["row"] for cell in shown))
    names = dict.fromkeys(cell["column"] for cell in shown)
    return in_blocks(
        ["", *rows], [[(name,), *((found.get((row, name), ""),) for row in rows)] for name in names], width
    )


def in_blocks(labels: Sequence[str], blocks: Sequence[Sequence[tuple[str, ...]]], width: int) -> str:
    """labels: the first column. blocks: columns that stay together, each a heading and a line for each label."""
    most = max(20, width // 3)
    short = [label if len(label) <= most else label[: most - 1] + "…" for label in labels]
    tables: list[list[list[str]]] = []
    for block in blocks:
        wider = [[*line, *more] for line, more in zip(tables[-1], block, strict=True)] if tables else []
        if wider and max(map(len, columns(wider).splitlines())) <= width:
            tables[-1] = wider
        else:
            tables.append([[label, *more] for label, more in zip(short, block, strict=True)])
    return "\n\n".join(map(columns, tables))
