"""Every score of every task, computed again from the rows of samples.jsonl. Torch-free.

lmms-eval computes the same numbers by itself while it runs; the two must agree (`compare`).
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]


class Mismatch(RuntimeError):
    """A score computed from the samples differs from the task's own aggregate."""


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    name: lmms-eval's. scale: what 100 % is (1 or 100). category: only rows of that group. over: what is averaged; a
    `pair` is right if both its questions are, `cycle` averages the means of the option rotations.
    """

    name: str
    scale: float = 1.0
    column: Literal["correct", "correct_release"] = "correct"
    category: str | None = None
    over: Literal["question", "pair", "cycle"] = "question"

    def value(self, rows: Iterable[Row]) -> float | None:
        """The metric, or None where it has no rows."""
        kept = [r for r in rows if self.category in (None, r["groups"].get("category"))]
        if not kept:
            return None
        if self.over == "question":
            return self.scale * _mean([r[self.column] for r in kept])
        parts: dict[str, list[bool]] = defaultdict(list)
        for row in kept:
            parts[row["groups"][self.over]].append(row[self.column])
        if self.over == "cycle":
            return self.scale * _mean([_mean(part) for part in parts.values()])
        complete = [all(part) for part in parts.values() if len(part) == 2]
        return self.scale * _mean(complete) if complete else 0.0


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values)


_PAPER = (Metric("accuracy"), Metric("accuracy_release", column="correct_release"))


def _split(*categories: str) -> tuple[Metric, ...]:
    return tuple(Metric(c, category=c) for c in categories)


_STOCK_HRBENCH = (
    Metric("average", over="cycle"),
    Metric("single", category="single", over="cycle"),
    Metric("cross", category="cross", over="cycle"),
)

METRICS: dict[str, tuple[Metric, ...]] = {
    "vr_mmvp": (*_PAPER, Metric("pair_accuracy", over="pair")),
    "vr_blink": _PAPER,
    "vr_vstar": (*_PAPER, *_split("direct_attributes", "relative_position")),
    "vr_hrbench4k": (*_PAPER, *_split("single", "cross")),
    "vr_hrbench8k": (*_PAPER, *_split("single", "cross")),
    "vr_mmerealworld_lite": (*_PAPER, *_split("perception", "reasoning")),
    "mmvp": (Metric("mmvp_accuracy"), Metric("mmvp_pair_accuracy", over="pair")),
    "blink": (Metric("blink_acc"),),
    "vstar_bench": (Metric("vstar_overall_acc", scale=100.0),),
    "stock_hrbench4k": _STOCK_HRBENCH,
    "stock_hrbench8k": _STOCK_HRBENCH,
    "mmerealworld_lite": (Metric("mme_realworld_score"),),
}
"""Task name (BLINK's configurations under `blink` and `vr_blink`) -> its metrics, the headline first."""


def metrics_of(task: str) -> tuple[Metric, ...]:
    """The metrics of a task, the headline first; KeyError if unknown."""
    for family in ("vr_blink", "blink"):
        if task.startswith(f"{family}_"):
            return METRICS[family]
    return METRICS[task]


def task_scores(task: str, rows: Iterable[Row]) -> dict[str, float]:
    """Metric name -> value, from the rows of one task."""
    rows = list(rows)
    values = {metric.name: metric.value(rows) for metric in metrics_of(task)}
    return {name: value for name, value in values.items() if value is not None}


def flatten(by_task: dict[str, dict[str, float]], rows: Iterable[Row]) -> dict[str, float]:
    """The `aggregates` of a benchmark: "<metric>" of its one task, or "<task>.<metric>" and the mean by questions.

    A row that says which metrics count it (`scores`) counts in no other.
    """
    if len(by_task) == 1:
        return dict(next(iter(by_task.values())))
    flat = {f"{task}.{name}": value for task, scores in by_task.items() for name, value in scores.items()}
    rows = list(rows)
    counted = [scores for scores in by_task.values() if scores]  # no question of a task may count: all its clips may be missing
    for name in counted[0] if counted else ():
        if all(name in scores for scores in counted):
            sizes = Counter(row["task"] for row in rows if name in row.get("scores", (name,)))
            flat[name] = sum(sizes[task] * scores[name] for task, scores in by_task.items() if scores) / sizes.total()
    return flat


def recompute(rows: Iterable[Row]) -> dict[str, float]:
    """The `aggregates` that the rows of one samples.jsonl imply."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    return flatten({task: task_scores(task, part) for task, part in by_task.items()}, itertools.chain(*by_task.values()))


def compare(recomputed: dict[str, float], aggregates: dict[str, float], tolerance: float = 1e-9) -> None:
    """Raise Mismatch, naming every metric that is missing on one side or differs by more than `tolerance`."""
    wrong = []
    for name in sorted(recomputed.keys() | aggregates.keys()):
        ours, theirs = recomputed.get(name), aggregates.get(name)
        if ours is None or theirs is None or abs(ours - theirs) > tolerance * max(1.0, abs(theirs)):
            wrong.append(f"{name}: {ours} from the samples, {theirs} from lmms-eval")
    if wrong:
        raise Mismatch("; ".join(wrong))
