"""VisReflect's video stage: a first pass with the clue frames' embeddings in the slots, a second with the model's own states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from models.backbone.template import Writer, latent_text
from models.latent import losses, slots
from models.latent.batch import Batch
from models.latent.terms import Draws, Refused, Terms
from models.latent.twice import TwoPasses
from models.methods.base import Method, Pieces
from models.methods.visreflect import reflection
from models.methods.visreflect.spec import ReflectVideo

if TYPE_CHECKING:
    from models.backbone.model import Backbone


def clip_answer(value: str, counts: Sequence[int]) -> str:
    """An assistant's turn: one segment, then the record's answer as it is. counts: slots of the segment; empty in later turns."""
    return "".join(latent_text(count) for count in counts if count) + value


def with_own_states(batch: Batch, fed: Tensor, hidden: Tensor) -> Tensor:
    """What the second pass is fed [R, L, D]: the slots hold the first's states before them [R, L, D], detached."""
    row, column, _ = slots.places(batch)
    return fed.index_put((row, column), hidden[row, column - 1].detach().to(fed.dtype))


class VisReflectVideo(Method):
    """The video stage."""

    stage: ReflectVideo

    def extra_pixels(self) -> dict[str, Pieces]:
        return {"clues": self.stage.clues.pieces()}

    def writer(self) -> Writer | None:
        return clip_answer

    def terms(self, model: Backbone, batch: Batch, features: Tensor, embeds: Tensor, draws: Draws) -> Terms:
        if "clues" not in batch.encoded:
            raise Refused("reflect_video fills its slots with clue frames; give the batch their embeddings: encoded['clues']")
        given = batch.encoded["clues"]
        clues = model.encode(given.values, given.grid_thw, given.embeds)
        if len(clues) != batch.slots:
            raise Refused(f"{batch.slots} slots, but the clue frames have {len(clues)} embeddings")
        row, column, segment = slots.places(batch)
        fed = embeds.index_put((row, column), clues.to(embeds.dtype))
        passes = TwoPasses(model, batch) if self.stage.passes == "two" else None
        hidden = passes.first(fed) if passes else model.run_language(fed, batch)
        states = hidden[row, column - 1]
        per_slot, _, first = reflection.misalignment(states, clues, segment, len(batch.boxes))
        counts = {"vr_first": losses.mean(first.detach(), draws.num_boxes)}
        if passes:  # by batches without clue frames too: see `Method.terms`
            fed = with_own_states(batch, fed, hidden)
            hidden = passes.second(fed)
        vr = losses.mean(per_slot, draws.num_slots)
        return Terms({"vr": vr}, {"vr": self.stage.lambda_vr}, counts, hidden, fed, {})
