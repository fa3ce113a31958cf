"""What a stage, a decode and a data set are, as frozen schemas. Torch-free: `plan` and `--help` import this module.

Every difference between the paper's equations and the released code is a field here; a *recipe* chooses the values.
Schema defaults are frozen: a job's identity leaves out fields at their default, so changing one here silently would
change the meaning of stored results. `tests/models/test_config.py` pins them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Orientation = Literal["upright", "stored"]
Surplus = Literal["skip", "first", "union"]


class Frozen(BaseModel):
    """Immutable, and strict about names: an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimisation(Frozen):
    """AdamW with linear warm-up; what every stage shares."""

    steps: Count = 2500
    lr: Positive = 1e-5
    weight_decay: NonNegative = 0.1
    decay_norms: bool = False
    """Apply weight decay to norms and biases too (the release does)."""
    warmup_ratio: Probability = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    global_batch: Count = 256
    """Sequences per optimiser step over all ranks (8 GPUs x 4 instances x 8 accumulation)."""
    precision: Literal["bf16", "fp32"] = "bf16"
    max_grad_norm: Positive = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)


class Slots(Frozen):
    """What stands in the S latent slots of a training sequence."""

    slot_fill: Literal["teacher", "student", "hidden"] = "teacher"
    """teacher: Z_T from the box; student: Z_S of the DAC; hidden: the model's own state at slot i-1, as in decoding."""
    slot_gradient: Literal["attached", "detached"] = "attached"
    """attached: cross-entropy reaches the module that filled the slot (Alg. 1); detached: it does not (release)."""
    rollout: Literal["sequential", "two_pass"] = "sequential"
    """How a student or hidden fill is computed: slot by slot with a KV cache, or a teacher-filled pass then one with the result."""
    self_fed: Probability = 0.0
    """Share of samples whose slots hold the model's own states instead of `slot_fill` (0 = none)."""
    ce_on_slots: bool = False
    """Keep `<|lvr|>` targets in the cross-entropy (the release does in stage 1)."""
    region: Literal["roi_align", "tokens"] = "roi_align"
    """F_local: RoI-Align of the merged grid (Sec. 3.2) or the gathered tokens under the box (App. A.1)."""
    roi_bins: Count = 8
    """RoI-Align output is roi_bins x roi_bins (assumed; the paper is silent)."""


class Alignment(Frozen):
    """L_BCM (Eq. 2) between the teacher's Z_T and the language model's H."""

    lambda_bcm: NonNegative = 0.1
    """Weight of L_BCM beside the cross-entropy (Sec. 4.1)."""
    align: Literal["bernoulli", "split", "joint"] = "bernoulli"
    """bernoulli: one side moves, drawn with p; split: half of each (release); joint: no stop-gradient ("w/o sg")."""
    p: Probability = 0.5
    """P(I = 1); I = 1 moves the language model, I = 0 the BCM. Read only by `align: bernoulli`."""
    granularity: Literal["step", "microbatch", "sample"] = "step"
    """What shares one Bernoulli draw; `step` is shared by all ranks and accumulation micro-batches, `microbatch` by
    `draw_samples` consecutive samples of a step."""
    draw_samples: Count = 4
    """Samples that share a draw under `granularity: microbatch`: the paper's four instances a GPU, whatever the micro-batches
    of the machine that trains."""
    bcm_distance: Literal["l1", "mse"] = "l1"
    """Between Z_T and H, the mean over all S x D elements: absolute (Eq. 2) or squared (release)."""
    clamp: NonNegative = 0.0
    """Clamp both sides to +-clamp before the distance (release: 1e4); 0 = off."""


