"""Vanilla fine-tuning, the control without latent slots."""

from __future__ import annotations

from typing import Literal

from models.methods.stage import Slots, StageSpec


class Sft(StageSpec):
    """Vanilla fine-tuning: the template without a latent segment, cross-entropy only."""

    kind: Literal["sft"] = "sft"

    def slots(self, latent_steps: int) -> Slots:
        return Slots("none")


class SftVideo(Sft):
    """The same on clips."""

    kind: Literal["sft_video"] = "sft_video"
    clips = True


STAGES = (Sft, SftVideo)
