"""A benchmark: how many questions, what guessing gives, which scores are read from its per-sample rows.

The task code is lmms-eval's or `models.evaluation`'s; here stands only what a table needs to know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from models.config import Fetched
from models.schema import Clips, Count, Frozen, Positive

Protocol = Literal["paper", "stock"]
Percentage = Annotated[float, Field(ge=0, le=100)]


class Score(Frozen):
    """One number of a benchmark, recomputed from its samples; a column shows one score.

    where: keep only samples whose `groups` have these values; `task` matches the end of the task's name, so that one
    entry serves both protocols. aggregate: micro = correct/n; mean = the unweighted mean over the values of the group
    `over`; cluster = a cluster counts when all its questions are right (MMVP pairs); graded = the mean of scores between wrong
    and right; task = as the task computes it, which is no mean over questions (F1, a sum of categories).
    n: how many questions (or clusters) the real benchmark has. chance: accuracy of guessing, in percent; None: unknown.
    metric: the same number among the task's own aggregates, by protocol, or one text for all; left out where the task does not
    give it. scale: the factor that turns this metric into percent, if it is not the benchmark's.
    """

    title: str = ""
    where: dict[str, str] = Field(default_factory=dict)
    aggregate: Literal["micro", "mean", "cluster", "graded", "task"] = "micro"
    over: str | None = None
    n: Count
    chance: Percentage | None = None
    metric: dict[Protocol, str] = Field(default_factory=dict)
    scale: Positive | None = None

    @field_validator("metric", mode="before")
    @classmethod
    def _of_all(cls, value: Any) -> Any:
        return dict.fromkeys(get_args(Protocol), value) if isinstance(value, str) else value

    @property
    def counted(self) -> bool:
        """Whether it is a count of right answers over its questions, so that only multiples of 1/n can be printed."""
        return self.aggregate in ("micro", "cluster")

    def keeps(self, sample: dict[str, Any]) -> bool:
        """Whether a row of samples.jsonl counts in this score."""
        return all(
            sample["task"].endswith(value) if name == "task" else sample["groups"].get(name) == value
            for name, value in self.where.items()
        )


class Inference(Frozen):
    """What a protocol says of pictures and decoding, whatever a model was trained with. source: who says it.

    min_pixels, max_pixels: between which the checkpoint's processor resizes a picture. fetched, repetition_penalty,
    penalise_picked, ends: see `models.config.EvaluateSpec` and `DecodeSpec`. clips: which of their frames are seen; read by
    benchmarks that show clips.
    """

    source: str
    min_pixels: Count
    max_pixels: Count
    fetched: Fetched
    repetition_penalty: Positive | Literal["checkpoint"]
    penalise_picked: bool
    ends: Literal["all", "tokenizer"]
    clips: Clips | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Inference:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; no picture has such a size")
        return self


LMMS_EVAL = Inference(
    source="lmms-eval 0.7.3, models/chat/qwen2_5_vl.py: its own limits after qwen_vl_utils has resized once; the tokenizer's end token; else generation_config.json",
    min_pixels=256 * 28 * 28,
    max_pixels=2048 * 28 * 28,
    fetched="qwen_vl_utils",
    repetition_penalty="checkpoint",  # tasks ask for temperature 0, which leaves the penalty
    penalise_picked=False,
    ends="tokenizer",
    clips=Clips(
        frames=32,
        min_pixels=256 * 28 * 28,
        max_pixels=768 * 28 * 28,  # qwen_vl_utils' own limit
        total_pixels=115_200 * 28 * 28,
        seconds_per_grid="sampled",
    ),
)
"""How lmms-eval itself runs Qwen2.5-VL, whatever the task."""


class Benchmark(Frozen):
    """title: as in the paper. scores: by name; `overall` is what a column without a score name shows.

    protocols: protocol → what it is, in words for a footnote; left out, its tasks' names. inference: protocol → how a model is
    run under it; left out, `stock` is run as lmms-eval does, and `paper` as the recipe trains, greedily and without a penalty.
    scale: the factor that turns the task's own aggregates into percent, by protocol; 100 for tasks named here.
    tasks: protocol → tasks of lmms-eval, any that answer in text; such a benchmark needs no code. Left out, the benchmark is one
    that the project knows by name.
    """

    title: str
    source: str = ""
    tasks: dict[Protocol, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    protocols: dict[Protocol, str]
    inference: dict[Protocol, Inference] = Field(default_factory=dict)
    scale: dict[Protocol, Positive] = Field(default_factory=dict)
    scores: dict[str, Score]

    @model_validator(mode="before")
    @classmethod
    def _by_tasks(cls, value: Any) -> Any:
        """What follows from tasks and protocols; a mistake in a field is left for that field to say."""
        if not isinstance(value, dict) or not all(isinstance(value.get(k, {}), dict) for k in ("tasks", "protocols", "scale", "inference")):
            return value
        tasks = {protocol: names for protocol, names in value.get("tasks", {}).items() if protocol in get_args(Protocol)}
        words = {p: "lmms-eval's " + " and ".join(map(str, names if isinstance(names, list) else [names])) for p, names in tasks.items()}
        protocols = {**words, **value.get("protocols", {})}
        own = {"stock": LMMS_EVAL} if "stock" in protocols else {}
        made = {"inference": {**own, **value.get("inference", {})}, "scale": {**dict.fromkeys(tasks, 100), **value.get("scale", {})}}
        return {**value, **({"protocols": protocols} if protocols else {}), **made}

    def under(self, protocol: Protocol) -> Protocol:
        """The protocol itself, or the only one that the benchmark has: its column is asked so in every table."""
        return next(iter(self.protocols)) if protocol not in self.protocols and len(self.protocols) == 1 else protocol

    def reads(self, score: str, protocol: Protocol) -> tuple[str, float]:
        """(metric whose values by question make a score, what brings them to percent), of a benchmark with tasks. A part of the
        questions is scored as the whole is."""
        whole, own = self.scores["overall"], self.scores[score]
        metric = own.metric.get(protocol) or whole.metric[protocol]
        scale = own.scale or (whole.scale if protocol not in own.metric else None) or self.scale[protocol]
        task, dot, name = metric.partition(".")
        return (name if dot and task in self.tasks[protocol] else metric), scale

    @property
    def n(self) -> int:
        """Questions of the real benchmark."""
        return self.scores["overall"].n
