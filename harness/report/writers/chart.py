"""The chart: measured values with their intervals, and the reported ones in panels of their own."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections import Counter
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from harness.report.numbers.fingerprint import STAMP
from harness.report.sections.fonts import families, showing
from harness.report.sections.palette import with_palette
from harness.report.sections.types import Chart, Mark, Panel, Report

MEASURED, REPORTED, GUESS, INK = "#0072B2", "#8A5A00", "#6B6B6B", "#16191d"
"""Blue and brown of the Okabe-Ito palette: distinguishable with every common colour blindness, and by shape in grey
print."""

PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
"""Behind numbers, so that a line below them does not strike them out."""

ACROSS = 4
"""Panels side by side at most, so that the chart stays legible on a page."""

WIDTHS = ("wide", "narrow")
"""A page holds the chart twice: for a screen, and with one panel on a line for a phone."""

THEME = {
    MEASURED: "measured", REPORTED: "reported", GUESS: "soft", INK: "ink", "#000000": "ink", "#e3e7eb": "line", "#ffffff": "page",
}  # fmt: skip
"""Colour -> the page's variable that stands for it, so that the chart is dark where the page is."""


def png(report: Report) -> bytes:
    """The chart's file. A report without numbers gets a page that says so, so that every format exists."""
    return draw(_chart(report), report.fingerprint)


def pdf(report: Report) -> bytes:
    """The same for print. The fingerprint is a comment behind the end: readers pass over it."""
    return draw(_chart(report), report.fingerprint, "pdf") + f"% {STAMP} {report.fingerprint}\n".encode()


def _chart(report: Report) -> Chart:
    return report.chart or Chart(f"{report.label}: {report.title}", (), (), "", "")


def svg(chart: Chart, width: str) -> str:
    """For inside a page, in the page's colours and letters, without what a browser does not need. width: one of WIDTHS."""
    text = draw(chart, "", width).decode()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    referred = re.findall(r'(?:url\(|href=")#([^)"]+)', text)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(referred))}  # matplotlib makes names of positions to the last bit

    def fitted(tag: re.Match[str]) -> str:
        """A tag, which is never what a person wrote: that stands between tags."""
        found = re.sub(r' (?:width|height)="[^"]*pt"| xmlns(?::xlink)?="[^"]*"| version="[^"]*"| transform="rotate\(-?0 [^"]*"', "", tag[0])
        found = re.sub(r' id="([^"]+)"', lambda name: name[0] if name[1] in numbers else "", found)
        found = re.sub(r"font-family: [^;\"]*", "font-family: inherit", found)
        found = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", re.sub(r"\s+", " ", found))
        found = re.sub(r'(\bid="|(?<=url\()#|(?<=href=")#)([^")]+)', lambda name: f"{name[1]}{width}-{numbers[name[2]]}", found)
        for colour, name in THEME.items():
            found = re.sub(colour, f"var(--{name})", found, flags=re.IGNORECASE)
        return found

    text = re.sub(r">\s+<", "><", re.sub(r"<[^>]+>", fitted, text))
    while (fewer := EMPTY.sub(r"\1", text)) != text:
        text = fewer
    return _with_classes(text, width)


EMPTY = re.compile(r"<g/>|<g>((?:<text[^>]*>[^<]*</text>|<(?:path|use)[^>]*/>)*)</g>")
"""A group that groups nothing but what can stand alone."""


def _with_classes(text: str, prefix: str) -> str:
    """Styles that several elements share become classes: repeated, they are a third of a chart's bytes."""
    tags, style_of = re.compile(r"<[^>]+>"), re.compile(r' style="([^"]*)"')
    times = Counter(style for tag in tags.findall(text) for style in style_of.findall(tag))
    classes = {style: f"{prefix}{number}" for number, style in enumerate(style for style, n in times.items() if n > 1)}

    def named(style: re.Match[str]) -> str:
        return f' class="{classes[style[1]]}"' if style[1] in classes else style[0]

    rules = "".join(f".chart svg .{name} {{{style}}}" for style, name in classes.items())
    text = tags.sub(lambda tag: style_of.sub(named, tag[0]), text)
    return re.sub(r"<svg[^>]*>", lambda start: f"{start[0]}<style>{rules}</style>", text, count=1)


