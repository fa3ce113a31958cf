"""A benchmark: how many questions, what guessing gives, which scores are read from its per-sample rows.

The task code is lmms-eval's or `models.evaluation`'s; here stands only what a table needs to know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.config import Fetched
from models.schema import Count, Frozen, Positive

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


class Inference(Frozen):
    """What a protocol says of pictures and decoding, whatever a model was trained with. source: who says it.

    min_pixels, max_pixels: between which the checkpoint's processor resizes a picture. fetched, repetition_penalty,
    penalise_picked, ends: see `models.config.EvaluateSpec` and `DecodeSpec`.
    """

    source: str
    min_pixels: Count
    max_pixels: Count
    fetched: Fetched
    repetition_penalty: Positive | Literal["checkpoint"]
    penalise_picked: bool
    ends: Literal["all", "tokenizer"]

    @model_validator(mode="after")
    def _ordered(self) -> Inference:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; no picture has such a size")
        return self


class Benchmark(Frozen):
    """title: as in the paper. scores: by name; `overall` is what a column without a score name shows.

    protocols: protocol → what it is, in words for a footnote. inference: protocol → how a model is run under it; a protocol
    that is left out runs it as the recipe trains it, greedily and without a penalty. scale: what brings the task's own aggregates to percent, by protocol.
    """

    title: str
    source: str = ""
    protocols: dict[Protocol, str]
    inference: dict[Protocol, Inference] = Field(default_factory=dict)
    scale: dict[Protocol, Positive] = Field(default_factory=dict)
    scores: dict[str, Score]

    @property
    def n(self) -> int:
        """Questions of the real benchmark."""
        return self.scores["overall"].n
