"""Qwen2.5-VL with the two resamplers: what one stage's forward pass computes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers import initialization as init
from transformers.utils.generic import is_flash_attention_requested

from models.latent import losses, slots
from models.latent.batch import Batch
from models.latent.boxes import Cells, Region, roi_region, token_region
from models.latent.rollout import laid_out
from models.latent.terms import Draws, Refused, StageOutput, Terms, slot_places
from models.methods.registry import Stage
from models.methods.sft.spec import Sft
from models.methods.visreflect import reflection
from models.methods.visreflect.spec import Reflect
from models.methods.vreflection.method import LatentPass
from models.methods.vreflection.modules import QUERY_STD, BoxResampler, CrossAttention, OwnParameters, StudentResampler
from models.methods.vreflection.spec import Slots


class VReflection(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with, where asked for, `box_feature_resampler` (BCM), `student_resampler` (DAC) and static queries."""

    def __init__(self, config: Qwen2_5_VLConfig, heads: frozenset[str] = frozenset(), latent_steps: int = 8) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.box_feature_resampler = BoxResampler(width, latent_steps) if "bcm" in heads else None
        self.student_resampler = StudentResampler(width) if "dac" in heads else None
        self.vreflection = OwnParameters(width, latent_steps) if "static" in heads else None
        self.teacher_region: tuple[str, int] = ("roi_align", 8)
        """(region, roi_bins) that the BCM was trained with; `checkpoint.load` sets it for oracle latents."""
        self.fresh_heads: frozenset[str] = frozenset()
        """Heads that `checkpoint.load` did not find in the files."""
        self.end_vector: Tensor | None = None
        """[D]: what `leave: latent` of decoding compares states with, of a checkpoint that has learned it."""
        self.generation_text: str | None = None
        """generation_config.json of the checkpoint that `checkpoint.load` read; `checkpoint.save` writes it again."""
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        # transformers knows nothing of bare parameters: without this they are uninitialised memory after from_pretrained.
        if isinstance(module, BoxResampler):
            init.normal_(module.queries, std=QUERY_STD)
        elif isinstance(module, OwnParameters):
            init.normal_(module.static_queries, std=QUERY_STD)
        elif isinstance(module, CrossAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        else:
            super()._init_weights(module)

    def forward(self, *args, batch: Batch | None = None, **kwargs):
        """Qwen2.5-VL's own, or with `batch` the stage's (`stage_forward`): wrappers like DDP and DeepSpeed hook `forward`."""
        if batch is not None:
            return self.stage_forward(batch, **kwargs)
        return super().forward(*args, **kwargs)

    def stage_forward(
        self,
        batch: Batch,
        stage: Stage,
        latent_steps: int,
        *,
        indicator: Tensor | None = None,
        generator: Draws = None,
        num_items: float | Tensor | None = None,
        num_boxes: int | Tensor | None = None,
        num_slots: int | Tensor | None = None,
    ) -> StageOutput:
        """One stage's losses on one micro-batch.

        indicator: the Bernoulli draw, bool: a scalar (granularity step) or [samples] (granularity microbatch, sample).
        generator: CPU generator of the self-fed draw and of random queries; or one for each sample, and then what is drawn
            for a sample does not depend on the others of its micro-batch.
        num_items, num_boxes, num_slots: supervised tokens, boxes and slots over the whole optimiser step (all micro-batches
            and ranks), so that micro-batch losses add up to the step's loss; None takes this micro-batch's own counts.
        """
        terms = self.stage_terms(
            batch,
            stage,
            latent_steps,
            indicator=indicator,
            generator=generator,
            num_items=num_items,
            num_boxes=num_boxes,
            num_slots=num_slots,
        )
        parts = {name: value.detach() for name, value in (terms.losses | terms.counts).items()}
        return StageOutput(terms.total(), parts, **{name: value.detach() for name, value in terms.latents.items()})

    def stage_terms(
        self,
        batch: Batch,
        stage: Stage,
        latent_steps: int,
        *,
        indicator: Tensor | None = None,
        generator: Draws = None,
        num_items: float | Tensor | None = None,
        num_boxes: int | Tensor | None = None,
        num_slots: int | Tensor | None = None,
    ) -> Terms:
        """As `stage_forward`, every term with its graph.

        A batch without boxes, or without images, goes through the same modules as any other, with empty tensors: its terms
        are 0, with gradients of 0. Ranks that share parameters (ZeRO-3) gather them module by module, and one that left a
        module out would wait for the others for ever.
        """
        features = self.vision(batch)
        embeds = self.embed(batch.input_ids, features)
        if isinstance(stage, Reflect):
            terms = self._reflect(batch, stage, embeds, num_boxes, num_slots)
        elif isinstance(stage, Sft) or latent_steps == 0:
            terms = Terms({}, {}, {}, self.run_language(embeds, batch), embeds, {})
        else:
            terms = LatentPass(
                self, batch, stage, latent_steps, features, embeds, indicator, generator, num_boxes
            ).terms()
        masked = latent_steps if isinstance(stage, Slots) and not stage.ce_on_slots else 0
        return self.with_cross_entropy(terms, batch, masked, num_items)

    def with_cross_entropy(self, terms: Terms, batch: Batch, masked: int, num_items: float | Tensor | None) -> Terms:
        """The same terms and the cross-entropy. masked: see `cross_entropy`."""
        if terms.unsupervised is not None:
            labels = batch.labels.index_put(terms.unsupervised, torch.tensor(losses.IGNORED, device=batch.labels.device))
            batch = replace(batch, labels=labels)
        ce, count = self.cross_entropy(terms.hidden, batch, masked, num_items)
        terms.losses = {"ce": ce} | terms.losses
        terms.weights["ce"] = 1.0
        terms.counts |= {"ce_tokens": count, "boxes": torch.tensor(len(batch.boxes), device=ce.device)}
        return terms

    def vision(self, batch: Batch) -> Tensor:
        """Merged vision features [T, D], detached, in the language model's dtype (the frozen tower keeps the dtype it was
        stored in, the trained parts may be float32): cached ones, or the tower's. T is 0 without images."""
        return self._encoded(batch.pixel_values, batch.image_grid_thw, batch.image_embeds)

    def crops(self, batch: Batch) -> Tensor:
        """The same of the segments' evidence crops, segment after segment: [N, D], one for each slot."""
        crops = self._encoded(batch.crop_values, batch.crop_grid_thw, batch.crop_embeds)
        if len(crops) != int(batch.segment_slots.sum()):
            raise Refused(f"{int(batch.segment_slots.sum())} slots, but the crops have {len(crops)} embeddings")
        return crops

    def _encoded(self, pixels: Tensor | None, grid_thw: Tensor | None, embeds: Tensor | None) -> Tensor:
        visual, like = self.model.visual, self.get_input_embeddings().weight
        if pixels is not None:
            none = len(pixels) == 0
            if none:  # one blank token, for the sake of other ranks (see `stage_terms`)
                side, patch = visual.spatial_merge_size, visual.patch_embed
                width = patch.in_channels * patch.temporal_patch_size * patch.patch_size**2
                pixels, grid_thw = pixels.new_zeros(side**2, width), grid_thw.new_tensor([[1, side, side]])
            with torch.no_grad():
                found = visual(pixels.to(visual.dtype), grid_thw).pooler_output.to(like.dtype)
            return found[:0] if none else found
        if embeds is None or not len(embeds):
            return torch.zeros(0, self.config.text_config.hidden_size, dtype=like.dtype, device=like.device)
        return embeds.detach().to(like.dtype)

    def _reflect(
        self, batch: Batch, stage: Reflect, embeds: Tensor, num_boxes: int | Tensor | None, num_slots: int | Tensor | None
    ) -> Terms:
        """VisReflect: the slots hold the crops' embeddings, and the state before each is drawn towards it."""
        if batch.segment_slots is None:
            raise Refused("reflect fills its slots with evidence crops; give the batch segment_slots and their embeddings")
        crops = self.crops(batch)
        row, column, segment = slots.places(batch)
        fed = embeds.index_put((row, column), crops.to(embeds.dtype))
        hidden = self.run_language(fed, batch)
        per_slot, per_box, first = reflection.misalignment(hidden[row, column - 1], crops, segment, len(batch.boxes))
        by_slot = stage.average == "slot"
        latents = {
            "hidden": hidden[batch.segment_row, batch.segment_start - 1][:, None],
            "z_t": crops[batch.segment_slots.cumsum(0) - batch.segment_slots][:, None],
        }
        counts = {"vr_first": losses.mean(first.detach(), num_boxes)}
        if by_slot:
            counts["slots"] = torch.tensor(len(per_slot), device=per_slot.device)
        averaged = losses.mean(per_slot, num_slots) if by_slot else losses.mean(per_box, num_boxes)
        return Terms({"vr": averaged}, {"vr": stage.lambda_vr}, counts, hidden, fed, latents)

    def embed(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        """Input embeddings [R, L, D] with the features [T, D] in the image tokens' places."""
        embeds = self.get_input_embeddings()(input_ids)
        places = input_ids == self.config.image_token_id
        count = int(places.sum())
        if count != (0 if features is None else len(features)):
            raise ValueError(f"{count} image tokens, but {0 if features is None else len(features)} image features")
        if count:
            embeds = embeds.masked_scatter(places[..., None], features.to(embeds.dtype))
        return embeds

    def run_language(self, embeds: Tensor, batch: Batch) -> Tensor:
        """Last hidden states [R, L, D] in one pass, of packed rows too: each sample sees itself alone.

        Flash attention gets all real tokens as one row and is told where each sample begins: from positions alone it would
        find that out in one row only, and let samples of several rows see each other. Padding is not computed there (0 in
        the result). Elsewhere transformers derives the block-diagonal mask from the text positions, given use_cache=False.
        """
        if is_flash_attention_requested(self.model.language_model.config):
            flat = batch.flat
            ends, longest = flat.ends, flat.longest
            hidden = self.model.language_model(
                inputs_embeds=embeds.flatten(0, 1)[flat.places][None],
                position_ids=batch.position_ids[1:].flatten(1)[:, None, flat.places],
                use_cache=False,
                cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=longest, max_length_k=longest,
            ).last_hidden_state  # fmt: skip
            return laid_out(hidden[0], flat.places, embeds.shape[:2])
        return self.model.language_model(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state

    def cross_entropy(self, hidden: Tensor, batch: Batch, masked_slots: int, count: float | Tensor | None):
        """(mean cross-entropy over supervised tokens, their number); logits are computed only where they are needed.

        masked_slots: S where slots are no targets, else 0. Slots that crops fill never are.
        """
        labels = batch.labels
        if (masked_slots or batch.segment_slots is not None) and len(batch.segment_row):
            places = slot_places(batch, masked_slots) if batch.segment_slots is None else slots.places(batch)
            row, column = places[:2]
            labels = labels.index_put((row, column), torch.tensor(losses.IGNORED, device=labels.device))
        ahead = losses.supervised(labels)
        targets = labels.roll(-1, dims=1)[ahead]
        loss = losses.cross_entropy(self.lm_head(hidden[ahead]), targets, count)
        return loss, torch.tensor(len(targets), device=loss.device)

    def teacher(self, region: Region) -> tuple[Tensor, Tensor]:
        """(Z_T [B, S, D], A-hat_T [B, S, L]) from the boxes' features."""
        z_t, a_t = self.box_feature_resampler(region.features, region.mask)
        return z_t, region.spread(a_t)

    def region(self, features: Tensor, cells: Cells, boxes: Tensor, inside: Tensor, kind: str, bins: int) -> Region:
        """F_local: `region: tokens | roi_align`."""
        if kind == "tokens":
            return token_region(features, cells, inside)
        return roi_region(features, cells, boxes, bins)
