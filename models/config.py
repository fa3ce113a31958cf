"""What the jobs and data sets are, as frozen schemas. Torch-free: `plan` and `--help` import this module.

Every difference between the paper's equations and the released code is a field here; a *recipe* chooses the values.
Schema defaults are frozen: a job's identity leaves out fields at their default, so changing one here silently would
change the meaning of stored results. `tests/models/test_config.py` pins them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field, create_model, model_validator

from models.methods.registry import CUTS, Stage
from models.methods.stage import Cut
from models.schema import Clips, Count, DecodeSpec, Frozen, Images, Share

Surplus = Literal["skip", "first", "union"]


class TrainSpec(Frozen):
    """One training job: one stage from one checkpoint. Upstream checkpoints and data are the job's inputs, not fields."""

    stage: Stage
    latent_steps: Annotated[int, Field(ge=0)] = 8
    """S. 0 keeps the boundary markers only (a control). Read by stages whose segments have S slots each."""
    seed: Annotated[int, Field(ge=0)] = 0
    images: Images = Images()
    vision: Literal["live", "cached"] = "live"
    """cached: frozen-tower features come from a job of their own."""
    max_tokens: Count = 16384
    """Tokens of the longest sample allowed."""
    packing: Literal["packed", "padded"] = "packed"
    """packed: samples share a row, block-diagonal; padded: one sample a row, as the release really does."""
    clips: Clips = Clips()
    """How clips are sampled. Read by stages whose samples are clips."""

    @model_validator(mode="after")
    def _packable(self) -> TrainSpec:
        if self.packing == "packed" and self.latent_steps and self.stage.rolls_out:
            raise ValueError(
                "packing: packed cannot roll out its slots sequentially; use packing: padded, or rollout: two_pass"
            )
        return self


Fetched = Literal["as_is", "qwen_vl_utils"]
"""What happens to a picture before the checkpoint's own processor resizes it: nothing, or `qwen_vl_utils.fetch_image` (whole
cells of 28 pixels, 4 to 16,384 of them), as in lmms-eval's own model."""


class System(Frozen):
    """A system of others, which answers through lmms-eval's own model instead of this project's engine."""

    adapter: str
    """lmms-eval's name of that model: openai, internvl3, …"""
    model: str | None = None
    """The name asked for at an endpoint; None for a checkpoint."""
    arguments: dict[str, bool | int | float | str] = {}  # noqa: RUF012  pydantic copies it


class EvaluateSpec(Frozen):
    """One evaluation job: one checkpoint on one benchmark under one protocol and one latents mode."""

    benchmark: str
    protocol: Literal["paper", "stock"] = "paper"
    tasks: dict[str, str]
    """lmms-eval task name -> digest of its expanded YAML and function files."""
    decode: DecodeSpec = DecodeSpec()
    images: Images = Images()
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: Annotated[int, Field(ge=0)] = 0
    """Of noise and of the shuffling; the decoding itself is greedy."""
    system: System | None = None
    """Who answers, if not a checkpoint of this project; then of `decode` only max_new_tokens is read."""
    fetched: Fetched = "as_is"
    clips: Clips | None = None
    """Which frames of clips are seen; None where a benchmark shows pictures alone."""


class CardSpec(Frozen):
    """The causal card of one checkpoint on one benchmark's questions, or on generated twins (which are read as MMVP is).

    tasks: as in EvaluateSpec. decode: how the row answers; its segment is forced open. oracle: whether the true boxes' latents can
    be fed. n: questions at most, evenly spread. seed: of the noise.
    """

    benchmark: str
    tasks: dict[str, str]
    decode: DecodeSpec
    oracle: bool = False
    n: Count = 400
    images: Images = Images()
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: Annotated[int, Field(ge=0)] = 0


class MapsSpec(Frozen):
    """Attention maps of one checkpoint: of training samples (no benchmark), or while it answers a benchmark's questions.

    samples: how many, evenly spread over the data and chosen by nothing else.
    """

    benchmark: str | None = None
    samples: Count = 6
    latent_steps: Annotated[int, Field(ge=1)] = 8
    max_new_tokens: Count = 512
    images: Images = Images()
    precision: Literal["bf16", "fp32"] = "bf16"


class MeasureSpec(Frozen):
    """Cost of latent steps on one checkpoint: counts, and seconds over prompts and answers of these lengths (tokens)."""

    latent_steps: Annotated[int, Field(ge=1)] = 8
    answers: tuple[Count, ...] = (10, 20, 30)
    prompts: tuple[Count, ...] = (64,)
    context: Count = 1024
    """Tokens before the counted decoding step of the 7B configuration."""
    repeats: Count = 20
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: Annotated[int, Field(ge=0)] = 0


class TimesSpec(Frozen):
    """Time of one row's answers against those of a row that zooms: each row's own checkpoint (an input) and decode, the same questions.

    questions: at most so many, evenly spread. together: how many are answered at once.
    """

    row: EvaluateSpec
    zooming: EvaluateSpec
    questions: Count = 16
    rounds: Annotated[int, Field(ge=6)] = 6
    """Of six, the lowest and the highest enclose the true median 97 times in 100."""
    together: Count = 8


CostSpec = Annotated[Union[MeasureSpec, TimesSpec], Field(union_mode="left_to_right")]
"""What a `measure` job does; every payload of one is refused by the other."""


