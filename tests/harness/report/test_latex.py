from __future__ import annotations

import re
import shutil
import string
import subprocess

import pytest

from harness.report.latex import document, escape, latex
from harness.report.types import Cell, Column, Report, Row, Section, Table


def report(*labels: str, display: str = "1.0") -> Report:
    rows = tuple(Row(label, (Cell(display, detail="[0.1, 2.0]"), Cell("72.3")), marks="a", group=label[:1]) for label in labels)
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
    rows = tuple(Row(f"r{i}", (Cell("1.0", detail="[0.1, 2.0]"),) * 16, group=f"g{i // 20}") for i in range(60))
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
    render(plan, store, tmp_path, formats=("tex",))
    bodies = [(tmp_path / "table3c.tex").read_text(), latex(report(string.printable, "λ — “q” Ünïcode 漢 ✓", "[x]"))]
    for number, body in enumerate(bodies):
        source = tmp_path / f"paper{number}.tex"
        source.write_text(document(body))
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", source.name]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
        assert source.with_suffix(".pdf").stat().st_size > 5000
