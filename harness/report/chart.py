"""The chart: measured values with their intervals, and the reported ones in panels of their own."""

from __future__ import annotations

import io
import math
from functools import lru_cache

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.fingerprint import STAMP
from harness.report.types import Chart, Mark, Panel, Report

MEASURED, REPORTED, GUESS, INK = "#0072B2", "#8A5A00", "#767676", "#16191d"
"""Blue and brown of the Okabe-Ito palette: told apart in every common colour blindness, and by shape in grey print."""


def png(report: Report) -> bytes:
    """The chart's file. A report without numbers gets a page that says so, so that every format exists."""
    return draw(_chart(report), report.fingerprint)


def pdf(report: Report) -> bytes:
    """The same for print. The fingerprint is a comment behind the end: readers pass over it."""
    return draw(_chart(report), report.fingerprint, "pdf") + f"% {STAMP} {report.fingerprint}\n".encode()


def _chart(report: Report) -> Chart:
    return report.chart or Chart(report.title, (), (), "Nothing to show", "Nothing to show")


@lru_cache(maxsize=4)
def draw(chart: Chart, fingerprint: str, kind: str = "png") -> bytes:
    """PNG or PDF bytes; the same chart gives the same bytes."""
    panels, rows = chart.panels, chart.rows
    height = 6.2 if chart.x else 1.9 + 0.66 * max(len(rows), 2)
    figure = Figure(figsize=(2.2 + 3.1 * max(len(panels), 1), height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    if panels:
        above, below = figure.subfigures(2, 1, hspace=0.03)
        for part, title, measured in (
            (above, chart.measured_title, True), (below, chart.reported_title, False),
        ):
            part.suptitle(title, x=0.01, ha="left", fontsize=9.5, color=MEASURED if measured else REPORTED)
            axes = part.subplots(1, len(panels), sharey=True, squeeze=False)[0]
            for axis, panel in zip(axes, panels):
                marks = panel.measured if measured else panel.reported
                if chart.x:
                    _curve(axis, panel, dict(zip(rows, chart.x)), marks, measured, chart)
                else:
                    _panel(axis, panel.title, rows, marks, measured)
            if chart.x:
                continue
            _span(list(axes))
            for axis, panel in zip(axes, panels):
                if measured and panel.chance is not None:
                    _line(axis, panel.chance, "guessing", ":")
                if measured and panel.base is not None:
                    _line(axis, panel.base, "base", "--")
    figure.supxlabel(chart.footer, fontsize=8, color=GUESS)
    content = io.BytesIO()
    if kind == "png":
        figure.savefig(content, format="png", metadata={"Description": f"{STAMP} {fingerprint}", "Software": None})
    else:
        figure.savefig(content, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return content.getvalue()


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
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
    for row in rows:
        if row not in {mark.row for mark in marks}:
            axis.annotate(
                "no result" if measured else "not reported", (0.5, place[row]), xycoords=("axes fraction", "data"),
                ha="center", va="center", fontsize=7.5, color=GUESS, style="italic",
            )  # fmt: skip
    axis.set_title(title, fontsize=9.5, color=INK)
    axis.set_yticks(list(place.values()), list(place), fontsize=8.5)
    axis.set_ylim(-0.85 if measured else -0.6, len(rows) - 0.25)
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
        for value, name, style in ((panel.chance, "guessing", ":"), (panel.base, "base", "--")):
            if value is not None:
                axis.axhline(value, color=GUESS, linestyle=style, linewidth=1)
                axis.annotate(
                    f"{name} {value:.1f}", (0.995, value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                    fontsize=6.5, color=GUESS,
                )  # fmt: skip
    else:
        axis.plot(x, y, "--", color=REPORTED, linewidth=1, zorder=2)
        axis.plot(x, y, "D", markerfacecolor="white", markeredgecolor=REPORTED, markersize=6, markeredgewidth=1.4, zorder=3)
        for at, mark in found.items():
            axis.annotate(
                mark.text or f"{mark.value:.1f}", (at, mark.value), xytext=(0, 7),
                textcoords="offset points", ha="center", fontsize=7, color=INK,
            )  # fmt: skip
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
    axis.set_title(panel.title, fontsize=9.5, color=INK)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="#e3e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.08, y=0.18)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _span(axes: list[Axes]) -> None:
    """One span for all panels of a row, so that equal lengths are equal points; at least six, or noise looks like structure."""
    limits = [axis.get_xlim() if axis.has_data() else (40.0, 60.0) for axis in axes]
    half = max(3.0, *((high - low) / 2 for low, high in limits))
    for axis, (low, high) in zip(axes, limits):
        middle = min(max((low + high) / 2, half - 1), 101 - half) if half < 51 else 50
        axis.set_xlim(middle - half, middle + half)


def _line(axis: Axes, value: float, name: str, style: str) -> None:
    """A reference value; one that lies outside the panel is written at its edge, so that the values keep their room."""
    low, high = axis.get_xlim()
    if low <= value <= high:
        axis.axvline(value, color=GUESS, linestyle=style, linewidth=1)
        axis.annotate(
            f"{name} {value:.1f}", (value, 0.015), xycoords=("data", "axes fraction"), xytext=(3, 8 * (name == "base")),
            textcoords="offset points", va="bottom", fontsize=6.5, color=GUESS,
        )  # fmt: skip
    else:
        right = value > high
        axis.annotate(
            f"{name} {value:.1f} {'→' if right else ''}" if right else f"← {name} {value:.1f}",
            (0.995 if right else 0.005, 0.015), xycoords="axes fraction", ha="right" if right else "left", va="bottom",
            fontsize=6.5, color=GUESS,
        )  # fmt: skip
