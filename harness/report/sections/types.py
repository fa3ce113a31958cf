"""The frozen values that make up a report; writers print them. No numbers are computed after this point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from harness.report.numbers.values import JobRef, Rates
from harness.stats import Interval
from harness.verdict import Verdict

Tone = Literal["plain", "muted", "strong", "warning"]


@dataclass(frozen=True)
class Cell:
    """display: what a reader sees first; detail: what stands small beside it (an interval). value: for sorting.

    Percentages throughout. seed_sd: between seeds' means. reported: the paper's text for this cell. note: what a reader
    must know about this cell alone; inline: it is printed in the cell too, not only where the cell is opened.
    """

    display: str
    value: float | None = None
    detail: str = ""
    interval: Interval | None = None
    n: int | None = None
    clusters: int | None = None
    seeds: int | None = None
    seed_sd: float | None = None
    reported: str = ""
    verdict: Verdict | None = None
    rates: Rates | None = None
    jobs: tuple[JobRef, ...] = ()
    note: str = ""
    tone: Tone = "plain"
    inline: bool = False

    @property
    def expandable(self) -> bool:
        return bool(self.jobs or self.note or self.n)


@dataclass(frozen=True)
class Column:
    """group: the heading over neighbouring columns of the same group. numeric: aligned and sorted as numbers."""

    title: str
    group: str = ""
    numeric: bool = True
    note: str = ""


@dataclass(frozen=True)
class TableRow:
    """marks: footnote signs. group: the heading under which the row stands."""

    label: str
    cells: tuple[Cell, ...]
    marks: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """stub: the heading of the row labels. notes: lines under the table. command: what a person types to see more, after them."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    stub: str = ""
    notes: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"{self.name}: row {row.label} has {len(row.cells)} cells for {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Section:
    """text: paragraphs before the tables. folded: details that a first reader may skip."""

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    bullets: tuple[str, ...] = ()
    folded: bool = False
    name: str = ""


@dataclass(frozen=True)
class Mark:
    """One point of the chart, in percent. interval None draws a hollow mark."""

    row: str
    value: float
    interval: Interval | None = None
    text: str = ""
    """As printed; "" prints the value."""


@dataclass(frozen=True)
class Panel:
    """One column of the chart. chance: what guessing gives."""

    title: str
    measured: tuple[Mark, ...]
    reported: tuple[Mark, ...]
    chance: float | None = None
    base: float | None = None
    """The base model's accuracy."""


@dataclass(frozen=True)
class Chart:
    title: str
    rows: tuple[str, ...]
    panels: tuple[Panel, ...]
    measured_title: str
    reported_title: str
    footer: str = ""
    x: tuple[float, ...] = ()
    """The rows' places on an axis: then a line plot."""
    x_label: str = ""
    x_log: bool = False
    chance_title: str = "guessing"
    base_title: str = "base"


@dataclass(frozen=True)
class Drawing:
    """A figure. stem: its files' name, below figures/. png, pdf: their contents. missing: characters that no installed font has."""

    stem: str
    title: str
    png: bytes
    pdf: bytes
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """conclusion: the first paragraph. headline: first lines, where there is no conclusion. main: the section that holds the paper's table."""

    name: str
    label: str
    title: str
    subtitle: str
    headline: tuple[str, ...]
    sections: tuple[Section, ...]
    chart: Chart | None
    fingerprint: str
    warning: str = ""
    """Shown above everything: an overridden result, missing MLflow."""
    links: dict[str, str] = field(default_factory=dict)
    """Words -> address of the same table measured in another way, below the subtitle."""
    seeds: int = 0
    profile: str = ""
    conclusion: str = ""
    drawings: tuple[Drawing, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    """The same numbers for other programs (`harness.report.sections.records`)."""
    spec: str = ""
    """The experiment's file (`harness.spec.files.written_in`)."""
    paper: bool = True
    """Whether these are the paper's rows, all of them, as the recipe has them."""