GENERATOR = 3
"""Version of the proxy's world, raised when the same seed gives other pictures or questions. 1 drew hollow squares
empty; 2 drew everything in full contrast and left a margin around evidence."""


class ProxyTraining(Frozen):
    """Procedural scenes in the Visual-CoT format; generated, so its parameters are its identity."""

    source: Literal["proxy"] = "proxy"
    generator: Count = GENERATOR
    n: Count = 8000
    seed: Annotated[int, Field(ge=0)] = 0


CLIPS_GENERATOR = 2
"""Version of the proxy's clips, raised when the same seed gives other clips or questions."""
CLIP_RECORDS_GENERATOR = 3
"""The same of the training records about clips. In 1 the answers were "The answer is: A", words that the proxy base had never read."""


class ProxyClips(Frozen):
    """Procedural clips in the format of VisReflect's release; generated, so its parameters are its identity. n: questions."""

    source: Literal["proxy_clips"] = "proxy_clips"
    generator: Count = CLIP_RECORDS_GENERATOR
    n: Count = 2700
    seed: Annotated[int, Field(ge=0)] = 0


class ExternalTraining(Frozen):
    """Annotation files listed by a meta JSON, as a profile names them; identified by their content and their pictures'
    names and sizes (`models.training.external.identity`), not by where they lie."""

    source: Literal["external"] = "external"
    meta: str
    revision: str
    """The manifest's sha256 (64 hex digits): other data are refused. A commit (40): part of the identity. Any other text is a
    free label."""
    surplus_boxes: Surplus = "skip"
    """Of a row with more boxes than `<lvr>`. skip: rejected, as the release's scripts do; first: the first box, as in
    its other mode; union: the smallest box around all of them."""
    min_usable: Share = 0.9
    """Minimum share of usable rows. Below it the data job stops before any training, and says which sources lack what."""


class TrainingSet(Frozen):
    """What the data job is told about data of others: what counts as usable. Where they lie is the job's input."""

    source: Literal["external"] = "external"
    commit: str | None = None
    surplus_boxes: Surplus = "skip"
    min_usable: Share = 0.9
    images: Images = Images()
    """With `max_tokens`: a row that is longer without any latent slot is rejected."""
    max_tokens: Count = 16384
    clips: Clips = Clips()
    """How clips are sampled, which decides how long their rows are."""


class ProxyMirror(Frozen):
    """A generated benchmark in the true schema of the stock data set."""

    source: Literal["proxy"] = "proxy"
    generator: Count = GENERATOR
    benchmark: str
    n: Count | None = None
    """Questions; None is the generator's own default for the benchmark."""
    seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["dev", "test"] = "test"


class ProxyClipMirror(ProxyMirror):
    """A generated benchmark of clips, in the schema and layout of Video-MME."""

    source: Literal["proxy_clips"] = "proxy_clips"  # type: ignore[assignment]
    generator: Count = CLIPS_GENERATOR
    benchmark: Literal["videomme"] = "videomme"  # type: ignore[assignment]


class ProxyTwins(Frozen):
    """Generated twin questions: the same question about two pictures that differ in the evidence alone, so in the answer."""

    source: Literal["twins"] = "twins"
    generator: Count = GENERATOR
    n: Count = 400
    """Questions; two to a pair."""
    seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["dev", "test"] = "test"


class ExternalMirror(Frozen):
    """The stock data set: a folder, known by its content, or a name on the hub, known by the commit that `revision` (a branch
    or a commit) stands for."""

    source: Literal["external"] = "external"
    benchmark: str
    path: str
    revision: str = "main"
    clips: str | None = None
    """The folder that holds the benchmark's clips, as lmms-eval keeps it below HF_HOME; null = that one, or the data set's folder.
    Clips are known by their names and sizes."""


class LinkedMirror(Frozen):
    """What the mirror job is told about a stock data set. Where it lies is the job's input."""

    source: Literal["external"] = "external"
    benchmark: str
    tasks: tuple[str, ...] = ()
    """Of lmms-eval's, where the benchmark is none of the project's own."""


class _FeaturesSpec(Frozen):
    """One features job: the frozen tower's features of every training picture and clip, or of the pieces that one field says
    are cut out of them."""

    images: Images = Images()
    clips: Clips | None = None
    """How clips are sampled; None for the training set of stages that read pictures."""

    @property
    def cut(self) -> tuple[str, Cut] | None:
        """(role, cut); None: of the whole pictures."""
        return next(((role, cut) for role in CUTS if (cut := getattr(self, role)) is not None), None)


FeaturesSpec = create_model("FeaturesSpec", __base__=_FeaturesSpec, **{role: (cut | None, None) for role, cut in CUTS.items()})


TrainingData = Annotated[Union[ProxyTraining, ExternalTraining], Field(discriminator="source")]
ClipData = Annotated[Union[ProxyClips, ExternalTraining], Field(discriminator="source")]
BenchmarkData = Annotated[Union[ProxyMirror, ProxyClipMirror, ExternalMirror], Field(discriminator="source")]
DataSpec = Annotated[Union[ProxyTraining, ProxyClips, TrainingSet], Field(discriminator="source")]
MirrorSpec = Annotated[Union[ProxyMirror, ProxyClipMirror, ProxyTwins, LinkedMirror], Field(discriminator="source")]