class Distillation(Frozen):
    """L_DAC (Eq. 4, 5): the DAC student against the BCM teacher."""

    lambda_dac: NonNegative = 0.1
    """Weight of L_DAC beside the cross-entropy (Sec. 4.1)."""
    lambda_feat: NonNegative = 1.0
    """Weight of the distance between Z_S and sg(Z_T) in L_DAC (Eq. 5); 0 is a row of Table 3b."""
    lambda_attn: NonNegative = 1.0
    """Weight of KL(A-hat_T || A_S) in L_DAC (Eq. 4); 0 is a row of Table 3b."""
    dac_distance: Literal["l1", "mse"] = "l1"
    """Between Z_S and sg(Z_T), the mean over all S x D elements: absolute (Eq. 5) or squared (release)."""
    tau: Positive = 1.0
    """Divides the student's scores before softmax, per head (Alg. 1 line 21 and the text before Eq. 4)."""
    epsilon: NonNegative = 1e-9
    """Added to maps before the logarithm (Eq. 4)."""
    epsilon_in: Literal["both", "student"] = "both"
    """Where the smoothing constant stands in the KL: numerator and denominator (Eq. 4) or the student only (release)."""
    query_source: Literal["hidden", "static", "random"] = "hidden"
    """Q_dyn: latent states H; a learned [S, D] parameter; N(0, 1) noise (Table 3d)."""
    query_shift: Literal[0, 1] = 1
    """1: the state that predicts slot i (position i-1), as at inference; 0: the state at the slot (release)."""
    teacher: Literal["stage1", "joint", "random", "none"] = "stage1"
    """Whose frozen BCM gives the target; `none` leaves L_DAC out (Table 3a, DAC without BCM)."""


class Crops(Frozen):
    """Size of an evidence crop as the frozen tower sees it, in merged tokens: it is resized to come within these, and to whole
    tokens, else it keeps the picture's own resolution."""

    min_tokens: Count = 16
    max_tokens: Count = 128


class Reflection(Frozen):
    """L_VR of VisReflect: 1 - cos between the state that predicts a slot and the evidence crop's embedding that fills it."""

    lambda_vr: NonNegative = 0.1
    """Weight of L_VR beside the cross-entropy."""
    crop_min_tokens: Count = 16
    """Fewest merged tokens of a crop, and so fewest slots of a segment."""
    crop_max_tokens: Count = 128
    """Most merged tokens of a crop."""


class Sft(Optimisation):
    """Vanilla fine-tuning: the template without a latent segment, cross-entropy only."""

    kind: Literal["sft"] = "sft"


class Stage1(Optimisation, Slots, Alignment):
    """CE + lambda_bcm * L_BCM. Trains the language model and the BCM."""

    kind: Literal["stage1"] = "stage1"

    @model_validator(mode="after")
    def _consistent(self) -> Stage1:
        if self.slot_fill == "student":
            raise ValueError("slot_fill: student needs the DAC, which stage1 does not train; use teacher or hidden")
        return self


class Stage2(Optimisation, Slots, Distillation):
    """CE + lambda_dac * L_DAC. The BCM is frozen; trains the language model and the DAC."""

    kind: Literal["stage2"] = "stage2"
    slot_fill: Literal["teacher", "student", "hidden"] = "student"

    @model_validator(mode="after")
    def _consistent(self) -> Stage2:
        _not_circular(self)
        if self.teacher == "none" and self.rollout == "two_pass" and steps_by_states(self):
            raise ValueError("rollout: two_pass starts from teacher-filled slots, but teacher: none; use rollout: sequential")
        if self.teacher == "none" and self.slot_fill == "teacher":
            raise ValueError("teacher: none cannot fill the slots; use slot_fill: student or hidden")
        return self


class Joint(Optimisation, Slots, Alignment, Distillation):
    """CE + lambda_bcm * L_BCM + lambda_dac * L_DAC against sg(Z_T) of the live BCM (Table 3c, Joint Train)."""

    kind: Literal["joint"] = "joint"
    teacher: Literal["joint"] = "joint"

    @model_validator(mode="after")
    def _consistent(self) -> Joint:
        _not_circular(self)
        return self


class Reflect(Optimisation, Reflection):
    """VisReflect, image stage: CE + lambda_vr * L_VR. Every slot holds one merged embedding of the evidence crop, cut from
    the original picture and encoded anew by the frozen tower; no modules are added, the language model alone trains."""

    kind: Literal["reflect"] = "reflect"
    steps: Count = 5000
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Reflect:
        if self.crop_min_tokens > self.crop_max_tokens:
            raise ValueError(
                f"crop_min_tokens {self.crop_min_tokens} is above crop_max_tokens {self.crop_max_tokens}; no crop has such a size"
            )
        return self

    @property
    def crops(self) -> Crops:
        return Crops(min_tokens=self.crop_min_tokens, max_tokens=self.crop_max_tokens)


