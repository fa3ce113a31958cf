from __future__ import annotations

import re
import shutil
import string
import subprocess
from dataclasses import replace

import pytest

from harness.report.sections.types import Cell, Column, Report, Section, Table, TableRow
from harness.report.writers.latex import column_letters, comment, document, escape, latex, typewriter
from harness.report.writers.markdown import markdown
from harness.report.writers.signs import with_signs


def report(*labels: str, display: str = "1.0") -> Report:
    rows = tuple(TableRow(label, (Cell(display, detail="[0.1, 2.0]"), Cell("72.3")), marks="a", group=label[:1]) for label in labels)
    table = Table("t", labels[0], (Column("proxy", labels[0]), Column("paper", labels[0])), rows, stub="Row", notes=labels)
    return Report("table9", "Table 9", labels[0], "", (), (Section("", tables=(table,)),), None, "0" * 64)


@pytest.mark.parametrize(
    "text, printed",
    [
        ("50 %", r"50 \%"),
        ("a_b & c#d", r"a\_b \& c\#d"),
        ("{x} $y$", r"\{x\} \$y\$"),
        ("~15 ^ \\frac", r"\textasciitilde{}15 \textasciicircum{} \textbackslash{}frac"),
        ("--set p=0.3", "-{}-set p=0.3"),
        ("λ_feat = 0", r"$\lambda$\_feat = 0"),
        ("Δ ✓ † ± × ≤ −3", r"$\Delta$ $\checkmark$ \dag{} $\pm$ $\times$ $\leq$ $-$3"),
        ("naïve Müller Ångström", r"na\"{i}ve M\"{u}ller \r{A}ngstr\"{o}m"),
        ("漢", r"\texttt{U+6F22}"),
        ("a\nb\x00", "a b"),
        ("<|lvr_start|>", r"$<$\textbar{}lvr\_start\textbar{}$>$"),
    ],
)
def test_escaping_prints_the_text_itself(text, printed):
    assert escape(text) == printed


def test_no_special_character_survives_unescaped():
    body = escape(string.printable)
    for character in "&%#_":
        assert not re.search(rf"(?<!\\){re.escape(character)}", body)


def test_a_row_that_begins_with_a_bracket_is_no_argument_of_the_line_break():
    assert "\n{}[x]" in latex(report("[x]"))


def test_a_tall_table_is_broken_between_groups_and_a_wide_one_scaled_with_intervals_below():
    rows = tuple(TableRow(f"r{i}", (Cell("1.0", detail="[0.1, 2.0]"),) * 16, group=f"g{i // 20}") for i in range(60))
    table = Table("t", "Caption.", (Column("a"),) * 16, rows, stub="Row", notes=("the note",), command="run.py samples")
    text = latex(Report("table9", "Table 9", "x", "", (), (Section("", tables=(table,)),), None, "0" * 64))
    assert text.count(r"\begin{table}") == 3 and "Part 2 of 3." in text and text.count("the note") == 1
    assert text.count(r"\texttt{run.py samples}") == 1 and text.index("the note") > text.index("Part 3 of 3.")
    assert text.count(r"\resizebox{\linewidth}{!}{\begin{tabular}") == 3 == text.count(r"\end{tabular}}")
    assert r"\begin{tabular}[t]{@{}r@{}}1.0\\{\scriptsize [0.1, 2.0]}\end{tabular}" in text
    assert len({line for line in text.splitlines() if line.startswith(r"\label")}) == 3


def test_the_whole_file_is_ascii():
    assert latex(report("λ — “quoted” Ünïcode 漢 ✓")).isascii()


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_real_latex_compiles_it(tmp_path):
    from harness.report import render
    from harness.store import Store
    from tests.harness.report.world import fill, make_plan

    plan, store = make_plan(tmp_path, n=40), Store(tmp_path / "results")
    fill(store, plan, n=40)
    render(plan, store, tmp_path, formats=("tex", "main"))
    written = [(tmp_path / f"table3c-{part}.tex").read_text() for part in ("full", "main")]
    bodies = [*written, latex(report(string.printable, "λ — “q” Ünïcode 漢 ✓", "[x]"))]
    for number, body in enumerate(bodies):
        source = tmp_path / f"paper{number}.tex"
        source.write_text(document(body))
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", source.name]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
        assert source.with_suffix(".pdf").stat().st_size > 5000


