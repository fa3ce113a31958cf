r"""A report's tables as LaTeX (booktabs): `\input` the file; it needs \usepackage{booktabs,amssymb,graphicx}.

Pure ASCII apart from what was escaped; compiles under pdflatex. `document` wraps it into a file of its own.
"""

from __future__ import annotations

import string
import unicodedata
from dataclasses import replace
from itertools import groupby

from harness.report.numbers.fingerprint import STAMP
from harness.report.sections.types import Cell, Column, Report, Table, TableRow
from harness.report.writers.signs import with_signs

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
    "\N{BALLOT X}": r"$\times$",
    "\N{BLACK UP-POINTING TRIANGLE}": r"$\blacktriangle$",
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
_PLAIN = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MIDDLE DOT}": "-",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{ALMOST EQUAL TO}": "~",
    "\N{RIGHTWARDS ARROW}": "->",
} | _GREEK
"""In a comment, which is ASCII."""


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
    parts = unicodedata.normalize("NFD", character)
    base, marks = parts[0], parts[1:]
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


def typewriter(text: str) -> str:
    """As a person types it, quotes straight: what is pasted from the printed page is what stands here."""
    return rf"\texttt{{{''.join(map(_typed, text)).replace('--', '-{}-')}}}"


def _typed(character: str) -> str:
    if not character.isascii() or character in _SAFE or not character.isprintable():
        return escape(character)
    return _QUOTES.get(character, rf"{{\char{ord(character)}}}")  # a typewriter font has it in its place in ASCII


_SAFE = frozenset(string.ascii_letters + string.digits + " .,:;/()[]=+-*@!?")
_QUOTES = {"'": r"\textquotesingle{}", "`": r"\textasciigrave{}"}


WIDE, TALL, LINE, SENTENCE = 9, 30, 80, 44
"""Columns from which a table is always scaled to the line; rows that one float holds; about how many characters a line of
a table holds; the length from which a text is set as a paragraph."""


FITTED = r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
"""The table that stands in box 0, made smaller where it is wider than the line."""


def latex(report: Report) -> str:
    """Table environments, in the report's order, after its headline, which is a comment too."""
    lines = [
        f"% {comment(report.label)}: {comment(report.title)}. {comment(report.subtitle)}",
        f"% {STAMP} {report.fingerprint}",
        r"% Needs \usepackage{booktabs,amssymb,graphicx}.",
    ]
    if report.warning:
        lines.append(f"% {comment(report.warning)}")
    lines += [f"% {comment(line)}" for line in (report.conclusion, *report.headline) if line]
    if report.conclusion:
        lines += ["", rf"\noindent\textbf{{Conclusion.}} {escape(report.conclusion)}\par"]
    if report.headline:
        items = [rf"\item {{}}{escape(line)}" for line in report.headline]  # {}: what begins with [ is no label
        lines += ["", r"\begin{itemize}\small", *items, r"\end{itemize}"]
    for section in report.sections:
        for table in section.tables:
            if table.name != "jobs":
                for part in pieces(with_signs(table)):
                    lines += ["", *table_lines(part, report)]
                if section.name == "main" and section.bullets:
                    lines[-1:] = [rf"\par\raggedright\footnotesize {escape(text)}" for text in section.bullets] + lines[-1:]
    return "\n".join(lines) + "\n"


def comment(text: str) -> str:
    """The text on one line, in ASCII, without control characters."""
    return "".join(c if " " <= c <= "~" else _PLAIN.get(c) or _bare(c) for c in unicodedata.normalize("NFC", text))


def _bare(character: str) -> str:
    """The letter without its accents; a question mark for what ASCII has no letter for."""
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if " " <= c <= "~")
    return base or ("?" if character.isprintable() else " ")


def document(body: str) -> str:
    """A file of its own around `latex`'s text."""
    return (
        "\\documentclass[a4paper,landscape,10pt]{article}\n\\usepackage[margin=1.5cm]{geometry}\n"
        "\\usepackage{booktabs,amssymb,graphicx}\n\\begin{document}\n" + body + "\\end{document}\n"
    )


