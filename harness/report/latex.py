r"""A report's tables as LaTeX (booktabs): `\input` the file; it needs \usepackage{booktabs,amssymb,graphicx}.

Pure ASCII apart from what was escaped; compiles under pdflatex. `document` wraps it into a file of its own.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from itertools import groupby

from harness.report.fingerprint import STAMP
from harness.report.types import Cell, Column, Report, Row, Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    '"': "''",
    "'": "'",
    "`": r"\`{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{NABLA}": r"$\nabla$",
    "\N{CHECK MARK}": r"$\checkmark$",
    "\N{BULLET}": r"$\bullet$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{DAGGER}": r"\dag{}",
    "\N{DOUBLE DAGGER}": r"\ddag{}",
    "\N{SECTION SIGN}": r"\S{}",
    "\N{PILCROW SIGN}": r"\P{}",
    "\N{NO-BREAK SPACE}": "~",
    "\n": " ",
    "\t": " ",
}
_GREEK = {chr(code): name for code, name in zip(range(0x3B1, 0x3CA), [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    None, "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"]) if name}  # fmt: skip
_GREEK |= {
    capital: capital_name
    for name in ("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega")
    for capital, capital_name in [(next(k for k, v in _GREEK.items() if v == name).upper(), name.capitalize())]
}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u030c": "v", "\u0327": "c"}


PARAGRAPH = "p{5cm}"
"""A column of sentences."""


def escape(text: str) -> str:
    """Any text as LaTeX that prints it: special characters, Greek, accents; what is unknown becomes its U+ number."""
    printed = "".join(_character(character) for character in unicodedata.normalize("NFC", text))
    return printed.replace("--", "-{}-") if "--" in text else printed  # two hyphens would become one dash


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character in _GREEK:
        return rf"$\{_GREEK[character]}$"
    if " " <= character <= "~":
        return character
    base, *marks = unicodedata.normalize("NFD", character)
    if " " < base <= "~" and marks and all(mark in _ACCENTS for mark in marks):
        text = base
        for mark in marks:
            text = rf"\{_ACCENTS[mark]}{{{text}}}"
        return text
    plain = unicodedata.normalize("NFKD", character)
    if plain != character and plain.isascii():
        return "".join(map(_character, plain))
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return ""
    return rf"\texttt{{U+{ord(character):04X}}}"


WIDE, TALL = 9, 30
"""Columns from which a table is scaled to the line; rows that one float holds."""


def latex(report: Report) -> str:
    """Table environments, in the report's order, with its headline as a comment."""
    lines = [
        f"% {comment(report.label)}: {comment(report.title)}. {comment(report.subtitle)}",
        f"% {STAMP} {report.fingerprint}",
        r"% Needs \usepackage{booktabs,amssymb,graphicx}.",
    ]
    if report.warning:
        lines.append(f"% {comment(report.warning)}")
    lines += [f"% {comment(line)}" for line in report.headline]
    for section in report.sections:
        for table in section.tables:
            if table.name != "jobs":
                for part in pieces(table):
                    lines += ["", *table_lines(part, report)]
                if section.name == "main" and section.bullets:
                    lines[-1:] = [rf"\par\raggedright\footnotesize {escape(text)}" for text in section.bullets] + lines[-1:]
    return "\n".join(lines) + "\n"


def comment(text: str) -> str:
    """The text on one line, in ASCII, without control characters."""
    return "".join(c if " " <= c <= "~" else "?" if c.isprintable() else " " for c in text)


def document(body: str) -> str:
    """A file of its own around `latex`'s text."""
    return (
        "\\documentclass[a4paper,landscape,10pt]{article}\n\\usepackage[margin=1.5cm]{geometry}\n"
        "\\usepackage{booktabs,amssymb,graphicx}\n\\begin{document}\n" + body + "\\end{document}\n"
    )


