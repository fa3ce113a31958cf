"""Attention maps as figures, from what `maps` jobs stored: pictures, boxes and arrays. Nothing is computed but means."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import stats

from harness.jobs import Job
from harness.outgoing import inert, inert_values
from harness.report.numbers.results import Results
from harness.report.sections.fonts import families, showing
from harness.report.sections.palette import with_palette
from harness.report.sections.provenance import seen_by
from harness.report.sections.types import Cell, Chart, Column, Drawing, Mark, Panel, Section, Table, TableRow
from harness.report.sections.words import count, listed, signed, signed_interval
from harness.stats import Interval
from harness.store import Store

WORDS = {
    "teacher": "teacher (BCM)",
    "student_fed": "student (DAC), fed Z_T",
    "student_free": "student (DAC), own states",
    "student": "student (DAC)",
}
COLOURS = "cividis"
"""A colour map that is even in grey and with every common colour blindness."""
DPI = 72
"""Small enough to keep in a repository; the PDF beside it is sharper."""

LEVEL = 0.95


@dataclass(frozen=True)
class Maps:
    """What one job left. arrays: "<number>.<who>" -> [S, H, W]."""

    job: Job
    out: Path
    benchmark: str | None
    samples: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, np.ndarray]
    title: str = ""
    """The benchmark's."""

    @classmethod
    def read(cls, store: Store, job: Job, titles: Mapping[str, str]) -> Maps | None:
        if not store.is_done(job):
            return None
        out = store.outputs(job)
        text = json.loads((out / "maps.json").read_text(encoding="utf-8"))
        with np.load(out / "attention.npz") as arrays:
            name = text["benchmark"]
            return cls(job, out, name, inert_values(text["samples"]), dict(arrays), titles.get(name, "") if name else "")

    @property
    def who(self) -> list[str]:
        return [name for name in WORDS if any(name in sample["in_box"] for sample in self.samples)]

    @property
    def place(self) -> str:
        return "training samples" if self.benchmark is None else f"while answering {self.title or self.benchmark}"

    def beyond(self, who: str) -> list[float]:
        """Sample by sample, its share in the box minus the box's own: what looking everywhere alike would leave at 0."""
        return [sample["in_box"][who] - sample["box_area"] for sample in self.samples if who in sample["in_box"]]


def attention_sections(results: Results) -> tuple[list[str], list[Section], tuple[Drawing, ...], Chart | None]:
    """Headline, sections, figures and chart of an experiment with `maps`."""
    headline, tables, missing, marks = [], [], [], []
    drawings: list[Drawing] = []
    titles = {name: benchmark.title for name, benchmark in results.study.benchmarks.items()}
    for label, arm in results.arms.items():
        missing += [f"{label}, {reason}" for reason in arm.impossible]
        for name, evaluations in arm.evaluations.items():
            job = evaluations[0].job
            found = Maps.read(results.store, job, titles)
            if found is None:
                missing.append(f"{label}, {name}: {results.store.status(job)}")
                continue
            headline += sentences(label, found)
            tables.append(mass_table(results, label, found))
            stem = f"{results.study.name}-{len(drawings) + 1}-{found.benchmark or 'training'}"
            drawings.append(drawing(stem, label, found))
            if (mark := beyond(f"{label}, {found.place}" if len(results.arms) > 1 else found.place, found)) is not None:
                marks.append(mark)
    tables = tables or [Table("masses", "No maps yet.", (Column("attention"),), ())]
    text = ("not run: " + "; ".join(missing),) if missing else ()
    section = Section("", text, tuple(tables), bullets=(INSIDE,) if drawings else (), name="main")
    if headline and results.study.profile.proxy:
        headline.insert(0, f"Proxy scale, one seed: the maps are of a tiny model {seen_by(results.study)}.")
    return headline or ["No attention maps yet."], [section], tuple(drawings), masses_chart(results, marks)


INSIDE = (
    "In the box: on cells that the box touches. The teacher's keys are pooled from the box alone, so nearly all of its attention "
    "lies there by construction; only the student's share is a finding, to be read against the box's share of the picture."
)


def t_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values) - half, fmean(values) + half, LEVEL)


def beyond(title: str, maps: Maps) -> Mark | None:
    """How far the student's share of attention in the box, by its own states, goes beyond the box's own."""
    values = [100 * value for value in maps.beyond("student_free" if maps.benchmark is None else "student")]
    if not values:
        return None
    return Mark(f"{title} ({count(len(values), 'sample')})", fmean(values), t_interval(values), signed(fmean(values) / 100))