def pieces(table: Table) -> list[Table]:
    """The table as floats that fit a page: broken between groups of rows, notes under the last."""
    groups = [tuple(rows) for _, rows in groupby(table.rows, key=lambda row: row.group)]
    parts: list[tuple[TableRow, ...]] = [()]
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
    """One table environment, no wider than the line. Column groups stand over a rule of their own; many columns have their
    intervals below the values."""
    wide = len(table.columns) > WIDE
    letters = column_letters(table)
    ragged = [r"\raggedright " * letter.startswith("p") for letter in letters]
    # Ragged text has another meaning for \\; rows of several lines are kept apart.
    end = r" \tabularnewline\addlinespace" if any(ragged) else r" \\"
    warning = f"{report.warning} " if report.warning and not report.paper else ""  # a table that is not the paper's says so
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(warning + table.caption)}}}",
        rf"\label{{tab:{report.name}-{table.name}}}".replace("_", "-"),
        (r"\resizebox{\linewidth}{!}{" if wide else r"\sbox0{") + rf"\begin{{tabular}}{{{''.join(letters)}}}",
        r"\toprule",
    ]
    if any(column.group for column in table.columns):
        heads, rules = group_heads(table.columns)
        lines += [" & ".join(["", *heads]) + r" \\", " ".join(rules)]
    titles = (table.stub, *(column.title for column in table.columns))
    lines += [" & ".join(how + escape(title) for how, title in zip(ragged, titles)) + end, r"\midrule"]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        if group:
            lines.append(rf"\multicolumn{{{len(letters)}}}{{l}}{{\textit{{{escape(group)}}}}} \\")
        for row in rows:
            mark = rf"\textsuperscript{{{escape(row.marks)}}}" if row.marks else ""
            # A row that begins with [ would be read as the optional argument of the line break before it.
            texts = ("{}" + escape(row.label) + mark, *(cell_text(cell, wide) for cell in row.cells))
            lines.append(" & ".join(how + text for how, text in zip(ragged, texts)) + end)
    lines += [r"\bottomrule", r"\end{tabular}}", *([] if wide else [FITTED])]
    lines += [rf"\par\raggedright\footnotesize {escape(note)}" for note in table.notes]
    if table.command:
        lines.append(rf"\par\raggedright\footnotesize {typewriter(table.command)}")
    return [*lines, r"\end{table}"]


def column_letters(table: Table) -> list[str]:
    """How each column is set. Where one holds sentences, all that hold text are paragraphs, and the columns share the line: each
    has room for its longest word (a column of numbers for its longest number), and a long text has more of what is left."""
    columns = [(table.stub, [row.label for row in table.rows], False)]
    for place, column in enumerate(table.columns):
        cells = [row.cells[place] for row in table.rows]
        columns.append((column.title, [f"{cell.display} {cell.detail}".strip() for cell in cells], column.numeric))
    longest = [max(map(len, texts), default=0) for _, texts, _ in columns]
    if all(numeric or long <= SENTENCE for (*_, numeric), long in zip(columns, longest)):
        return ["r" if numeric else "l" for *_, numeric in columns]
    room: list[float] = []
    for (title, texts, numeric), long in zip(columns, longest):
        words = [word for text in (title, *texts) for word in text.split()]
        room.append(2 + (long if numeric else min(16, max(map(len, words), default=0))))
    left = max(0, LINE - sum(room)) / sum(long for (*_, numeric), long in zip(columns, longest) if not numeric)
    room = [own if numeric else own + left * long for own, (*_, numeric), long in zip(room, columns, longest)]
    parts = [f"{own / sum(room):.3f}" for own in room]
    return [
        "r" if numeric else rf"p{{\dimexpr{part}\linewidth-2\tabcolsep\relax}}" for part, (*_, numeric) in zip(parts, columns)
    ]


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