def pieces(table: Table) -> list[Table]:
    """The table as floats that fit a page: broken between groups of rows, notes under the last."""
    groups = [tuple(rows) for _, rows in groupby(table.rows, key=lambda row: row.group)]
    parts: list[tuple[Row, ...]] = [()]
    for rows in groups:
        if parts[-1] and len(parts[-1]) + len(rows) > TALL:
            parts.append(())
        parts[-1] += rows
    if len(parts) == 1:
        return [table]
    made = []
    for number, rows in enumerate(parts, start=1):
        last = number == len(parts)
        made.append(
            replace(
                table, name=f"{table.name}-{number}", caption=f"{table.caption} Part {number} of {len(parts)}.", rows=rows,
                notes=table.notes if last else (), command=table.command if last else "",
            )
        )  # fmt: skip
    return made


def table_lines(table: Table, report: Report) -> list[str]:
    """One table environment. Column groups stand over a rule of their own; many columns are scaled to the line's width, their
    intervals below the values."""
    wide = len(table.columns) > WIDE
    texts = [[row.label for row in table.rows]]
    texts += [[row.cells[i].display for row in table.rows] for i in range(len(table.columns))]
    kinds = ["l", *("r" if column.numeric else "l" for column in table.columns)]
    letters = [long_column(column) if kind == "l" else kind for kind, column in zip(kinds, texts)]
    if letters.count(PARAGRAPH) > 3:  # sentences share the line
        letters = ["p{3.6cm}" if letter == PARAGRAPH else letter for letter in letters]
    spec = "".join(letters)
    warning = f"{report.warning} " if report.warning and not report.paper else ""  # a table that is not the paper's says so
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(warning + table.caption)}}}",
        rf"\label{{tab:{report.name}-{table.name}}}".replace("_", "-"),
        (r"\resizebox{\linewidth}{!}{" if wide else "") + rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
    ]
    if any(column.group for column in table.columns):
        heads, rules = group_heads(table.columns)
        lines += [" & ".join(["", *heads]) + r" \\", " ".join(rules)]
    lines += [" & ".join([escape(table.stub), *(escape(column.title) for column in table.columns)]) + r" \\", r"\midrule"]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        if group:
            lines.append(rf"\multicolumn{{{len(letters)}}}{{l}}{{\textit{{{escape(group)}}}}} \\")
        for row in rows:
            mark = rf"\textsuperscript{{{escape(row.marks)}}}" if row.marks else ""
            # A row that begins with [ would be read as the optional argument of the line break before it.
            lines.append(" & ".join(["{}" + escape(row.label) + mark, *(cell_text(c, wide) for c in row.cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}" + "}" * wide]
    lines += [rf"\par\raggedright\footnotesize {escape(note)}" for note in table.notes]
    if table.command:
        lines.append(rf"\par\raggedright\footnotesize \texttt{{{escape(table.command)}}}")
    return [*lines, r"\end{table}"]


def long_column(texts: list[str], width: int = 44) -> str:
    """A column of sentences is set as paragraphs, so that the table stays on the page."""
    return PARAGRAPH if max(map(len, texts), default=0) > width else "l"


def group_heads(columns: tuple[Column, ...]) -> tuple[list[str], list[str]]:
    heads, rules, at = [], [], 2
    for group, found in groupby(columns, key=lambda column: column.group):
        width = len(list(found))
        if group:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        else:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{}}")
        at += width
    return heads, rules


def cell_text(cell: Cell, stacked: bool = False) -> str:
    """stacked: the detail under the value."""
    text = escape(cell.display)
    if cell.inline and cell.note:
        text = rf"\textit{{{escape(shorten(cell.note))}}}"
    if cell.tone == "strong" and text:
        text = rf"\textbf{{{text}}}"
    detail = rf"{{\scriptsize {escape(cell.detail)}}}" if cell.detail else ""
    if stacked and detail:
        return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{text}\\{detail}\end{{tabular}}"
    return f"{text} {detail}" if detail else text


def shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
