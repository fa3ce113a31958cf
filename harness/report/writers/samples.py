"""Two rows question by question: where one is right and the other wrong, as a page that needs nothing else.

Reads samples.jsonl of two evaluations and the pictures of the benchmark that both answered. Whether an answer is right
was decided by the evaluation.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.jobs import Job
from harness.report.numbers.results import BASE
from harness.spec.benchmark import Protocol
from harness.spec.errors import SpecError, meant, unknown
from harness.store import Store

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.spec.experiment import Column

Identity = tuple[str, int]
"""(task, doc_id)"""

SIDE = 360
"""Pixels of the longer side at which a picture is embedded."""


@dataclass(frozen=True)
class Answered:
    """One row's answer to one question."""

    letter: str
    correct: bool
    response: str
    latent_steps: int
    truncated: bool


@dataclass(frozen=True)
class Difference:
    """A question on which the rows differ. pictures: (data URI, width, boxes in percent: left, top, width, height)."""

    task: str
    doc_id: int
    question: str
    options: tuple[tuple[str, str], ...]
    target: str
    pictures: tuple[tuple[str, int, tuple[tuple[float, ...], ...]], ...]
    first: Answered
    second: Answered


@dataclass(frozen=True)
class SideBySide:
    """One benchmark. Counts are of questions; shown: those on the page, of all that differ."""

    title: str
    n: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong_alike: int
    both_wrong_apart: int
    first_job: str
    second_job: str
    first_link: str
    second_link: str
    shown: tuple[Difference, ...]

    @property
    def differing(self) -> int:
        return self.only_first + self.only_second

    @property
    def words(self) -> str:
        """One line for a terminal."""
        return (
            f"{self.title}: {self.n} questions; both right {self.both_right}, only the first {self.only_first}, only the "
            f"second {self.only_second}, both wrong {self.both_wrong_alike + self.both_wrong_apart} "
            f"({self.both_wrong_apart} with different answers); {len(self.shown)} of {self.differing} shown"
        )


def row_label(plan: Plan, text: str) -> str:
    """Finds a row by name, ignoring rows of differences. Raises SpecError with the nearest name."""
    labels = list(dict.fromkeys([row.label for row in plan.rows if row.row.delta is None] + ([BASE] if plan.base else [])))
    found = meant(text, labels)
    if len(found) != 1:
        if found:
            raise SpecError(f'row "{text}" fits {" and ".join(found)}; write more of the name')
        raise SpecError(unknown(f'no row "{text}"', text, labels, "rows"))
    return found[0]


def columns_of(plan: Plan, text: str | None) -> list[Column]:
    """The named column, or the first one of each benchmark. Raises SpecError with the nearest name."""
    if not plan.columns:
        raise SpecError(f"{plan.experiment.document.name}: shows no accuracies, so its rows have no samples to compare")
    if text is None:
        return list({column.benchmark: column for column in reversed(plan.columns)}.values())[::-1]
    names = [column.name for column in plan.columns]
    found = meant(text, names)
    if not found:
        raise SpecError(unknown(f'no column "{text}"', text, names, "columns"))
    return [column for column in plan.columns if column.name == found[0]]


def evaluation(plan: Plan, label: str, column: Column, protocol: Protocol, seed: int | None) -> Job:
    """The row's evaluation with its own latents. Raises SpecError when the plan has none."""
    by_seed: Mapping[int, Job] = {}
    if label in {row.label for row in plan.rows}:
        cell = plan.cell(label, column.name, protocol) if (label, column.name, protocol) in _cells(plan) else None
        if cell is not None and cell.not_run and not cell.jobs:
            raise SpecError(f"{label} on {column.name}: not run: {cell.not_run}")
        by_seed = cell.by_seed() if cell else {}
    elif protocol in plan.base.get(column.benchmark, {}):
        by_seed = {seed or 0: plan.base[column.benchmark][protocol]}
    if not by_seed or (seed is not None and seed not in by_seed):
        what = f"seed {seed}" if by_seed else f"protocol {protocol}"
        raise SpecError(f"{label} on {column.name}: no evaluation of {what} is planned")
    return by_seed[min(by_seed) if seed is None else seed]


def _cells(plan: Plan) -> set[tuple[str, str, str]]:
    return {(cell.row, cell.column.name, cell.protocol) for cell in plan.cells}


