"""V-Reflection's stages and their options, each with its source. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from models.methods.stage import PICTURES, Earlier, Need, Slots, StageSpec, Unread
from models.schema import Count, Frozen, NonNegative, Positive, Probability


class Fill(Frozen):
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
    """RoI-Align output is roi_bins x roi_bins (assumed; the paper does not give it)."""


class Alignment(Frozen):
    """L_BCM (Eq. 2) between the teacher's Z_T and the language model's H."""

    lambda_bcm: NonNegative = 0.1
    """Weight of L_BCM beside the cross-entropy (Sec. 4.1)."""
    align: Literal["bernoulli", "split", "joint"] = "bernoulli"
    """bernoulli: one side moves, drawn with p; split: half of each (release); joint: no stop-gradient ("w/o sg")."""
    p: Probability = 0.5
    """P(I = 1); I = 1 moves the language model, I = 0 the BCM. Read only by `align: bernoulli`."""
    granularity: Literal["step", "microbatch", "sample"] = "step"
    """The samples that share one Bernoulli draw. `step`: one draw is shared by all ranks and accumulation micro-batches, `microbatch` by
    `draw_samples` consecutive samples of a step."""
    draw_samples: Count = 4
    """Samples that share a draw under `granularity: microbatch`: the paper's four instances a GPU, whatever the micro-batches
    of the machine that trains."""
    bcm_distance: Literal["l1", "mse"] = "l1"
    """Between Z_T and H, the mean over all S x D elements: absolute (Eq. 2) or squared (release)."""
    bcm_init: Literal["authors", "identity"] = "authors"
    """Initialisation of a BCM that is not loaded from a checkpoint. authors: as in their code (Xavier); identity: values and output pass features
    through, so that Z_T begins as the normalised mean of the box."""
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


class _Stage(StageSpec):
    """What the three stages share."""

    counts = ("clamped", "self_fed")
    readings: ClassVar[Mapping[str, tuple[str, str]]] = {
        "teacher_fed.z_t_std": ("instance std", "Z_T"),
        "teacher_fed.z_t_cosine": ("cosine", "Z_T"),
        "free_running.z_s_std": ("instance std", "Z_S"),
        "teacher_fed.hidden_z_t_cosine": ("fed Z_T", "cosine of H with Z_T"),
        "free_running.hidden_z_t_cosine": ("free", "cosine of H with Z_T"),
        "teacher_fed.teacher_in_box": ("teacher", "attention in the box"),
        "teacher_fed.student_in_box": ("student, fed Z_T", "attention in the box"),
        "free_running.student_in_box": ("student, free", "attention in the box"),
        "teacher_fed.box_area": ("box area", "attention in the box"),
        "free_running.box_area": ("box area", "attention in the box"),
        "exposure_gap": ("gap", "exposure"),
        "exposure_cosine": ("cosine", "exposure"),
    }
    oracle_words = "by Z_T of the true evidence box (oracle)"

    def slots(self, latent_steps: int) -> Slots:
        return Slots("fixed", latent_steps)

    @property
    def rolls_out(self) -> bool:
        return steps_by_states(self) and self.rollout == "sequential"

    @property
    def slot_targets(self) -> bool:
        return self.ce_on_slots

    def oracle_allowed(self, trained: int, decoded: int) -> bool:
        return has_teacher(self) and decoded == trained

    def unread(self, option: str) -> Unread | None:
        aligns, distils = isinstance(self, Alignment), isinstance(self, Distillation)
        if aligns and option in ("p", "granularity", "draw_samples") and self.align != "bernoulli":
            return Unread("align", "set {}.align: bernoulli too")
        if option == "draw_samples" and self.granularity != "microbatch":
            return Unread("granularity", "set {}.granularity: microbatch too")
        if aligns and option in _OF_ALIGNMENT and self.lambda_bcm == 0:
            return Unread("lambda_bcm", "give it a value above 0")
        if option == "roi_bins" and self.region != "roi_align":
            return Unread("region", "set {}.region: roi_align too")
        if option == "rollout" and self.slot_fill == "teacher" and self.self_fed == 0:
            return Unread("slot_fill", "set {}.slot_fill: student or hidden too")
        if distils and option in (*_OF_DISTILLATION, "lambda_dac") and self.teacher == "none":
            return Unread("teacher", "set {}.teacher to one that gives a target")
        if distils and option in _OF_DISTILLATION and self.lambda_dac == 0:
            return Unread("lambda_dac", "give it a value above 0")
        if distils and option in ("query_source", "query_shift") and self.teacher == "none" and self.slot_fill != "student":
            return Unread("teacher", "set {}.slot_fill: student too")
        return None


_OF_ALIGNMENT = ("align", "p", "granularity", "draw_samples", "bcm_distance", "clamp")
_OF_DISTILLATION = ("lambda_feat", "lambda_attn", "dac_distance", "tau", "epsilon", "epsilon_in")


class Stage1(_Stage, Fill, Alignment):
    """CE + lambda_bcm * L_BCM. Trains the language model and the BCM."""

    kind: Literal["stage1"] = "stage1"
    means = ("bcm",)

    @model_validator(mode="after")
    def _consistent(self) -> Stage1:
        if self.slot_fill == "student":
            raise ValueError("slot_fill: student needs the DAC, which stage1 does not train; use teacher or hidden")
        return self


class Stage2(_Stage, Fill, Distillation):
    """CE + lambda_dac * L_DAC. The BCM is frozen; trains the language model and the DAC."""

    kind: Literal["stage2"] = "stage2"
    means = ("dac_feat", "dac_attn")
    slot_fill: Literal["teacher", "student", "hidden"] = "student"

    def needs(self) -> tuple[Need, ...]:
        if self.teacher not in ("stage1", "joint"):
            return (PICTURES,)
        return PICTURES, Earlier("teacher", self.teacher, "teacher", others=("joint", "stage1"), without="random")

    @model_validator(mode="after")
    def _consistent(self) -> Stage2:
        _not_circular(self)
        if self.teacher == "none" and self.rollout == "two_pass" and steps_by_states(self):
            raise ValueError("rollout: two_pass starts from teacher-filled slots, but teacher: none; use rollout: sequential")
        if self.teacher == "none" and self.slot_fill == "teacher":
            raise ValueError("teacher: none cannot fill the slots; use slot_fill: student or hidden")
        return self


class Joint(_Stage, Fill, Alignment, Distillation):
    """CE + lambda_bcm * L_BCM + lambda_dac * L_DAC against sg(Z_T) of the live BCM (Table 3c, Joint Train)."""

    kind: Literal["joint"] = "joint"
    means = ("bcm", "dac_feat", "dac_attn")
    teacher: Literal["joint"] = "joint"

    @model_validator(mode="after")
    def _consistent(self) -> Joint:
        _not_circular(self)
        return self


def _not_circular(stage: Stage2 | Joint) -> None:
    by_own_state = stage.slot_fill == "student" and stage.query_source == "hidden" and stage.rollout == "sequential"
    if by_own_state and stage.query_shift == 0:
        raise ValueError(
            "query_shift: 0 with slot_fill: student is circular (slot i would be filled from the state at slot i); "
            "use query_shift: 1, slot_fill: teacher, or rollout: two_pass"
        )


def has_teacher(stage: _Stage) -> bool:
    """Whether the stage's checkpoint holds a BCM: what oracle latents come from."""
    return getattr(stage, "teacher", "stage1") != "none"


def steps_by_states(stage: _Stage) -> bool:
    """Whether a slot's content depends on the model's state before it: own states, or a student that queries with them."""
    student = stage.slot_fill == "student" and getattr(stage, "query_source", "hidden") == "hidden"
    return stage.slot_fill == "hidden" or stage.self_fed > 0 or student


STAGES = (Stage1, Stage2, Joint)