def test_comments_are_ascii_that_says_the_same():
    assert comment("[−0.8, +3.2] – ×2, ≥ 5, ≤ 6 · “q” λ naïve 漢\n") == '[-0.8, +3.2] - x2, >= 5, <= 6 - "q" lambda naive ? '


def test_the_headline_is_a_list_before_the_first_table():
    text = latex(replace(report("r"), headline=("Read with care: 5 % − more", "[x] first")))
    assert "% Read with care: 5 % - more\n" in text
    assert "\\item {}Read with care: 5 \\% $-$ more\n\\item {}[x] first\n\\end{itemize}" in text
    assert text.index(r"\end{itemize}") < text.index(r"\begin{table}")
    assert "itemize" not in latex(report("r")), "an empty list is an error"


def test_a_command_is_printed_as_it_is_typed():
    assert typewriter('run.py "A_1 (x)" --y') == r"\texttt{run.py {\char34}A{\char95}1 (x){\char34} -{}-y}"
    assert typewriter("it's `a` é") == r"\texttt{it\textquotesingle{}s \textasciigrave{}a\textasciigrave{} \'{e}}"


def claims_table() -> Table:
    columns = tuple(Column(title, numeric=False) for title in ("words", "reported", "here", "rests on"))
    rows = (
        TableRow("A is best", (Cell("said so " * 5), Cell("holds", tone="strong"), Cell("fails at proxy scale", tone="warning"), Cell("why " * 30))),
    )
    return Table("claims", "Claims.", columns, rows, stub="Claim")


def test_columns_with_sentences_share_the_line():
    letters = column_letters(claims_table())
    parts = [float(re.fullmatch(r"p\{\\dimexpr(0\.\d+)\\linewidth-2\\tabcolsep\\relax\}", letter)[1]) for letter in letters]
    assert len(parts) == 5 and sum(parts) == pytest.approx(1, abs=0.005) and parts[4] == max(parts) and min(parts) > 0.08
    assert column_letters(report("short").sections[0].tables[0]) == ["l", "r", "r"]


def test_claims_are_marked_and_not_bold():
    made = Report("table9", "Table 9", "x", "", (), (Section("", tables=(claims_table(),), name="claims"),), None, "0" * 64)
    text = latex(made)
    assert r"$\checkmark$ holds" in text and r"$\times$ fails at proxy scale" in text and "textbf" not in text
    assert "| ✓ holds | ✗ fails at proxy scale |" in markdown(made)


def test_a_warning_is_a_sign_with_a_legend_and_a_columns_note_is_printed():
    columns = (Column("cut off", "MMVP", note="of 300"), Column("own", "BLINK", note="said below"))
    cells = (Cell("3.2 %", 3.2, tone="warning"), Cell("51.0", 51.0, tone="warning", note="seed 1 failed"))
    rows = (TableRow("A", cells), TableRow("B", (Cell("not run", tone="warning"), Cell("50.0", 50.0))))
    shown = with_signs(Table("t", "Caption.", columns, rows, notes=("BLINK: said below; more",)))
    assert [cell.display for row in shown.rows for cell in row.cells] == ["▲ 3.2 %", "▲ 51.0", "not run", "50.0"]
    assert shown.notes == ("▲ above 1 %.", "▲ A, BLINK: seed 1 failed.", "MMVP, cut off: of 300.", "BLINK: said below; more")
    assert escape("▲ 3.2 %") == r"$\blacktriangle$ 3.2 \%"


def test_columns_with_equal_notes_all_have_theirs():
    columns = tuple(Column(title, note=f"{n} questions") for title, n in (("cross", 120), ("single", 120), ("other", 20)))
    shown = with_signs(Table("t", "Caption.", columns, (TableRow("A", (Cell("50.0", 50.0),) * 3),)))
    assert shown.notes == ("cross: 120 questions.", "single: 120 questions.", "other: 20 questions.")


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_no_table_is_wider_than_a_narrow_page(tmp_path):
    many = tuple(Cell("84.7", detail="[82.3, 86.8]") for _ in range(8))
    wide = Table("wide", "Wide.", (Column("measured"),) * 8, (TableRow("Base model (not a row of the paper)", many),), stub="Row")
    tables = (claims_table(), wide)
    body = latex(Report("table9", "Table 9", "x", "", ("it's λ",), (Section("", tables=tables),), None, "0" * 64))
    source = tmp_path / "paper.tex"
    source.write_text(document(body).replace("a4paper,landscape,", "a4paper,").replace("margin=1.5cm", "margin=5cm"))
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", source.name]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout[-2000:]