@lru_cache(maxsize=32)
def draw(chart: Chart, fingerprint: str, kind: str = "png") -> bytes:
    """PNG or PDF bytes, or SVG where kind is one of WIDTHS; the same chart gives the same bytes, drawn once in a process."""
    settings: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": kind}
    if kind in WIDTHS:
        settings["font.family"] = ["sans-serif"]  # a browser finds its own
    with showing(texts(chart), **settings):
        return _drawn(chart, fingerprint, kind)


def texts(chart: Chart) -> list[str]:
    """Everything on it that a person may have written."""
    marks = [mark.text for panel in chart.panels for mark in (*panel.measured, *panel.reported)]
    return [
        chart.title, chart.measured_title, chart.reported_title, chart.footer, chart.x_label, chart.base_title, chart.chance_title, *chart.rows,
        *(panel.title for panel in chart.panels), *marks,
    ]  # fmt: skip


def undrawable(report: Report) -> str:
    """The characters of the report's chart that no installed font has."""
    return families(texts(_chart(report)))[1]


def _drawn(chart: Chart, fingerprint: str, kind: str) -> bytes:
    narrow = kind == "narrow"
    across_most = 1 if narrow else ACROSS
    lines = math.ceil(len(chart.panels) / across_most) or 1
    across = math.ceil(len(chart.panels) / lines) or 1
    blocks = [
        (title, measured)
        for title, measured in ((chart.measured_title, True), (chart.reported_title, False))
        if any(panel.measured if measured else panel.reported for panel in chart.panels)
    ]
    rows = {measured: _rows(chart, measured) for _, measured in blocks}
    heights = [lines * (2.5 if chart.x else 1.15 + 0.3 * max(len(rows[measured]), 2)) + 0.3 for _, measured in blocks]
    figure = Laid(figsize=(4.2 if narrow else 2.2 + 3.1 * across, 0.6 + (sum(heights) or 1.2)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(short(chart.title, 36 * across), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    if blocks:
        parts = figure.subfigures(len(blocks), 1, hspace=0.03, squeeze=False, height_ratios=heights)[:, 0]
        for part, (title, measured) in zip(parts, blocks):
            _block(part, chart, title, rows[measured], measured, lines, across)
    else:
        figure.text(0.5, 0.45, "nothing measured yet", ha="center", color=GUESS, style="italic")
    nothing = [chart.measured_title] if blocks and not blocks[0][1] else []
    figure.supxlabel(wrapped(" · ".join([*nothing, chart.footer]), across), fontsize=8, color=GUESS)
    content = io.BytesIO()
    if kind == "png":
        figure.savefig(content, format="png", metadata={"Description": f"{STAMP} {fingerprint}", "Software": None})
        return with_palette(content.getvalue())
    if kind == "pdf":
        figure.savefig(content, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    else:
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


class Laid(Figure):
    """matplotlib draws a figure with a layout twice when it saves it: the first time for the layout alone, which needs no drawing."""

    def draw(self, renderer: Any) -> None:
        engine = self.get_layout_engine()
        if isinstance(engine, ConstrainedLayoutEngine) and self.axes:
            engine.execute(self)  # `savefig` takes the engine away before it draws again
        else:
            super().draw(renderer)


def short(text: str, most: int = 28) -> str:
    """Room is for the numbers; the table has the whole text."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def wrapped(text: str, across: int) -> str:
    """At most four lines as wide as so many panels."""
    return "\n".join(textwrap.wrap(text, 12 * (2 + 3 * across), max_lines=4, placeholder=" …"))


def _rows(chart: Chart, measured: bool) -> tuple[str, ...]:
    """Rows with a mark in some panel; all rows if none has one, or on an axis."""
    marked = {mark.row for panel in chart.panels for mark in (panel.measured if measured else panel.reported)}
    return tuple(row for row in chart.rows if row in marked or chart.x or not marked)


def _block(
    part: SubFigure, chart: Chart, title: str, rows: tuple[str, ...], measured: bool, lines: int, across: int
) -> None:
    """The measured or the reported half."""
    if without := [row for row in chart.rows if row not in rows]:
        title += f". {'No result' if measured else 'Not reported'}: {', '.join(without)}"
    part.suptitle(wrapped(title, across), x=0.01, ha="left", fontsize=9.5, color=MEASURED if measured else REPORTED)
    grid = part.subplots(lines, across, sharey=not chart.x, squeeze=False).flatten()
    for axis in grid[len(chart.panels) :]:
        axis.set_visible(False)
    axes = list(grid[: len(chart.panels)])
    for axis, panel in zip(axes, chart.panels):
        marks = panel.measured if measured else panel.reported
        if chart.x:
            _curve(axis, panel, dict(zip(chart.rows, chart.x)), marks, measured, chart)
        else:
            _panel(axis, panel.title, rows, marks, measured)
    _span(axes, "y" if chart.x else "x")
    for axis, panel in zip(axes, chart.panels):
        known = ((panel.base, chart.base_title, "--"), (panel.chance, chart.chance_title, ":"))
        said = [_reference(axis, value, name, style, bool(chart.x)) for value, name, style in known if measured and value is not None]
        axis.set_title(short(panel.title, 40), fontsize=9.5, color=INK, pad=15 if said else 6)
        axis.annotate(
            " · ".join(said), (0.5, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha="center",
            fontsize=7, color=GUESS, annotation_clip=False,
        )  # fmt: skip


def _panel(axis: Axes, title: str, rows: tuple[str, ...], marks: tuple[Mark, ...], measured: bool) -> None:
    place = {row: len(rows) - 1 - number for number, row in enumerate(rows)}
    for mark in marks:
        y = place[mark.row]
        if mark.interval is not None:
            axis.plot([mark.interval.low, mark.interval.high], [y, y], color=MEASURED, linewidth=2.2, solid_capstyle="butt", zorder=3)
            axis.plot([mark.value], [y], "o", color=MEASURED, markersize=6, markeredgecolor="white", markeredgewidth=0.8, zorder=4)
        else:
            axis.plot([mark.value], [y], "D", markerfacecolor="none", markeredgecolor=REPORTED, markersize=6, markeredgewidth=1.4, zorder=4)
        text = mark.text or f"{mark.value:.1f}"
        axis.annotate(
            text, (mark.value, y), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7.5, color=INK, zorder=2.5,
            bbox=PAPER,
        )  # fmt: skip
    for row in rows:
        if row not in {mark.row for mark in marks}:
            axis.annotate(
                "no result" if measured else "not reported", (0.5, place[row]), xycoords=("axes fraction", "data"),
                ha="center", va="center", fontsize=7.5, color=GUESS, style="italic",
            )  # fmt: skip
    axis.set_yticks(list(place.values()), [short(row) for row in place], fontsize=8.5)
    axis.set_ylim(-0.6, len(rows) - 0.25)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e3e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _curve(
    axis: Axes, panel: Panel, place: dict[str, float], marks: tuple[Mark, ...], measured: bool, chart: Chart
) -> None:
    """Values over the rows' places, from left to right; intervals as bars, reported values as printed. The line is broken
    where a row has no value: nothing was seen between its neighbours."""
    found = {place[mark.row]: mark for mark in marks}
    x = sorted(place.values())
    y = [found[at].value if at in found else math.nan for at in x]
    if measured:
        axis.plot(x, y, "-o", color=MEASURED, linewidth=1.4, markersize=5, zorder=3)
        for at, mark in found.items():
            if mark.interval is not None:
                axis.plot([at, at], [mark.interval.low, mark.interval.high], color=MEASURED, linewidth=2, alpha=0.6)
    else:
        axis.plot(x, y, "--", color=REPORTED, linewidth=1, zorder=2)
        axis.plot(x, y, "D", markerfacecolor="white", markeredgecolor=REPORTED, markersize=6, markeredgewidth=1.4, zorder=3)
    for number, at in enumerate(x):
        if at in found:
            _label(axis, at, found[at], y[number - 1] if number else math.nan, y[number + 1] if number + 1 < len(x) else math.nan)
    missing = "no result" if measured else "not reported"
    if not marks:
        axis.annotate(missing, (0.5, 0.5), xycoords="axes fraction", ha="center", color=GUESS, style="italic")
    for at in (at for at in x if marks and at not in found):
        axis.annotate(
            missing, (at, 0.5), xycoords=("data", "axes fraction"), ha="center", va="center", rotation=90, fontsize=6.5,
            color=GUESS, style="italic",
        )  # fmt: skip
    if chart.x_log:
        axis.set_xscale("log", base=2)
    axis.set_xticks(x, [f"{value:g}" for value in x])
    axis.minorticks_off()
    axis.set_xlabel(chart.x_label, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="#e3e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(y=0.2)
    low, high = x[0], x[-1]  # rows without a value have their place too
    pad = max((high / low) ** 0.1, 1.1) if chart.x_log else (high - low) / 10 or 1.0
    axis.set_xlim(*((low / pad, high * pad) if chart.x_log else (low - pad, high + pad)))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _label(axis: Axes, at: float, mark: Mark, before: float, after: float) -> None:
    """The value above its interval, or beside its point where the line does not run: below it on the way up."""
    text, height = mark.text or f"{mark.value:.1f}", mark.value
    place: dict[str, Any] = {"xytext": (0, 7), "ha": "center", "va": "bottom"}
    if mark.interval is not None:
        height, place["xytext"] = mark.interval.high, (0, 2)
    elif after > mark.value:
        place = {"xytext": (5, -4), "ha": "left", "va": "top"}
    elif before > mark.value:
        place = {"xytext": (4, 4), "ha": "left", "va": "bottom"}
    axis.annotate(text, (at, height), textcoords="offset points", fontsize=7, color=INK, zorder=2.5, bbox=PAPER, **place)


def _span(axes: list[Axes], along: str) -> None:
    """One span for all panels, so that equal lengths mean equal points; at least six points, so that noise does not
    look like structure."""
    limits = [getattr(axis, f"get_{along}lim")() if axis.has_data() else (40.0, 60.0) for axis in axes]
    half = max(3.0, *((high - low) / 2 for low, high in limits))
    shares = all(0 <= getattr(axis.dataLim, f"{along}{end}") <= 100 for axis in axes if axis.has_data() for end in (0, 1))
    for axis, (low, high) in zip(axes, limits):
        middle = (low + high) / 2
        if shares and half < 51:  # no space for impossible values
            middle = min(max(middle, half - 1), 101 - half)
        getattr(axis, f"set_{along}lim")(middle - half, middle + half)


def _reference(axis: Axes, value: float, name: str, style: str, flat: bool) -> str:
    """Draws the line of a reference value and returns its words; a value outside the panel is only said, so that the others
    keep their room."""
    low, high = axis.get_ylim() if flat else axis.get_xlim()
    if low <= value <= high:
        (axis.axhline if flat else axis.axvline)(value, color=GUESS, linestyle=style, linewidth=1)
        return f"{'dashed' if style == '--' else 'dotted'}: {name} {value:.1f}"
    where = ("above" if value > high else "below") if flat else ("to the right" if value > high else "to the left")
    return f"{name} {value:.1f}: {where}"
