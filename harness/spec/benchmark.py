"""A benchmark: how many questions, what guessing gives, which scores are read from its per-sample rows.

The task code is lmms-eval's or `models.evaluation`'s; here stands only what a table needs to know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from models.config import Count, Frozen, Positive

Protocol = Literal["paper", "stock"]
Percentage = Annotated[float, Field(ge=0, le=100)]


class Score(Frozen):
    """One number of a benchmark, recomputed from its samples; a column shows one score.

    where: keep only samples whose `groups` have these values; `task` matches the end of the task's name, so that one
    entry serves both protocols. aggregate: micro = correct/n; mean = the unweighted mean over the values of the group
    `over`; cluster = a cluster counts when all its questions are right (MMVP pairs).
    n: what the real benchmark has of what is counted. chance: what guessing gives, in percent.
    metric: the same number among the task's own aggregates, by protocol; left out where the task does not give it.
    """

    title: str = ""
    where: dict[str, str] = Field(default_factory=dict)
    aggregate: Literal["micro", "mean", "cluster"] = "micro"
    over: str | None = None
    n: Count
    chance: Percentage
    metric: dict[Protocol, str] = Field(default_factory=dict)

    def keeps(self, sample: dict[str, Any]) -> bool:
        """Whether a row of samples.jsonl counts in this score."""
        return all(
            sample["task"].endswith(value) if name == "task" else sample["groups"].get(name) == value
            for name, value in self.where.items()
        )


class Benchmark(Frozen):
    """title: as in the paper. scores: by name; `overall` is what a column without a score name shows.

    protocols: protocol → what it is, in words for a footnote. scale: what brings the task's own aggregates to percent, by protocol.
    """

    title: str
    source: str = ""
    protocols: dict[Protocol, str]
    scale: dict[Protocol, Positive] = Field(default_factory=dict)
    scores: dict[str, Score]

    @property
    def n(self) -> int:
        """Questions of the real benchmark."""
        return self.scores["overall"].n