def masses_chart(results: Results, marks: Sequence[Mark]) -> Chart | None:
    if not marks:
        return None
    spec = results.study.experiment
    return Chart(
        f"{spec.kind.capitalize()} {spec.name}: {spec.title}",
        tuple(mark.row for mark in marks),
        (Panel("student (DAC), own states", tuple(marks), (), 0.0),),
        "Attention in the evidence box minus the box's share of the picture, in points, 95 % t-interval over samples",
        "",
        f"{results.study.recipe_text} · profile {results.study.profile_name}",
        chance_title="looking everywhere alike",
    )


def sentences(label: str, maps: Maps) -> list[str]:
    """How much of each one's attention falls on the evidence, beside what looking everywhere alike would give."""
    area = fmean(sample["box_area"] for sample in maps.samples)
    parts = []
    for who in maps.who:
        masses = [s["in_box"][who] for s in maps.samples if who in s["in_box"]]
        fewer = f" (of the {len(masses)} that opened a latent segment)" if len(masses) < len(maps.samples) else ""
        parts.append(f"{WORDS[who]} {fmean(masses):.1%}{fewer}")
    if not parts:
        return [f"{label}, {maps.place}: no latent segment was opened, so there is nothing to show."]
    students = []
    for who in (w for w in maps.who if w != "teacher"):
        bounds = t_interval(maps.beyond(who))
        if bounds is not None:
            students.append(f"{WORDS[who]} {signed(fmean(maps.beyond(who)))} {signed_interval(bounds)}")
    more = f" More than that, in points with 95 % interval over samples: {listed(students)}." if students else ""
    return [
        (f"{label}, {maps.place} ({count(len(maps.samples), 'sample')}): share of attention in the box: {listed(parts)}; "
        f"looking everywhere alike would give {area:.1%}.{more}")
    ]


def mass_table(results: Results, label: str, maps: Maps) -> Table:
    ref = (results.job_ref(maps.job, None),)
    rows = []
    for sample in maps.samples:
        cells = [Cell(f"{100 * sample['box_area']:.1f}", 100 * sample["box_area"])]
        for who in maps.who:
            mass = sample["in_box"].get(who)
            note = sample["question"] + (f" answered {sample['prediction']}, target {sample['answer']}" if maps.benchmark else "")
            cells.append(Cell("–") if mass is None else Cell(f"{100 * mass:.1f}", 100 * mass, jobs=ref, note=note))
        rows.append(TableRow(sample["sample"], tuple(cells)))
    means = [Cell(f"{100 * v:.1f}", 100 * v, tone="strong") for v in _means(maps)]
    return Table(
        f"masses-{maps.benchmark or 'training'}",
        f"{label}, {maps.place}: attention in the evidence box in percent, mean over the latent steps.",
        (Column("box, share of picture"), *(Column(WORDS[who]) for who in maps.who)),
        (*rows, TableRow("mean", tuple(means))),
        stub="Sample",
    )


def _means(maps: Maps) -> list[float]:
    means = [fmean(s["box_area"] for s in maps.samples)]
    return means + [fmean(s["in_box"][who] for s in maps.samples if who in s["in_box"]) for who in maps.who]


# --- drawing --------------------------------------------------------------------------------------------------------


def drawing(stem: str, label: str, maps: Maps) -> Drawing:
    """Training: picture, teacher and student, means over the steps. Answering: picture, the student's mean and each step."""
    title = inert(f"{label}: attention, {maps.place}")
    texts = [title, *(str(sample.get(name)) for sample in maps.samples for name in ("question", "prediction", "answer"))]
    with showing(texts):
        png, pdf = _drawn(title, maps)
    return Drawing(stem, title, png, pdf, families(texts)[1])


