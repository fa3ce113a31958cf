"""Labels in any script: drawn with an installed font that has them, or named in one line where none has."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from harness.jobs import Job
from harness.report import render
from harness.report.sections import fonts
from harness.report.sections.attention import Maps, drawing
from harness.report.sections.types import Chart, Mark, Panel, Report
from harness.report.writers.chart import draw, pdf, png, undrawable
from harness.stats import Interval
from harness.store import Store
from tests.harness.report.world import make_plan

LABEL = "二段階 $x$ (Ours)"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A font with the three characters, each a black square, as if it were installed."""
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    built = FontBuilder(1000, isTTF=True)
    built.setupGlyphOrder([".notdef", "square"])
    built.setupCharacterMap(dict.fromkeys(map(ord, "二段階"), "square"))
    built.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    built.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    built.setupHorizontalHeader(ascent=1000, descent=0)
    built.setupNameTable({"familyName": "Squares", "styleName": "Regular", "psName": "Squares-Regular"})
    built.setupOS2()
    built.setupPost()
    built.save(tmp_path / "squares.ttf")
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(tmp_path / "squares.ttf")
    clear()
    yield
    clear()


@pytest.fixture
def bare(monkeypatch):
    """Only the fonts that matplotlib brings."""
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if "matplotlib" in font.fname])
    clear()
    yield
    clear()


def clear() -> None:
    for cached in (fonts._families, fonts._covered, draw):
        cached.cache_clear()


def report() -> Report:
    panel = Panel("MMVP", (Mark(LABEL, 50.0, Interval(45.0, 55.0)),), (), 25.0)
    return Report("table9", "Table 9", "x", "", (), (), Chart("Title", (LABEL,), (panel,), "Measured", "Reported"), "0" * 64)


def test_a_label_that_matplotlibs_font_lacks_is_drawn_with_an_installed_one(bare, installed, caplog):
    assert undrawable(report()) == ""
    assert b"+Squares-Regular" in pdf(report()) and not caplog.messages
    assert b"+Squares-Regular" not in pdf(replace(report(), chart=replace(report().chart, rows=("A",), panels=())))


def test_where_no_font_has_them_one_line_names_the_characters_and_the_remedy(bare, tmp_path, monkeypatch, capsys):
    table = tmp_path / "mine"
    plan, store = make_plan(table, n=20), Store(tmp_path / "results")
    assert undrawable(report()) == "二段階"
    monkeypatch.setattr("harness.report.writers.chart.undrawable", lambda drawn: undrawable(report()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render(plan, store, tmp_path / "reports", formats=("png",))
        png(report())
    said = capsys.readouterr().err
    assert said == "table3c: no installed font has 二, 段, 階, so boxes are drawn instead: install one (apt-get install fonts-noto-cjk), then draw again (--force)\n"


def test_fonts_are_chosen_in_the_same_order_wherever_their_files_lie(bare, installed, monkeypatch):
    first = fonts.families([LABEL])
    monkeypatch.setattr(fontManager, "ttflist", fontManager.ttflist[::-1])
    clear()
    assert fonts.families([LABEL]) == first == (["DejaVu Sans", "Squares"], "")


def test_dollar_signs_in_a_question_do_not_end_the_drawing_of_attention_maps(tmp_path):
    Image.new("RGB", (32, 32), "grey").save(tmp_path / "picture.png")
    asked = {"picture": "picture.png", "question": r"Is it $5 or \frac{1 for $x_?", "prediction": "A", "answer": "$5_", "boxes": [[0.0, 0.0, 0.5, 0.5]]}
    job = Job("attention", {})
    maps = Maps(job, tmp_path, "mmvp", [asked], {"0.student": np.full((2, 4, 4), 1 / 16)}, "MMVP")
    made = drawing("figure-1-mmvp", "A row of $2 and $_3", maps)
    assert made.png.startswith(b"\x89PNG") and made.pdf.startswith(b"%PDF") and made.missing == ""
