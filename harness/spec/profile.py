"""A profile: the same graph at another scale. Which backbone, data and steps (in the key), which resources (not in it)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from harness.kinds import KINDS, NAMES
from harness.spec.benchmark import Protocol
from harness.spec.errors import unknown
from harness.spec.experiment import FileName
from harness.spec.recipe import StageName
from models.config import BenchmarkData, ClipData, ProxyClipMirror, ProxyMirror, TrainingData
from models.schema import Count, Frozen, Latents, Positive

if TYPE_CHECKING:
    KindName = str
    StageOrOther = str
else:
    KindName = Literal[NAMES]
    StageOrOther = Literal[StageName, "other"]

Zero = Literal["zero1", "zero2", "zero3"]
"""DeepSpeed's stages: 1 shards the optimiser's state over the ranks, 2 the gradients too, 3 the parameters too."""


class LocalBackbone(Frozen):
    """A checkpoint folder; identified by its files' content, wherever it lies. A relative path starts at the profile's
    own folder or, failing that, at the repository."""

    source: Literal["local"] = "local"
    path: str


class HubBackbone(Frozen):
    """A checkpoint on the Hugging Face hub at a pinned revision."""

    source: Literal["hub"] = "hub"
    repo: str
    revision: str


Backbone = Annotated[LocalBackbone | HubBackbone, Field(discriminator="source")]


class Resources(Frozen):
    """What one job of a kind is given. Never part of a key.

    cpus: per process, also the number of torch threads. processes: of a scheduler's job: the ranks of a training, or the
    shards of an evaluation, each of which answers its share of the questions on a GPU of its own; the others' is one, and
    so is every job's on the local queue. gpus, memory_gb: of all processes together. gpu_memory_gb: of one GPU; a training that
    cannot fit is refused. minutes: the time limit.
    micro_batch: sequences per forward (training), at most a rank's share of global_batch. batch_size: of a benchmark's
    longest questions, how many are decoded at once (evaluation); of shorter ones as many as need no more memory.
    cache_share: of the GPU's memory that the model leaves, how much the answers of an evaluation may take, if that is
    more; the rest is for reading prompts, and 0.5 leaves enough.
    """

    cpus: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    processes: Count = 1
    memory_gb: Positive = 4
    gpu_memory_gb: Positive | None = None
    minutes: Count = 60
    micro_batch: Count = 1
    batch_size: Count = 1
    cache_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    bundle: Count = 1
    """How many evaluations of one checkpoint run one after another in a single scheduler job, so that it is loaded once."""
    attention: Literal["eager", "eager_by_sample", "sdpa", "flash_attention_2"] = "sdpa"
    """eager_by_sample: transformers' eager attention of each sample by itself, so that a step on packed rows computes no padding: on a CPU,
    faster than sdpa for short samples. Where tokens are generated, it is eager."""
    gradient_checkpointing: bool = False
    deepspeed: Zero | dict[StageOrOther, Zero] | None = None
    """One for all trainings, or by kind of stage; a kind that is not named takes `other`, or none."""
    alone: bool = False
    """For timed jobs: start only when no other job of the run is running or ready; on a cluster the job gets a whole node."""


class LocalDispatch(Frozen):
    """slots: jobs at once on this host; null = one for each CPU."""

    kind: Literal["local"] = "local"
    slots: Count | None = None


REFUSED_OPTIONS = {
    **dict.fromkeys(
        ("job-name", "array", "output", "error", "clusters"),
        "the driver finds its jobs and their logs by it; leave it out",
    ),
    **dict.fromkeys(
        ("wrap", "parsable", "quiet", "test-only", "wait"), "the driver needs sbatch's answer; leave it out"
    ),
    **dict.fromkeys(
        ("export", "export-file"), "jobs find their code by their environment; set variables in dispatch.setup"
    ),
    **dict.fromkeys(("ntasks", "ntasks-per-node"), "set resources.KIND.processes"),
    "nodes": "a job runs on one node, with resources.KIND.processes tasks",
    "cpus-per-task": "set resources.KIND.cpus",
    "time": "set resources.KIND.minutes",
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "set resources.KIND.memory_gb"),
    "kill-on-invalid-dep": "jobs whose parents failed would stay in the queue; leave it out",
}
"""sbatch options that would take from the driver what it relies on → what to do instead."""


class SlurmDispatch(Frozen):
    """What every sbatch request of the run shares."""

    kind: Literal["slurm"] = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    throttle: Count | None = None
    """Array tasks running at once; null = no limit."""
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """Further sbatch options, as {option: value}."""
    setup: tuple[str, ...] = ()
    """Shell lines to run before Python, such as module load …"""

    @field_validator("sbatch")
    @classmethod
    def _nothing_that_the_driver_relies_on(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for given, setting in value.items():
            option = given.lstrip("-").replace("_", "-")
            if option in REFUSED_OPTIONS:
                raise ValueError(f"{given} cannot be set here: {REFUSED_OPTIONS[option]}")
            if option == "signal" and not re.fullmatch(r"(R:)?(SIG)?USR2@\d+", str(setting)):
                raise ValueError(f"signal {setting}: jobs write their checkpoint at USR2@SECONDS; use that form")
            if option == "dependency" and "?" in str(setting):
                raise ValueError(f"dependency {setting}: jobs wait for all they need; separate with commas, not '?'")
        return value


Dispatch = Annotated[LocalDispatch | SlurmDispatch, Field(discriminator="kind")]


class Profile(Frozen):
    """proxy: the results are no estimate of the paper's, so no cell gets a verdict against it.

    set: options that every row has here, by name as in a recipe. scale: factors on the recipe's and rows' own values,
    the same for all arms: a row keeps its relation to the baseline. An option that an heir sets is not scaled by its parent's factor.
    """

    extends: str | None = None
    """Parent profile; None once loaded."""
    title: str
    proxy: bool = False
    backbone: Backbone
    data: TrainingData
    clips: ClipData | None = None
    """Training data of the stages that read clips; null = none."""
    clip_backbone: Backbone | None = None
    """Base model of experiments with a column of clips; null = `backbone`."""
    benchmarks: dict[FileName, BenchmarkData]
    beside_clips: dict[FileName, ProxyMirror] = Field(default_factory=dict)
    """Benchmarks as experiments with a column of clips ask them, in place of those generated under `benchmarks`; what is external there is
    asked as it is. What a profile changes under `benchmarks` of the one that it extends, it changes here too."""
    set: dict[str, Any] = Field(default_factory=dict)
    scale: dict[str, Positive] = Field(default_factory=dict)
    clip_scale: dict[str, Positive] = Field(default_factory=dict)
    """Factors of experiments with a column of clips, in place of those of the same names in `scale` and beside the others. A factor that an heir states anew
    under `scale` holds here too."""
    comparisons: bool = False
    """Whether rows of systems that are not trained here are evaluated too, where address, key or weights are at hand. At a
    server that takes money for it, this costs money."""
    inference: Literal["protocol", "training"] = "protocol"
    """How pictures are resized and answers decoded in evaluation: as the benchmark's protocol says, or at the limits of training,
    greedily and without a penalty. Under `protocol`, an `images` or `decode` option that the profile itself sets wins, but
    for protocol stock, which is lmms-eval's own."""
    vision: Literal["live", "cached"] = "live"
    """Of stages that read pictures. cached: the frozen tower's features are computed once, by jobs of their own."""
    clip_vision: Literal["live", "cached"] = "live"
    """The same of stages that read clips. At 7B a token's features take 7 KiB, so a clip's up to 123 MiB."""
    seeds: Count = 1
    side_seeds: Count | None = None
    """Seeds, counted from the first, that also get the other latents modes and the protocols that the table does not show;
    null = all of them."""
    side_benchmarks: tuple[FileName, ...] | None = None
    """Benchmarks on which those are asked for; null = all of them. Modes that an experiment names, and modes and protocols
    of the command line, are for every benchmark."""
    protocols: tuple[Protocol, ...] = ("paper",)
    latents: tuple[Latents, ...] = ("own",)
    """Modes in which rows with latents are decoded under protocol `paper`; the table shows `own`."""
    resources: dict[KindName, Resources] = Field(default_factory=dict)
    dispatch: Dispatch = LocalDispatch()
    timed_questions: Count = 16
    """How many questions a claim of `less_time` is measured on."""
    seconds: dict[KindName, Positive] = Field(default_factory=dict)
    """Seconds of a training step, or of a whole job of another kind: the forecast until a finished job gives a measured time."""

    @field_validator("benchmarks", "beside_clips", mode="before")
    @classmethod
    def _named_by_key(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, entry in value.items():
            if isinstance(entry, dict) and entry.get("source") != "proxy_clips" and (other := entry.get("benchmark", name)) != name:
                raise ValueError(f"{name}: benchmark: {other!r} is not what the entry stands for; leave it out, or name the entry so")
        return {k: {**v, "benchmark": v.get("benchmark", k)} if isinstance(v, dict) else v for k, v in value.items()}

    @field_validator("beside_clips")
    @classmethod
    def _in_place_of_others(cls, value: dict[str, ProxyMirror], info: ValidationInfo) -> dict[str, ProxyMirror]:
        benchmarks = info.data.get("benchmarks", value)
        for name in value:
            if name not in benchmarks:
                raise ValueError(unknown(f'"{name}" stands in place of nothing under benchmarks', name, list(benchmarks), "benchmarks"))
        if clips := [name for name in value if isinstance(benchmarks[name], ProxyClipMirror)]:
            raise ValueError(f"{clips[0]}: asks about clips itself; say under benchmarks how many questions it has")
        return value

    @field_validator("resources")
    @classmethod
    def _several_only_together(cls, value: dict[KindName, Resources]) -> dict[KindName, Resources]:
        for kind, needs in value.items():
            if needs.processes > 1 and KINDS[kind].processes == "one":
                several = " and ".join(name for name in NAMES if KINDS[name].processes != "one")
                raise ValueError(f"{kind}.processes: only {several} are done by several processes together")
            if needs.cache_share is not None and not needs.gpus:
                raise ValueError(f"{kind}.cache_share: is a share of a GPU's memory, but gpus is 0; leave it out")
            if KINDS[kind].processes == "shards" and needs.gpus and needs.gpus < needs.processes:
                raise ValueError(f"{kind}: {needs.processes} processes need a GPU each, and gpus is {needs.gpus}")
        return value

    @field_validator("protocols", "latents")
    @classmethod
    def _main_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        main = "own" if "own" in value else "paper"
        if main not in value:
            raise ValueError('must hold "paper" (protocols) or "own" (latents): the table shows it')
        return tuple(sorted(dict.fromkeys(value), key=lambda name: name != main))

    def asks_aside(self, benchmark: str) -> bool:
        """Whether other latents modes and protocols than the table's are asked for on this benchmark."""
        return self.side_benchmarks is None or benchmark in self.side_benchmarks

    def resources_of(self, kind: str) -> Resources:
        """What a job of this kind is given; a card, where the profile says nothing of cards, what an evaluation is; a timed job is alone."""
        given: dict[str, Resources] = {"measure": Resources(alone=True), **self.resources}
        if kind == "card" and kind not in given:
            kind = "evaluate"
        return given.get(kind, Resources())