def compare(
    plan: Plan, store: Store, column: Column, rows: tuple[str, str], protocol: Protocol, out_dir: Path, most: int,
    seed: int | None = None,
) -> SideBySide:
    """Both rows' answers to one column's questions. Raises SpecError when an evaluation is missing or they do not match."""
    benchmark = plan.benchmarks[column.benchmark].value
    score = benchmark.scores[column.score]
    jobs = [evaluation(plan, label, column, protocol, seed) for label in rows]
    for label, job in zip(rows, jobs):
        if not store.is_done(job):
            raise SpecError(f"{label} on {column.name}: {job.name} is {store.state(job)}; run it first, or name another column")
    files = [store.outputs(job) / "samples.jsonl" for job in jobs]
    first, second = ({(r["task"], r["doc_id"]): r for r in map(json.loads, f.open(encoding="utf-8")) if score.keeps(r)} for f in files)
    if first.keys() != second.keys():
        odd = min(first.keys() ^ second.keys())
        raise SpecError(f"{column.name}: the rows did not answer the same questions; only one has {odd[0]} number {odd[1]}")
    gained = [key for key in first if first[key]["correct"] and not second[key]["correct"]]
    lost = [key for key in first if second[key]["correct"] and not first[key]["correct"]]
    wrong = [key for key in first if not (first[key]["correct"] or second[key]["correct"])]
    apart = sum(first[key]["prediction"] != second[key]["prediction"] for key in wrong)
    chosen = chosen_of(gained, lost, most)
    mirror = jobs[0].inputs["mirror"]
    assert isinstance(mirror, Job)
    asked = _questions(store.outputs(mirror), column.benchmark, chosen)
    title = benchmark.title if column.score == "overall" else f"{benchmark.title} {score.title or column.score}"
    return SideBySide(
        title, len(first), sum(first[k]["correct"] and second[k]["correct"] for k in first), len(gained), len(lost),
        len(wrong) - apart, apart, jobs[0].name, jobs[1].name, os.path.relpath(files[0], out_dir), os.path.relpath(files[1], out_dir),
        tuple(_difference(key, asked[key], first[key], second[key]) for key in chosen),
    )  # fmt: skip


def chosen_of(gained: Sequence[Identity], lost: Sequence[Identity], most: int) -> list[Identity]:
    """At most `most` of both kinds, in the proportion of their numbers, spread evenly over each; in order."""
    total = len(gained) + len(lost)
    if total <= most:
        return [*gained, *lost]
    share = round(most * len(gained) / total)
    share = min(max(share, bool(gained)), most - bool(lost))
    return [*_spread(gained, share), *_spread(lost, most - share)]


def _spread(keys: Sequence[Identity], count: int) -> list[Identity]:
    return [keys[at * len(keys) // count] for at in range(min(count, len(keys)))]


def _questions(mirror: Path, benchmark: str, chosen: Sequence[Identity]) -> dict[Identity, Any]:
    from models.evaluation.questions import read_questions

    found: dict[Identity, Any] = {}
    for task in dict.fromkeys(task for task, _ in chosen):
        wanted = [doc for name, doc in chosen if name == task]
        found |= {(task, doc): one for doc, one in read_questions(mirror, benchmark, task, wanted).items()}
    return found


def _difference(key: Identity, asked: Any, first: Mapping[str, Any], second: Mapping[str, Any]) -> Difference:
    letters = [chr(ord("A") + at) for at in range(len(asked.options))]
    pictures = []
    for number, picture in enumerate(asked.images):
        boxes = tuple(
            (100 * x0, 100 * y0, 100 * (x1 - x0), 100 * (y1 - y0)) for at, x0, y0, x1, y1 in asked.boxes if at == number
        )
        uri, width = embedded(picture)
        pictures.append((uri, width, boxes))
    return Difference(
        *key, asked.text, tuple(zip(letters, asked.options)), first["target"], tuple(pictures), _answer(first), _answer(second)
    )


def _answer(row: Mapping[str, Any]) -> Answered:
    return Answered(
        row["prediction"] or "no readable option", row["correct"],
        re.sub(r"(<\|lvr\|>){2,}", lambda run: f"<|lvr|>×{len(run[0]) // len('<|lvr|>')}", row.get("response", "")),
        row.get("latent_steps", 0), bool(row.get("truncated")),
    )  # fmt: skip


def embedded(picture: Any) -> tuple[str, int]:
    """(PNG as a data URI, its width on the page): small pictures keep their pixels, large ones are reduced."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    small.save(content, format="PNG", optimize=True)  # no palette: questions ask for colours
    width = small.width if max(small.size) > SIDE // 2 else 2 * small.width
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}", width


def page(plan: Plan, rows: tuple[str, str], protocol: Protocol, parts: Sequence[SideBySide]) -> str:
    """The HTML page."""
    from harness.report.writers.html import environment

    spec = plan.experiment.value
    return environment().get_template("samples.html.j2").render(
        label=f"{spec.kind.capitalize()} {spec.name}", rows=rows, parts=parts, protocol=protocol, profile=plan.profile.name
    )
