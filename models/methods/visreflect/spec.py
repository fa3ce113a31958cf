"""VisReflect's two stages and their options. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from models.methods.stage import PICTURES, Cut, Features, Need, Slots, StageSpec
from models.schema import Count, Frozen, NonNegative, Positive

if TYPE_CHECKING:
    from models.methods.base import Method, Pieces

CropRule = Literal["outward", "nearest"]
"""Which pixels a box stands for. outward: the box rounded outwards, a sliver grown to a token's side. nearest: edges rounded to
the nearest pixel; a box of the whole picture, and a crop 200 times as long as wide, has no crop (release)."""


class Crops(Cut):
    """Size of an evidence crop as the frozen tower sees it, in merged tokens: it is resized to come within these, and to whole
    tokens, else it keeps the picture's own resolution."""

    min_tokens: Count = 16
    max_tokens: Count = 128
    rule: CropRule = "outward"

    def pieces(self) -> Pieces:
        from models.methods.visreflect.crops import CropPieces

        return CropPieces(self)


class Reflection(Frozen):
    """L_VR of VisReflect: 1 - cos between the state that predicts a slot and the evidence crop's embedding that fills it."""

    lambda_vr: NonNegative = 0.1
    """Weight of L_VR beside the cross-entropy."""
    crop_min_tokens: Count = 16
    """Minimum merged tokens of a crop, and therefore of slots in a segment."""
    crop_max_tokens: Count = 128
    """Maximum merged tokens of a crop."""
    crop_rule: CropRule = "outward"
    """Which pixels a box stands for, and which boxes have no crop and so no segment."""
    template: Literal["placeholders", "front"] = "placeholders"
    """placeholders: a segment where `<lvr>` stands, the answer in its tags as in the data; front: all segments at the head of
    the first answer, and "The answer is: A" in place of `<answer> A </answer>` (release)."""
    gradient_scale: Positive = 1.0
    """Multiplies the gradient before it is clipped (the release adds up its four accumulation steps instead of averaging)."""
    average: Literal["crop", "slot"] = "crop"
    """What L_VR is a mean over: a crop's slots, then crops; or all slots, so that a large crop weighs more (release)."""


class Reflect(StageSpec, Reflection):
    """VisReflect, image stage: CE + lambda_vr * L_VR. Every slot holds one merged embedding of the evidence crop, cut from
    the original picture and encoded anew by the frozen tower; no modules are added, the language model alone trains."""

    kind: Literal["reflect"] = "reflect"
    means = ("vr", "vr_first")
    readings: ClassVar[Mapping[str, tuple[str, str]]] = {
        "vr": ("all slots", "1 − cosine of H with the crop"),
        "vr_first": ("first slot", "1 − cosine of H with the crop"),
        "hidden_z_t_cosine": ("first slot, centred", "cosine of H with the crop"),
    }
    reading_note = (
        "The crop: of VisReflect, the embedding that stands in the slot, and H the state before it, with the crops in the "
        "slots. The first slot's state is what one latent step feeds."
    )
    oracle_words = "by the first embeddings of the true evidence box's crop (oracle)"
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
        return Crops(min_tokens=self.crop_min_tokens, max_tokens=self.crop_max_tokens, rule=self.crop_rule)

    def slots(self, latent_steps: int) -> Slots:
        return Slots("piece")

    def needs(self) -> tuple[Need, ...]:
        return PICTURES, Features("crops", self.crops)

    def averaged(self, mean: str) -> Literal["boxes", "slots"]:
        return "slots" if mean == "vr" and self.average == "slot" else "boxes"

    def oracle_allowed(self, trained: int, decoded: int) -> bool:
        return decoded <= self.crop_min_tokens and self.crop_rule == "outward"  # the other rule gives some boxes no crop


class ClueFrames(Cut):
    """Clue frames of a clip, and the size of each as the frozen tower sees it, in merged tokens."""

    most: Count = 3
    min_tokens: Count = 16
    max_tokens: Count = 64

    def pieces(self) -> Pieces:
        from models.methods.visreflect.clues import CluePieces

        return CluePieces(self)


class ReflectVideo(StageSpec):
    """VisReflect, video stage: CE + lambda_vr * L_VR, on clips whose evidence is spans of time. One segment holds the embeddings
    of up to three frames of the spans. Two passes: the first gives L_VR; in the second every slot holds the first's state
    before it, detached, and the cross-entropy is taken there alone."""

    kind: Literal["reflect_video"] = "reflect_video"
    clips = True
    means = ("vr", "vr_first")
    readings: ClassVar[Mapping[str, tuple[str, str]]] = {
        "vr": ("all slots", "1 − cosine of H with the clue frames"),
        "vr_first": ("first slot", "1 − cosine of H with the clue frames"),
    }
    reading_note = "The clue frames: of VisReflect's video stage, the embeddings in the slots, and H the states before them."
    steps: Count = 5000
    lr: Positive = 1e-6
    weight_decay: NonNegative = 0.0
    global_batch: Count = 8
    lambda_vr: NonNegative = 0.1
    """Weight of L_VR beside the cross-entropy."""
    clue_frames: Count = 3
    """Maximum number of frames from a clip's spans in its slots."""
    clue_min_tokens: Count = 16
    """Minimum merged tokens of a clue frame."""
    clue_max_tokens: Count = 64
    """Maximum merged tokens of a clue frame."""
    passes: Literal["two", "one"] = "two"
    """one: the cross-entropy is taken of the first pass, with the clue frames in the slots, as in the image stage."""

    @model_validator(mode="after")
    def _ordered(self) -> ReflectVideo:
        if self.clue_min_tokens > self.clue_max_tokens:
            raise ValueError(
                f"clue_min_tokens {self.clue_min_tokens} is above clue_max_tokens {self.clue_max_tokens}; no frame has such a size"
            )
        return self

    @property
    def clues(self) -> ClueFrames:
        return ClueFrames(most=self.clue_frames, min_tokens=self.clue_min_tokens, max_tokens=self.clue_max_tokens)

    def slots(self, latent_steps: int) -> Slots:
        return Slots("pieces")

    def needs(self) -> tuple[Need, ...]:
        return PICTURES, Features("clues", self.clues)

    def averaged(self, mean: str) -> Literal["boxes", "slots"]:
        return "slots" if mean == "vr" else "boxes"

    def method(self, latent_steps: int) -> Method:
        from models.methods.visreflect.video import VisReflectVideo

        return VisReflectVideo(self, latent_steps)


STAGES = (Reflect, ReflectVideo)
CUTS = {"crops": Crops, "clues": ClueFrames}
