"""From the plan and the store: which evaluations a viewer shows, and their answers, question by question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.jobs import Job
from harness.report.numbers.results import BASE, Results
from harness.report.sections.records import modes
from harness.report.sections.tables import own_base
from harness.spec.errors import SpecError, meant, unknown

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.spec.benchmark import Protocol
    from harness.spec.experiment import Column

Identity = tuple[str, int]
"""(task, doc_id)"""
UNREADABLE = "no readable option"
MOST_KINDS = 30
"""A property of questions with more values than this is no kind of question (a picture's number, a pair)."""


@dataclass(frozen=True)
class Answer:
    """loglik: of the right letter, in nats; None where it was not stored."""

    prediction: str
    right: bool
    response: str
    latent_steps: int
    truncated: bool
    loglik: float | None


@dataclass(frozen=True)
class Run:
    """One evaluation. answers: in the order of the questions."""

    row: str
    latents: str
    seed: int
    job: Job
    answers: tuple[Answer, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether another seed gives another model."""
        return isinstance(self.job.inputs.get("checkpoint"), Job)


@dataclass(frozen=True)
class Sheet:
    """One benchmark's questions and everything that was answered to them."""

    column: Column
    title: str
    asked: int
    questions: tuple[Identity, ...]
    """Those shown, of all that were asked."""
    targets: tuple[str, ...]
    kinds: tuple[tuple[tuple[str, str], ...], ...]
    """Question -> its (property, value) pairs."""
    runs: tuple[Run, ...]
    mirror: Path
    """The folder of the questions."""
    missing: tuple[str, ...] = ()
    """Evaluations that are planned and not done, and how many questions are left out for want of a clip."""

    def of(self, row: str, seed: int | None = None) -> Run | None:
        """The row's run with its own latents: of the seed, else of its first. A model that is not trained here has one for every seed."""
        mine = sorted((run for run in self.runs if (run.row, run.latents) == (row, "own")), key=lambda run: run.seed)
        return next((run for run in mine if run.seed == seed or not run.trained), mine[0] if mine and seed is None else None)

    def counts(self, rows: tuple[str, str], seed: int | None = None) -> dict[str, int]:
        """How often which of two rows is right."""
        first, second = (self.of(row, seed) for row in rows)
        assert first is not None and second is not None
        pairs = [(a.right, b.right, a.prediction == b.prediction) for a, b in zip(first.answers, second.answers)]
        return {
            "n": len(pairs),
            "both_right": sum(a and b for a, b, _ in pairs),
            "only_first": sum(a and not b for a, b, _ in pairs),
            "only_second": sum(b and not a for a, b, _ in pairs),
            "both_wrong_alike": sum(alike and not (a or b) for a, b, alike in pairs),
            "both_wrong_apart": sum(not (alike or a or b) for a, b, alike in pairs),
        }

    def words(self, rows: tuple[str, str], seed: int | None = None) -> str:
        """One line for a terminal."""
        found = self.counts(rows, seed)
        return (
            f"{self.title}: {found['n']:,} questions; both right {found['both_right']}, only the first {found['only_first']}, only the "
            f"second {found['only_second']}, both wrong {found['both_wrong_alike'] + found['both_wrong_apart']} "
            f"({found['both_wrong_apart']} with different answers)"
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


def planned(results: Results, column: str, protocol: Protocol) -> Iterator[Run]:
    """Every evaluation of a column: own latents first, row by row; one that stands for several seeds comes once."""
    labels = [*([BASE] if own_base(results) else []), *(row for row, arm in results.arms.items() if arm.row.delta is None)]
    for row in labels:
        for mode in ("own", *modes(results, row, column, protocol)):
            by_key = {e.job.key: e for e in reversed(results.evaluations(row, column, protocol, mode))}
            for one in sorted(by_key.values(), key=lambda e: e.seed):
                yield Run(row, mode, one.seed, one.job)


def sheet(results: Results, column: Column, protocol: Protocol, most: int) -> Sheet | None:
    """None where no evaluation is done. most: questions shown, spread evenly over all. Raises SpecError when runs did not
    answer the same questions."""
    found: list[Run] = []
    missing = []
    order: list[Identity] = []
    shown: list[Identity] = []
    first: dict[Identity, dict[str, Any]] = {}
    for run in planned(results, column.name, protocol):
        if not results.store.is_done(run.job):
            missing.append(f"{run.row}, {run.latents} latents, seed {run.seed}: {results.store.state(run.job)}")
            continue
        score = results.score(column.name)
        lines = (results.store.outputs(run.job) / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        rows = {(row["task"], row["doc_id"]): row for row in map(json.loads, lines) if score.keeps(row)}
        never = [one for one, row in rows.items() if "rejected" in row and row["correct"] is None]
        for one in never:
            del rows[one]
        if never and not found:
            missing.append(f"questions that count for nothing, as their clips are missing: {len(never)}")
        if not order:
            order, first = list(rows), rows
            shown = spread(order, most)
        if odd := rows.keys() ^ set(order):
            task, number = min(odd)
            raise SpecError(
                f"{column.name}: {run.row} did not answer the same questions as {found[0].row}; only one has {task} number {number}"
            )
        release = run.row in results.arms and results.arms[run.row].extract == "release"
        found.append(Run(run.row, run.latents, run.seed, run.job, tuple(answer(rows[one], release) for one in shown)))
    if not found:
        return None
    mirror = found[0].job.inputs["mirror"]
    assert isinstance(mirror, Job)
    return Sheet(
        column, results.title(column.name), len(order), tuple(shown), tuple(str(first[one].get("target", "")) for one in shown),
        kinds([first[one] for one in shown]), tuple(found), results.store.outputs(mirror), tuple(missing),
    )  # fmt: skip


def answer(row: dict[str, Any], release: bool) -> Answer:
    ending = "_release" if release and "correct_release" in row else ""
    said, correct = row.get(f"prediction{ending}"), row[f"correct{ending}"]
    return Answer(
        UNREADABLE if said is None else str(said), correct is not None and correct >= 0.5, row.get("response") or "",
        row.get("latent_steps") or 0, bool(row.get("truncated")), row.get("loglik"),
    )  # fmt: skip


def spread(keys: Sequence[Identity], count: int) -> list[Identity]:
    return list(keys) if len(keys) <= count else [keys[at * len(keys) // count] for at in range(count)]


def kinds(rows: Sequence[dict[str, Any]]) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Each question's kinds: its task and its groups, as far as they tell questions apart and are not too many to choose from."""
    properties = [{"task": row["task"], **{name: str(value) for name, value in (row.get("groups") or {}).items()}} for row in rows]
    values: dict[str, dict[str, None]] = {}
    for one in properties:
        for name, value in one.items():
            values.setdefault(name, {})[value] = None
    distinct = [name for name, found in values.items() if 1 < len(found) <= MOST_KINDS]
    alike = {tuple(one.get(name) for one in properties): name for name in reversed(distinct)}  # a group may repeat the task
    return tuple(tuple((name, one[name]) for name in distinct if name in alike.values() and name in one) for one in properties)