def _not_circular(stage: Stage2 | Joint) -> None:
    by_own_state = stage.slot_fill == "student" and stage.query_source == "hidden" and stage.rollout == "sequential"
    if by_own_state and stage.query_shift == 0:
        raise ValueError(
            "query_shift: 0 with slot_fill: student is circular (slot i would be filled from the state at slot i); "
            "use query_shift: 1, slot_fill: teacher, or rollout: two_pass"
        )


AnyStage = Union[Sft, Stage1, Stage2, Joint, Reflect]
Stage = Annotated[AnyStage, Field(discriminator="kind")]


def has_teacher(stage: AnyStage) -> bool:
    """Whether the stage's checkpoint holds a BCM: what oracle latents come from."""
    return isinstance(stage, Slots) and getattr(stage, "teacher", "stage1") != "none"


def steps_by_states(stage: AnyStage) -> bool:
    """Whether a slot's content depends on the model's state before it: own states, or a student that queries with them."""
    if not isinstance(stage, Slots):
        return False
    student = stage.slot_fill == "student" and getattr(stage, "query_source", "hidden") == "hidden"
    return stage.slot_fill == "hidden" or stage.self_fed > 0 or student


def rolls_out(stage: AnyStage) -> bool:
    """Whether training fills the slots one after another. Such rows are padded, one sample each: samples packed into one
    row have no common slot columns."""
    return steps_by_states(stage) and stage.rollout == "sequential"


class Images(Frozen):
    """How pixels become tokens. The processor backend is pinned: torchvision and PIL differ by up to 0.27 after normalisation."""

    min_pixels: Count = 128 * 28 * 28
    max_pixels: Count = 5120 * 28 * 28
    processor: Literal["torchvision", "pil"] = "torchvision"
    orientation: Orientation = "upright"
    """Of pictures with an EXIF orientation. upright: turned as the tag says, as `datasets` decodes benchmarks' pictures, boxes
    with them (they are drawn on the stored raster); stored: as the raster lies in the file (the release's training)."""


class TrainSpec(Frozen):
    """One training job: one stage from one checkpoint. Upstream checkpoints and data are the job's inputs, not fields."""

    stage: Stage
    latent_steps: Annotated[int, Field(ge=0)] = 8
    """S. 0 keeps the boundary markers only (a control). Not read by sft, nor by reflect: a crop has as many slots as tokens."""
    seed: Annotated[int, Field(ge=0)] = 0
    images: Images = Images()
    vision: Literal["live", "cached"] = "live"
    """cached: frozen-tower features come from a job of their own."""
    max_tokens: Count = 16384
    """Tokens of the longest sample allowed."""
    packing: Literal["packed", "padded"] = "packed"
    """packed: samples share a row, block-diagonal; padded: one sample a row, as the release really does."""

    @model_validator(mode="after")
    def _packable(self) -> TrainSpec:
        if self.packing == "packed" and self.latent_steps and rolls_out(self.stage):
            raise ValueError(
                "packing: packed cannot roll out its slots sequentially; use packing: padded, or rollout: two_pass"
            )
        return self


Latents = Literal["own", "zeroed", "noise", "shuffled", "oracle"]


class DecodeSpec(Frozen):
    """Latent decoding: what the model is fed in its S latent steps, and when it stops."""

    latent_steps: Annotated[int, Field(ge=0)] = 8
    latents: Latents = "own"
    """own: previous last hidden state; zeroed; noise: N(0,1) scaled to the own latent's norm; shuffled: another question's;
    oracle: Z_T of the true box, or where crops filled the slots its crop's first embeddings."""
    start: Literal["emitted", "forced", "never"] = "emitted"
    """Whether the model must emit `<|lvr_start|>` itself, is made to begin with it, or may not (zero steps: no latent segment)."""
    end: Literal["emitted", "forced"] = "emitted"
    """Whether the model must emit `<|lvr_end|>` itself, or it follows the last latent step."""
    max_new_tokens: Count = 512
    count_latents: bool = False
    """Whether latent steps count against max_new_tokens (the release counts them)."""
    max_segments: Count | None = None
    """Latent segments an answer may hold: a further `<|lvr_start|>` cuts it off. None: as many as max_new_tokens allows,
    each of S + 1 forwards for one token counted."""
    repetition_penalty: Positive | Literal["checkpoint"] = 1.0
    """Divides the positive logits, and multiplies the negative ones, of every id of prompt and answer, as transformers does;
    checkpoint: what the evaluated checkpoint's generation_config.json says."""
    penalise_picked: bool = False
    """Whether an id that the model would pick in a latent step counts as an id of the answer there (it does in the release)."""
    ends: Literal["all", "tokenizer"] = "all"
    """What ends an answer: the end tokens of generation_config.json and of the tokenizer, or the tokenizer's alone."""


