"""Qwen2.5-VL with the two resamplers: what one stage's forward pass computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import is_flash_attention_requested

from models.config import (
    Alignment,
    Distillation,
    Joint,
    Reflect,
    Sft,
    Slots,
    Stage,
    Stage1,
    Stage2,
    rolls_out,
    steps_by_states,
)
from models.visreflect import reflection
from models.vreflection import losses
from models.vreflection.batch import Batch
from models.vreflection.boxes import Cells, Region, box_cells, roi_region, token_region
from models.vreflection.modules import QUERY_STD, BoxResampler, CrossAttention, Keys, OwnParameters, StudentResampler
from models.vreflection.rollout import laid_out, sequential

Draws = torch.Generator | Sequence[torch.Generator] | None
"""Of one micro-batch, or of each of its samples."""


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
    """Detached scalars, unweighted: ce, bcm, dac_feat, dac_attn, vr, vr_first; and counts: ce_tokens, boxes, clamped, self_fed."""
    z_t: Tensor | None = None
    """[B, S, D]; of reflect the crops' first embeddings [B, 1, D]."""
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
    """[B, S, D]: the states that predict the slots (at slot i - 1); of reflect the first slot's alone [B, 1, D]."""


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

    def total(self) -> Tensor:
        return sum((self.weights[name] * loss for name, loss in self.losses.items()), start=self.hidden.new_zeros(()))


def heads_of(stage: Stage) -> frozenset[str]:
    """The heads (names as in `checkpoint.HEADS`) that a stage's forward pass uses."""
    heads = set()
    if isinstance(stage, (Stage1, Joint)) or (isinstance(stage, Stage2) and stage.teacher != "none"):
        heads.add("bcm")
    if isinstance(stage, (Stage2, Joint)) and (stage.teacher != "none" or stage.slot_fill == "student"):
        heads.add("dac")
        if stage.query_source == "static":
            heads.add("static")
    return frozenset(heads)


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
    ) -> StageOutput:
        """One stage's losses on one micro-batch.

        indicator: the Bernoulli draw, bool: a scalar (granularity step) or [samples] (granularity microbatch, sample).
        generator: CPU generator of the self-fed draw and of random queries; or one for each sample, and then what is drawn
            for a sample does not depend on the others of its micro-batch.
        num_items, num_boxes: supervised tokens and boxes over the whole optimiser step (all micro-batches and ranks),
            so that micro-batch losses add up to the step's loss; None takes this micro-batch's own counts.
        """
        terms = self.stage_terms(
            batch,
            stage,
            latent_steps,
            indicator=indicator,
            generator=generator,
            num_items=num_items,
            num_boxes=num_boxes,
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
    ) -> Terms:
        """As `stage_forward`, every term with its graph.

        A batch without boxes, or without images, goes through the same modules as any other, with empty tensors: its terms
        are 0, with gradients of 0. Ranks that share parameters (ZeRO-3) gather them module by module, and one that left a
        module out would wait for the others for ever.
        """
        features = self.vision(batch)
        embeds = self.embed(batch.input_ids, features)
        if isinstance(stage, Reflect):
            terms = self._reflect(batch, stage, embeds, num_boxes)
        elif isinstance(stage, Sft) or latent_steps == 0:
            terms = Terms({}, {}, {}, self.run_language(embeds, batch), embeds, {})
        else:
            terms = _LatentPass(
                self, batch, stage, latent_steps, features, embeds, indicator, generator, num_boxes
            ).terms()
        masked = latent_steps if isinstance(stage, Slots) and not stage.ce_on_slots else 0
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
        if embeds is None:
            return torch.zeros(0, self.config.text_config.hidden_size, dtype=like.dtype, device=like.device)
        return embeds.detach().to(like.dtype)

    def _reflect(self, batch: Batch, stage: Reflect, embeds: Tensor, num_boxes: int | Tensor | None) -> Terms:
        """VisReflect: the slots hold the crops' embeddings, and the state before each is drawn towards it."""
        if batch.segment_slots is None:
            raise Refused("reflect fills its slots with evidence crops; give the batch segment_slots and their embeddings")
        crops = self.crops(batch)
        row, column, segment = reflection.slot_places(batch)
        fed = embeds.index_put((row, column), crops.to(embeds.dtype))
        hidden = self.run_language(fed, batch)
        per_box, first = reflection.misalignment(hidden[row, column - 1], crops, segment, len(batch.boxes))
        latents = {
            "hidden": hidden[batch.segment_row, batch.segment_start - 1][:, None],
            "z_t": crops[batch.segment_slots.cumsum(0) - batch.segment_slots][:, None],
        }
        counts = {"vr_first": losses.mean(first.detach(), num_boxes)}
        return Terms({"vr": losses.mean(per_box, num_boxes)}, {"vr": stage.lambda_vr}, counts, hidden, fed, latents)

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
            places = slot_places(batch, masked_slots) if batch.segment_slots is None else reflection.slot_places(batch)
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


