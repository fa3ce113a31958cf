"""LVR's supervised stage and its options. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from models.methods.stage import Slots, StageSpec, Unread
from models.schema import NonNegative


class Lvr(StageSpec):
    """LVR, stage 1: CE + lambda_lvr * the distance between the state before each slot and the merged vision token under the
    box that fills it. A segment has as many slots as its box has tokens. The method's second stage, reinforcement learning,
    is not part of this project."""

    kind: Literal["lvr"] = "lvr"
    means = ("lvr", "lvr_end")
    readings: ClassVar[Mapping[str, tuple[str, str]]] = {
        "lvr": ("all slots", "distance of H from the box's tokens"),
        "lvr_end": ("end vector", "distance of H from the box's tokens"),
    }
    reading_note = (
        "The box's tokens: of LVR, the picture's merged tokens under the box, in raster order, and H the state before each, with "
        "the tokens in the slots."
    )
    oracle_words = "by the merged tokens under the true evidence box, from the first, again where they are fewer (oracle)"
    lambda_lvr: NonNegative = 0.1
    """Weight of the distance beside the cross-entropy."""
    lvr_distance: Literal["mse", "mae", "cosine"] = "mse"
    """In fp32, the mean over all slots."""
    head: Literal["none", "simple", "glu"] = "none"
    """What maps a state before it is compared: nothing; LayerNorm and a two-layer MLP; a gated MLP as wide as the language
    model's. Decoding feeds the state itself."""
    end_marker: bool = True
    """Write `<|lvr_latent_end|>` after the slots, as the release always does: an ordinary, supervised token."""
    latent_end: bool = False
    """Learn a vector that stands in place of that marker's embedding; the marker is no target then. `leave: latent` of decoding
    compares states with it."""
    lambda_end: NonNegative = 0.0
    """Weight of the MSE between the state before the marker and that vector (the release: 0, or 0.1 where asked for)."""

    @model_validator(mode="after")
    def _consistent(self) -> Lvr:
        if self.latent_end and not self.end_marker:
            raise ValueError("latent_end: true puts its vector in the place of the end marker; set end_marker: true")
        if self.lambda_end and not self.latent_end:
            raise ValueError("lambda_end compares a state with the learned end vector; set latent_end: true, or lambda_end: 0")
        return self

    def slots(self, latent_steps: int) -> Slots:
        return Slots("box")

    @property
    def marks_end(self) -> bool:
        return self.end_marker

    def averaged(self, mean: str) -> Literal["boxes", "slots"]:
        return "slots" if mean == "lvr" else "boxes"

    def unread(self, option: str) -> Unread | None:
        if option in ("lvr_distance", "head") and self.lambda_lvr == 0:
            return Unread("lambda_lvr", "give it a value above 0")
        return None

    def oracle_allowed(self, trained: int, decoded: int) -> bool:
        return True


STAGES = (Lvr,)
