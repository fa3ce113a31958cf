"""What a forward pass over latent slots gives: losses with their graph, and their detached copies for logs and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from models.latent.batch import Batch


@dataclass(frozen=True, eq=False)
class Draws:
    """What a forward pass is handed beside its batch: the micro-batch's random draws, and what the whole optimiser step counts,
    over all micro-batches and ranks, so that micro-batch losses add up to the step's. A count of None is the batch's own."""

    indicator: Tensor | None = None
    """The stage's own draw, bool: a scalar or [samples]."""
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    """CPU generator of what is drawn for the micro-batch; or one for each sample, and then what is drawn for a sample does not
    depend on the others."""
    num_items: float | Tensor | None = None
    """Supervised tokens."""
    num_boxes: int | Tensor | None = None
    num_slots: int | Tensor | None = None


class Refused(ValueError):
    """A combination of options, batch and modules that has no meaning; the message says why and what to use."""


@dataclass
class StageOutput(ModelOutput):
    """Losses of one micro-batch and, detached, what diagnostics read. B boxes, S slots, L merged tokens (padded).

    A dictionary of what is not None, because DeepSpeed's and accelerate's hooks find tensors in no class of our own.
    """

    loss: Tensor
    """Scalar to call backward on."""
    parts: dict[str, Tensor] | None = None
    """Detached scalars: `ce` and the stage's own means, unweighted; and counts: ce_tokens, boxes and the stage's own."""
    z_t: Tensor | None = None
    """[B, S, D]: what the true box gives for the slots; of slots of unequal number the first alone [B, 1, D]."""
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
    """[B, S, D]: the states that predict the slots (at slot i - 1), of as many slots as `z_t` has."""


@dataclass(eq=False)
class Terms:
    """The same with its graph: unweighted losses and what they were computed from."""

    losses: dict[str, Tensor]
    weights: dict[str, float]
    counts: dict[str, Tensor]
    hidden: Tensor
    """[R, L, D]: last hidden states, after the final RMSNorm."""
    embeds: Tensor
    """[R, L, D]: what the language model was fed (a sequential rollout: before the slots were filled)."""
    latents: dict[str, Tensor]
    """Fields of `StageOutput`."""
    unsupervised: tuple[Tensor, Tensor] | None = None
    """(rows [n], columns [n]) that are no targets of the cross-entropy, whatever the labels say."""

    def output(self) -> StageOutput:
        """Detached, with the loss to call backward on."""
        parts = {name: value.detach() for name, value in (self.losses | self.counts).items()}
        return StageOutput(self.total(), parts, **{name: value.detach() for name, value in self.latents.items()})

    def total(self) -> Tensor:
        return sum((self.weights[name] * loss for name, loss in self.losses.items()), start=self.hidden.new_zeros(()))


def slot_places(batch: Batch, slots: int, shift: int = 0) -> tuple[Tensor, Tensor]:
    """(rows [B, S], columns [B, S]) of the slots, or `shift` positions before them."""
    column = batch.segment_start[:, None] + torch.arange(slots, device=batch.segment_start.device) - shift
    return batch.segment_row[:, None].expand_as(column), column
