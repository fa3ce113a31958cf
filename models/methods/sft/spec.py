"""Vanilla fine-tuning, the control without latent slots."""

from __future__ import annotations

from typing import Literal

from models.schema import Optimisation


class Sft(Optimisation):
    """Vanilla fine-tuning: the template without a latent segment, cross-entropy only."""

    kind: Literal["sft"] = "sft"