def _drawn(title: str, maps: Maps) -> tuple[bytes, bytes]:
    steps = max((len(values) for values in maps.arrays.values()), default=0)
    if maps.benchmark is None:
        heads, width = [WORDS[who] for who in maps.who], 2.35
    else:
        heads, width = ["student, mean", *(f"step {i + 1}" for i in range(steps))], 1.55
    shown = len(maps.samples)
    canvas = Canvas(figsize=(width * (len(heads) + 1) + 2.4, (width + 0.28) * shown + 0.9), dpi=DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    grid = canvas.subplots(shown, len(heads) + 2, squeeze=False, width_ratios=[0.8 if maps.benchmark is None else 1.5, *[1.0] * (len(heads) + 1)])
    for number, (sample, axes) in enumerate(zip(maps.samples, grid)):
        with Image.open(maps.out / sample["picture"]) as file:
            picture = file.convert("RGB")
        words(axes[0], sample, maps)
        plain(axes[1], picture, sample["boxes"], "picture and evidence" if number == 0 else "")
        for axis, (head, values) in zip(axes[2:], columns(maps, number, heads)):
            overlay(axis, picture, values, sample, head if number == 0 else "")
    canvas.supxlabel(
        "Each map is scaled to its own largest value (bright); the number is the share of attention in the box.",
        fontsize=8, color="#555555",
    )  # fmt: skip
    png, pdf = io.BytesIO(), io.BytesIO()
    canvas.savefig(png, format="png", metadata={"Software": None})
    canvas.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return with_palette(png.getvalue()), pdf.getvalue()


def columns(maps: Maps, number: int, heads: Sequence[str]) -> list[tuple[str, np.ndarray | None]]:
    if maps.benchmark is None:
        found = [maps.arrays.get(f"{number}.{who}") for who in maps.who]
        return [(head, None if values is None else values.mean(0)) for head, values in zip(heads, found)]
    values = maps.arrays.get(f"{number}.student")
    each = [None] * len(heads) if values is None else [values.mean(0), *values]
    return list(zip(heads, each))


def words(axis: Axes, sample: Mapping[str, Any], maps: Maps) -> None:
    """The question and the answer, left of the pictures."""
    question = next((line for line in sample["question"].splitlines() if line.rstrip().endswith("?")), sample["question"])
    lines = textwrap.wrap(question, 27, max_lines=8 if maps.benchmark is None else 6, placeholder=" …")
    if maps.benchmark is not None:
        right = "right" if sample["prediction"] == sample["answer"] else f"wrong, it is {sample['answer']}"
        lines += ["", f"answered {sample['prediction'] or 'nothing readable'}: {right}"]
    axis.text(0, 0.98, "\n".join(lines), fontsize=7.5, va="top", transform=axis.transAxes)
    axis.set_axis_off()


def plain(axis: Axes, picture: Image.Image, boxes: Sequence[Sequence[float]], title: str) -> None:
    axis.imshow(picture)
    outline(axis, picture.size, boxes)
    axis.set_title(title, fontsize=8)
    axis.set_axis_off()


def overlay(axis: Axes, picture: Image.Image, values: np.ndarray | None, sample: Mapping[str, Any], title: str) -> None:
    """The map's cells over the picture in grey; cells stay cells."""
    axis.set_axis_off()
    if values is None:
        axis.text(0.5, 0.5, "no latent\nsegment", ha="center", va="center", fontsize=7.5, transform=axis.transAxes)
        axis.set_title(title, fontsize=8)
        return
    wide, high = picture.size
    axis.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255)
    axis.imshow(values, cmap=COLOURS, vmin=0, alpha=0.72, extent=(-0.5, wide - 0.5, high - 0.5, -0.5), interpolation="nearest")
    outline(axis, picture.size, sample["boxes"])
    mass = share(values, sample["boxes"])
    axis.set_title(f"{title}\n{mass:.0%}" if title else f"{mass:.0%}", fontsize=8)


def share(values: np.ndarray, boxes: Sequence[Sequence[float]]) -> float:
    """Of a map [H, W], on the cells that the box touches."""
    high, wide = values.shape
    x0, y0, x1, y1 = (max(0.0, corner) for corner in boxes[0])  # a box may reach over the picture's edge
    inside = values[int(y0 * high) : int(np.ceil(y1 * high)), int(x0 * wide) : int(np.ceil(x1 * wide))]
    return float(inside.sum() / values.sum())


def outline(axis: Axes, size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> None:
    """White over black, so that it shows on any background."""
    for x0, y0, x1, y1 in boxes:
        place = (x0 * size[0] - 0.5, y0 * size[1] - 0.5), (x1 - x0) * size[0], (y1 - y0) * size[1]
        for colour, line in (("black", 2.6), ("white", 1.2)):
            axis.add_patch(Rectangle(*place, fill=False, edgecolor=colour, linewidth=line))

