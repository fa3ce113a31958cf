"""Scored answers of one run, and the rule that two runs are compared only on the same questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


class UnmatchedIds(ValueError):
    """Two runs do not hold the same questions, so no paired statement can be made."""


@dataclass(frozen=True)
class Answers:
    """One run's scores, one entry a question.

    ids: unique question ids. clusters: what questions share (an image, a pair); same length. values: float array of the
    same length, 1.0 for correct.
    """

    ids: tuple[Hashable, ...]
    clusters: tuple[Hashable, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.clusters) == len(self.values):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.clusters)} clusters and {len(self.values)} values do not belong together"
            )
        if len(self.ids) == 0:
            raise ValueError("no answers: a mean of nothing has no value")
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name, times in Counter(self.ids).items() if times > 1)
            raise ValueError(f"question {twice!r} is answered twice in one run")

    @classmethod
    def of(cls, rows: Iterable[tuple[Hashable, Hashable, float]]) -> Answers:
        """From (id, cluster, value) triples."""
        ids, clusters, values = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), ())
        return cls(tuple(ids), tuple(clusters), np.asarray(values, dtype=float))

    @cached_property
    def cluster_index(self) -> np.ndarray:
        """[n] integers, one per distinct cluster, in order of first appearance."""
        numbers: dict[Hashable, int] = {}
        return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in self.clusters])

    def __len__(self) -> int:
        return len(self.ids)


def align(runs: Sequence[Answers]) -> np.ndarray:
    """[runs, questions] values in the first run's order of questions.

    Raises UnmatchedIds when the runs' questions differ or one question lies in different clusters.
    """
    first = runs[0]
    rows = [first.values]
    for number, run in enumerate(runs[1:], start=2):
        if run.ids != first.ids:
            missing, extra = set(first.ids) - set(run.ids), set(run.ids) - set(first.ids)
            if missing or extra:
                example = sorted(map(str, missing or extra))[:3]
                raise UnmatchedIds(
                    f"run {number} lacks {len(missing)} of the first run's {len(first)} questions and has "
                    f"{len(extra)} others, e.g. {', '.join(example)}: paired statements need the same questions"
                )
        position = {identity: i for i, identity in enumerate(run.ids)}
        order = [position[identity] for identity in first.ids]
        moved = [i for i, j in enumerate(order) if first.clusters[i] != run.clusters[j]]
        if moved:
            raise UnmatchedIds(f"question {first.ids[moved[0]]!r} lies in different clusters in two runs")
        rows.append(run.values[order])
    return np.stack(rows)