Fetched = Literal["as_is", "qwen_vl_utils"]
"""What happens to a picture before the checkpoint's own processor resizes it: nothing, or `qwen_vl_utils.fetch_image` (whole
cells of 28 pixels, 4 to 16,384 of them), as in lmms-eval's own model."""


class System(Frozen):
    """A system of others, which answers through lmms-eval's own model instead of this project's engine."""

    adapter: str
    """lmms-eval's name of that model: openai, internvl3, …"""
    model: str | None = None
    """The name asked for at an endpoint; None for a checkpoint."""
    arguments: dict[str, bool | int | float | str] = {}


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


GENERATOR = 2
"""Version of the proxy's world, raised when the same seed gives other pictures or questions. 1 drew hollow squares empty."""


class ProxyTraining(Frozen):
    """Procedural scenes in the Visual-CoT format; generated, so its parameters are its identity."""

    source: Literal["proxy"] = "proxy"
    generator: Count = GENERATOR
    n: Count = 8000
    seed: Annotated[int, Field(ge=0)] = 0


class ExternalTraining(Frozen):
    """Annotation files listed by a meta JSON, as a profile names them; identified by their content and their pictures'
    names and sizes (`models.training.external.identity`), not by where they lie."""

    source: Literal["external"] = "external"
    meta: str
    revision: str
    """The manifest's sha256 (64 hex digits): other data are refused. A commit (40): part of the identity. Any other text is a
    name for people."""
    surplus_boxes: Surplus = "skip"
    """Of a row with more boxes than `<lvr>`. skip: rejected, as the release's scripts do; first: the first box, as in
    its other mode; union: the smallest box around all of them."""
    min_usable: Share = 0.9
    """Least share of usable rows: below it the data job stops before any training, saying which sources lack what."""


class TrainingSet(Frozen):
    """What the data job is told about data of others: what counts as usable. Where they lie is the job's input."""

    source: Literal["external"] = "external"
    commit: str | None = None
    surplus_boxes: Surplus = "skip"
    min_usable: Share = 0.9
    images: Images = Images()
    """With `max_tokens`: a row that is longer without any latent slot is rejected."""
    max_tokens: Count = 16384


class ProxyMirror(Frozen):
    """A generated benchmark in the true schema of the stock data set."""

    source: Literal["proxy"] = "proxy"
    generator: Count = GENERATOR
    benchmark: str
    n: Count | None = None
    """Questions; None is the generator's own default for the benchmark."""
    seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["dev", "test"] = "test"


class ExternalMirror(Frozen):
    """The stock data set: a folder, known by its content, or a name on the hub, known by the commit that `revision` (a branch
    or a commit) stands for."""

    source: Literal["external"] = "external"
    benchmark: str
    path: str
    revision: str = "main"


class LinkedMirror(Frozen):
    """What the mirror job is told about a stock data set. Where it lies is the job's input."""

    source: Literal["external"] = "external"
    benchmark: str


class FeaturesSpec(Frozen):
    """One features job: the frozen tower's features of every training image, or of every evidence crop."""

    images: Images = Images()
    crops: Crops | None = None
    """None: of the whole pictures."""


TrainingData = Annotated[Union[ProxyTraining, ExternalTraining], Field(discriminator="source")]
BenchmarkData = Annotated[Union[ProxyMirror, ExternalMirror], Field(discriminator="source")]
DataSpec = Annotated[Union[ProxyTraining, TrainingSet], Field(discriminator="source")]
MirrorSpec = Annotated[Union[ProxyMirror, LinkedMirror], Field(discriminator="source")]