def slot_places(batch: Batch, slots: int, shift: int = 0) -> tuple[Tensor, Tensor]:
    """(rows [B, S], columns [B, S]) of the slots, or `shift` positions before them."""
    column = batch.segment_start[:, None] + torch.arange(slots, device=batch.segment_start.device) - shift
    return batch.segment_row[:, None].expand_as(column), column


class _LatentPass:
    """One forward pass with latent slots: the steps of `stage_terms` for a stage that has any."""

    def __init__(
        self,
        model: VReflection,
        batch: Batch,
        stage: Stage1 | Stage2 | Joint,
        slots: int,
        features: Tensor,
        embeds: Tensor,
        indicator: Tensor | None,
        generator: Draws,
        num_boxes: int | Tensor | None,
    ) -> None:
        self.model, self.batch, self.stage, self.slots = model, batch, stage, slots
        self.embeds, self.num_boxes = embeds, num_boxes
        self.generators = generator if isinstance(generator, Sequence) else [generator] * len(batch)
        self.indicator = self._per_box(indicator)
        needed = heads_of(stage)
        self.has_teacher, self.has_student = "bcm" in needed, "dac" in needed
        self._refuse()
        self.cells = Cells.of(batch.image_grids, batch.segment_image)
        self.inside = box_cells(batch.boxes, self.cells)
        self.z_t = self.a_t = self.z_s = self.a_s = self.a_soft = None
        if self.has_teacher:
            # In stage 2 the BCM is frozen: no graph, whatever its parameters' flags say.
            with torch.set_grad_enabled(torch.is_grad_enabled() and not isinstance(stage, Stage2)):
                region = model.region(features, self.cells, batch.boxes, self.inside, stage.region, stage.roi_bins)
                self.z_t, self.a_t = model.teacher(region)
        self.keys: Keys | None = None
        if self.has_student:
            self.keys = model.student_resampler.keys(self.cells.gather(features), self.cells.mask)
        self.self_fed = self._draw_self_fed()

    def terms(self) -> Terms:
        fed, hidden = self._run()
        stage, weights, found, counts = self.stage, {}, {}, {"self_fed": self.self_fed.sum()}
        states = self._states(hidden, 1)
        if isinstance(stage, (Stage1, Joint)):
            per_box, clamped = losses.alignment(self.z_t, states, stage, self.indicator)
            found["bcm"] = losses.mean(per_box, self.num_boxes)
            counts["clamped"] = clamped
            weights["bcm"] = stage.lambda_bcm
        if self.has_student and self.has_teacher:
            if self.z_s is None:
                self._ask_student(self._queries(hidden))
            target = self.z_t.detach()
            found["dac_feat"] = losses.mean(losses.distance(self.z_s, target, stage.dac_distance), self.num_boxes)
            kl = losses.attention_kl(self.a_t.detach(), self.a_soft, self.cells.mask, stage.epsilon, stage.epsilon_in)
            found["dac_attn"] = losses.mean(kl, self.num_boxes)
            weights["dac_feat"] = stage.lambda_dac * stage.lambda_feat
            weights["dac_attn"] = stage.lambda_dac * stage.lambda_attn
        latents = {
            "z_t": self.z_t, "z_s": self.z_s, "a_t": self.a_t, "a_s": self.a_s,
            "box_mask": self.inside, "key_mask": self.cells.mask, "hidden": states,
        }  # fmt: skip
        return Terms(found, weights, counts, hidden, fed, {name: x for name, x in latents.items() if x is not None})

    def _run(self) -> tuple[Tensor, Tensor]:
        """(embeddings fed, last hidden states [R, L, D]). Where the student fills, its Z_S is the one that is distilled."""
        stage, model = self.stage, self.model
        fill = None
        if stage.slot_fill == "teacher":
            fill = self.z_t
        elif stage.slot_fill == "student" and stage.query_source != "hidden":
            self._ask_student(self._queries(None))  # its queries need no states, so it is known beforehand
            fill = self.z_s
        if fill is not None and stage.self_fed == 0:
            fed = self._place(self._gradient(fill))
            return fed, model.run_language(fed, self.batch)
        if stage.rollout == "two_pass":
            return self._two_pass(fill)
        return self.embeds, self._sequential(fill)

    def _two_pass(self, fill: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pass 1 with the teacher's latents, pass 2 with what the states of pass 1 give."""
        from_student = fill is None and self.stage.slot_fill == "student"
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and (from_student or self.stage.slot_gradient == "attached")
        ):
            first = self.model.run_language(self._place(self._gradient(self.z_t)), self.batch)
        own = self._states(first, 1)
        if from_student:
            self._ask_student(self._queries(first))
            fill = self.z_s
        elif fill is None:
            fill = own
        fill = torch.where(self.self_fed[:, None, None], own.to(fill.dtype), fill)
        fed = self._place(self._gradient(fill))
        return fed, self.model.run_language(fed, self.batch)

    def _sequential(self, fill: Tensor | None) -> Tensor:
        """Slot by slot; `fill` [B, S, D] where it is known beforehand."""
        student = fill is None and self.stage.slot_fill == "student"
        steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        mixed = self.stage.self_fed > 0  # not "any drawn": ranks must run the same number of passes
        keys: Keys | None = None

        def next_input(slot: int, segments: Tensor, state: Tensor) -> Tensor:
            nonlocal keys
            if student:
                if slot == 0:
                    keys = self.keys.select(segments)
                z, a, soft = self.model.student_resampler(state[:, None], keys, tau=self.stage.tau)
                steps.append((segments, z, a, soft))
                chosen = z[:, 0]
            else:
                chosen = state if fill is None else fill[segments, slot]
            if mixed:
                chosen = torch.where(self.self_fed[segments, None], state.to(chosen.dtype), chosen)
            return self._gradient(chosen)

        batch = self.batch
        hidden = sequential(
            self.model.model.language_model, self.embeds, batch.position_ids, batch.attention_mask,
            batch.segment_row, batch.segment_start, self.slots, next_input,
        )  # fmt: skip
        if steps:
            self.z_s, self.a_s, self.a_soft = _by_segment(steps, self.slots)
        return hidden

    def _ask_student(self, queries: Tensor) -> None:
        self.z_s, self.a_s, self.a_soft = self.model.student_resampler(queries, self.keys, tau=self.stage.tau)

    def _queries(self, hidden: Tensor | None) -> Tensor:
        """Q_dyn before phi [B, S, D]: states (Eq. 3), static parameters or noise (Table 3d)."""
        stage = self.stage
        if stage.query_source == "static":
            return self.model.vreflection(len(self.batch.boxes))
        if stage.query_source == "random":
            shape, samples = (self.slots, self.embeds.shape[-1]), self.batch.segment_sample.tolist()
            drawn = [torch.randn(1, *shape, generator=self.generators[k]) for k in samples]
            return torch.cat([torch.empty(0, *shape), *drawn]).to(self.embeds)
        return self._states(hidden, stage.query_shift)

    def _states(self, hidden: Tensor, shift: int) -> Tensor:
        return hidden[slot_places(self.batch, self.slots, shift)]

    def _place(self, fill: Tensor) -> Tensor:
        return self.embeds.index_put(slot_places(self.batch, self.slots), fill.to(self.embeds.dtype))

    def _gradient(self, fill: Tensor) -> Tensor:
        return fill if self.stage.slot_gradient == "attached" else fill.detach()

    def _per_box(self, indicator: Tensor | None) -> Tensor | None:
        if indicator is None or not isinstance(self.stage, Alignment) or self.stage.align != "bernoulli":
            return None
        indicator = torch.as_tensor(indicator)
        if self.stage.granularity == "step":
            if indicator.numel() != 1:
                raise ValueError(f"granularity step takes one draw, got {indicator.numel()}")
            return indicator
        if indicator.shape != (len(self.batch),):
            what = f"granularity {self.stage.granularity}"
            raise ValueError(f"{what} takes {len(self.batch)} draws, got {tuple(indicator.shape)}")
        return indicator.to(self.batch.segment_sample.device)[self.batch.segment_sample]

    def _draw_self_fed(self) -> Tensor:
        """[B] bool: segments of the samples that are fed the model's own states."""
        sample = self.batch.segment_sample
        if self.stage.self_fed == 0:
            return torch.zeros_like(sample, dtype=torch.bool)
        drawn = torch.stack([torch.rand((), generator=own) for own in self.generators]) < self.stage.self_fed
        return drawn.to(sample.device)[sample]

    def _refuse(self) -> None:
        stage, batch, model = self.stage, self.batch, self.model
        if self.has_teacher and model.box_feature_resampler is None:
            raise Refused(f"{stage.kind} needs the BCM; load the model with heads including 'bcm'")
        if self.has_teacher and (held := model.box_feature_resampler.latent_steps) != self.slots:
            raise Refused(f"the BCM has {held} queries, but latent_steps is {self.slots}")
        if self.has_student and model.student_resampler is None:
            raise Refused(f"{stage.kind} needs the DAC; load the model with heads including 'dac'")
        if "static" in heads_of(stage) and model.vreflection is None:
            raise Refused("query_source: static needs its parameter; load the model with heads including 'static'")
        refuse_stage(stage)
        if rolls_out(stage) and batch.packed:
            raise Refused(
                "a sequential rollout fills the slots of padded rows, one sample each; packed rows have no common "
                "slot columns: use packing: padded, or rollout: two_pass"
            )
        if steps_by_states(stage) and stage.rollout == "two_pass" and not self.has_teacher:
            raise Refused(
                "rollout: two_pass starts from teacher-filled slots, but teacher: none; use rollout: sequential"
            )


def refuse_stage(stage: Slots) -> None:
    """Raise `Refused` for options that contradict each other whatever the batch."""
    if isinstance(stage, Stage1) and stage.slot_fill == "student":
        raise Refused("slot_fill: student needs the DAC, which stage1 does not train; use stage2 or joint")
    unshifted = isinstance(stage, Distillation) and stage.query_source == "hidden" and stage.query_shift == 0
    if unshifted and stage.slot_fill == "student" and stage.rollout == "sequential":
        raise Refused(
            "query_shift: 0 with slot_fill: student is circular: slot i would be filled from the state at slot i; "
            "use query_shift: 1, or rollout: two_pass"
        )


def _by_segment(steps: list[tuple[Tensor, Tensor, Tensor, Tensor]], slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-slot results of groups of segments (the k-th segment of each row that has one) -> [B, S, ...] each."""
    groups = [steps[i : i + slots] for i in range(0, len(steps), slots)]
    order = torch.cat([group[0][0] for group in groups]).argsort()
    return tuple(
        torch.cat([torch.cat([step[part] for step in group], 1) for group in groups])[order] for part in (1, 2, 3)
    )
