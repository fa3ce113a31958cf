"""LVR's supervised stage and its options. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from models.schema import NonNegative, Optimisation


class Lvr(Optimisation):
    """LVR, stage 1: CE + lambda_lvr * the distance between the state before each slot and the merged vision token under the
    box that fills it. A segment has as many slots as its box has tokens. The method's second stage, reinforcement learning,
    is not part of this project."""

    kind: Literal["lvr"] = "lvr"
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
