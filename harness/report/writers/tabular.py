r"""The paper's table alone: one booktabs tabular, to be read into a paper with `\input`; it needs \usepackage{booktabs}.

Bold is the best row of a column where it is shown to be above all others, not where its number is the largest.
"""

from __future__ import annotations

from typing import Any

from harness.report.numbers.fingerprint import STAMP, of_choice
from harness.report.sections.types import Report
from harness.report.sections.words import MINUS
from harness.report.writers.latex import cell_text, comment, escape

BESIDE = ("interval", "half", "none")


def tabular_alone(report: Report, beside: str = "interval") -> str:
    """beside: what stands by each value. A report without accuracies has its first table here as it is."""
    warning = [f"% {comment(report.warning)}"] if report.warning else []
    stamp = f"% {STAMP} {of_choice(report.fingerprint, beside)}"
    lines = [f"% {comment(report.label)}: {comment(report.title)}. {comment(report.subtitle)}", stamp, *warning]
    cells = [cell for cell in report.data.get("cells", ()) if cell.get("latents") == "own"]
    if not cells:
        return "\n".join([*lines, *of_first_table(report)]) + "\n"
    main = next(section.tables[0] for section in report.sections if section.name == "main")
    proxy = any(column.title == "proxy" for column in main.columns)
    return "\n".join([*lines, *of_cells(cells, beside, proxy)]) + "\n"


def of_cells(cells: list[dict[str, Any]], beside: str, proxy: bool) -> list[str]:
    """proxy: said above every number, so that none can be taken for the paper's; where the paper's are known they stand beside."""
    protocol = cells[0]["protocol"]
    found = {(cell["row"], cell["column"]): cell for cell in cells if cell["protocol"] == protocol}
    rows = list(dict.fromkeys(row for row, _ in found))
    titles = {cell["column"]: cell["title"] for cell in found.values()}
    heads = ["proxy" if proxy else "measured", *(["paper"] if any(cell.get("reported") for cell in found.values()) else [])]
    width = len(heads)
    lines = [rf"\begin{{tabular}}{{l{'r' * (width * len(titles))}}}", r"\toprule"]
    over = [rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}" if width > 1 else escape(title) for title in titles.values()]
    lines.append(" & ".join(["", *over]) + r" \\")
    if width > 1:
        lines.append(" ".join(rf"\cmidrule(lr){{{2 + width * k}-{1 + width * (k + 1)}}}" for k in range(len(titles))))
    if proxy or width > 1:
        lines.append(" & ".join(["", *heads * len(titles)]) + r" \\")
    lines.append(r"\midrule")
    for row in rows:
        values = []
        for column in titles:
            cell = found.get((row, column))
            values.append(value(cell, beside) if cell else "--")
            values += [escape(str((cell or {}).get("reported") or "\N{EN DASH}"))] * (width - 1)
        lines.append(" & ".join(["{}" + escape(row), *values]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def value(cell: dict[str, Any], beside: str) -> str:
    if cell["value"] is None:
        return escape(cell["state"])
    text = f"{cell['value']:.1f}".replace("-", MINUS)
    shown = rf"\textbf{{{escape(text)}}}" if cell["best_shown"] else escape(text)
    if beside == "none" or cell["low"] is None:
        return shown
    if beside == "half":
        return rf"{shown} {{\scriptsize $\pm$ {(cell['high'] - cell['low']) / 2:.1f}}}"
    return rf"{shown} {{\scriptsize [{cell['low']:.1f}, {cell['high']:.1f}]}}"


def of_first_table(report: Report) -> list[str]:
    table = next((table for section in report.sections for table in section.tables), None)
    if table is None:
        return ["% no table"]
    letters = "".join("r" if column.numeric else "l" for column in table.columns)
    head = [table.stub, *(" ".join(filter(None, (column.group, column.title))) for column in table.columns)]
    lines = [rf"\begin{{tabular}}{{l{letters}}}", r"\toprule", " & ".join(map(escape, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(["{}" + escape(row.label), *map(cell_text, row.cells)]) + r" \\" for row in table.rows]
    return [*lines, r"\bottomrule", r"\end{tabular}"]
