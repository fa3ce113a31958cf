"""Qwen2.5-VL with the two resamplers: what one stage's forward pass computes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from models.config import Stage
from models.vreflection.batch import Batch


@dataclass(eq=False)
class StageOutput:
    """Losses of one micro-batch and, detached, what diagnostics read. B boxes, S slots, L merged tokens (padded)."""

    loss: Tensor
    """Scalar to call backward on."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Detached scalars, unweighted: ce, bcm, dac_feat, dac_attn, and counts: ce_tokens, boxes, clamped."""
    z_t: Tensor | None = None
    """[B, S, D]"""
    z_s: Tensor | None = None
    """[B, S, D]"""
    a_t: Tensor | None = None
    """[B, S, L]: the teacher's map on the whole merged grid (A-hat_T of Eq. 4)."""
    a_s: Tensor | None = None
    """[B, S, L]: the student's map, without temperature."""
    box_mask: Tensor | None = None
    """[B, L] bool: cells under the box."""
    key_mask: Tensor | None = None
    """[B, L] bool: cells that exist (False is padding)."""
    hidden: Tensor | None = None
    """[B, S, D]: the states that predict the slots (at slot i - 1)."""


class VReflection(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with, where asked for, `box_feature_resampler` (BCM), `student_resampler` (DAC) and static queries."""

    def __init__(self, config, heads: frozenset[str] = frozenset(), latent_steps: int = 8) -> None:
        raise NotImplementedError

    def stage_forward(
        self,
        batch: Batch,
        stage: Stage,
        latent_steps: int,
        *,
        indicator: Tensor | None = None,
        generator: torch.Generator | None = None,
        num_items: int | float | Tensor | None = None,
        num_boxes: int | Tensor | None = None,
    ) -> StageOutput:
        """One stage's losses on one micro-batch.

        indicator: the Bernoulli draw, bool: a scalar (granularity step, microbatch) or [samples] (granularity sample).
        generator: CPU generator of the self-fed draw and of random queries.
        num_items, num_boxes: supervised tokens and boxes over the whole optimiser step (all micro-batches and ranks),
            so that micro-batch losses add up to the step's loss; None takes this micro-batch's own counts.
        """
        raise NotImplementedError
