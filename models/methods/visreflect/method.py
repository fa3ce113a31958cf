"""VisReflect's forward pass: the slots hold the evidence crops' embeddings, and the state before each is drawn towards it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.backbone.template import Writer
from models.latent import losses, slots
from models.latent.batch import Batch
from models.latent.terms import Draws, Refused, Terms
from models.methods.base import Encode, Method, Pieces
from models.methods.visreflect import reflection
from models.methods.visreflect.release import answer_text
from models.methods.visreflect.spec import Reflect

if TYPE_CHECKING:
    from models.backbone.model import Backbone
    from models.latent.prompt import Prompt


class VisReflect(Method):
    """The image stage."""

    stage: Reflect

    def extra_pixels(self) -> dict[str, Pieces]:
        return {"crops": self.stage.crops.pieces()}

    def writer(self) -> Writer | None:
        return answer_text if self.stage.template == "front" else None

    def terms(self, model: Backbone, batch: Batch, features: Tensor, embeds: Tensor, draws: Draws) -> Terms:
        if "crops" not in batch.encoded:
            raise Refused("reflect fills its slots with evidence crops; give the batch their embeddings: encoded['crops']")
        given = batch.encoded["crops"]
        crops = model.encode(given.values, given.grid_thw, given.embeds)
        if len(crops) != batch.slots:
            raise Refused(f"{batch.slots} slots, but the crops have {len(crops)} embeddings")
        row, column, segment = slots.places(batch)
        fed = embeds.index_put((row, column), crops.to(embeds.dtype))
        hidden = model.run_language(fed, batch)
        per_slot, per_box, first = reflection.misalignment(hidden[row, column - 1], crops, segment, len(batch.boxes))
        latents = {
            "hidden": hidden[batch.segment_row, batch.segment_start - 1][:, None],
            "z_t": crops[batch.segment_slots.cumsum(0) - batch.segment_slots][:, None],
        }
        counts = {"vr_first": losses.mean(first.detach(), draws.num_boxes)}
        by_slot = self.stage.average == "slot"
        averaged = losses.mean(per_slot, draws.num_slots) if by_slot else losses.mean(per_box, draws.num_boxes)
        return Terms({"vr": averaged}, {"vr": self.stage.lambda_vr}, counts, hidden, fed, latents)

    def oracle(self, model: Backbone, prompts: Sequence[Prompt], latent_steps: int, encode: Encode | None = None) -> list[Tensor]:
        """The first embeddings of the true boxes' crops."""
        if encode is None:
            raise ValueError("latents: oracle needs the questions' pictures, to cut the true boxes out of them")
        found = encode(self.stage.crops.pieces())
        least = min(len(tokens) for own in found for tokens in own)
        if least < latent_steps:
            raise ValueError(f"latents: oracle has {least} embeddings of a crop, but latent_steps is {latent_steps}")
        return [torch.stack([tokens[:latent_steps] for tokens in own]) for own in found]


method = VisReflect
