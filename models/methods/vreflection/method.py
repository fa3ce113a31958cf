"""V-Reflection's forward pass: what fills the slots, and the losses L_BCM and L_DAC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.backbone import checkpoint
from models.latent import losses
from models.latent.batch import Batch
from models.latent.boxes import Cells, Region, box_cells, roi_region, token_region
from models.latent.prompt import boxes_of
from models.latent.rollout import sequential
from models.latent.terms import Draws, Refused, Terms, slot_places
from models.latent.twice import TwoPasses
from models.methods.base import Method, Pieces
from models.methods.vreflection import losses as own
from models.methods.vreflection.modules import BCM, DAC, HEADS, STATIC, Keys
from models.methods.vreflection.spec import Alignment, Distillation, Joint, Stage1, Stage2, has_teacher, steps_by_states

if TYPE_CHECKING:
    from models.backbone.model import Backbone
    from models.latent.prompt import Prompt
    from models.training.order import Order

_INDICATOR = 1
"""Of the draw's random stream."""


class VReflection(Method):
    """One of the stages with S latent steps."""

    heads = HEADS
    stage: Stage1 | Stage2 | Joint

    def modules(self) -> frozenset[str]:
        return heads_of(self.stage) if self.latent_steps else frozenset()

    def trainable(self) -> frozenset[str]:
        return self.modules() - ({"bcm"} if isinstance(self.stage, Stage2) else set())

    def check(self) -> None:
        refuse_stage(self.stage)

    def begin(self, model: Backbone, init: Path, inputs: Mapping[str, Path]) -> None:
        """A fresh BCM that is to begin as the identity; stage 2's frozen teacher: the BCM that `init` holds, that of the
        checkpoint `teacher`, or a fresh one."""
        stage, teacher = self.stage, inputs.get("teacher")
        if isinstance(stage, Alignment) and stage.bcm_init == "identity" and "bcm" in model.fresh_heads:
            model.get_submodule(BCM).pass_through()
        if not isinstance(stage, Stage2) or "bcm" not in self.modules():
            return
        fresh = "bcm" in model.fresh_heads
        if stage.teacher == "random":
            if not fresh:
                raise ValueError(f"{init} holds a BCM, but teacher: random wants a fresh one; start from a checkpoint without")
            return
        if teacher is not None:
            held, init = checkpoint.head_tensors(teacher, BCM), Path(teacher)
            fresh = not held
            if held:
                _take(model.get_submodule(BCM), held, init)
        if fresh:
            raise ValueError(
                f"{init} holds no BCM for teacher: {stage.teacher}; start from a stage-1 checkpoint, give one as teacher, or set teacher: random"
            )

    def indicator(self, order: Order, step: int, micro: int) -> Tensor | None:
        """The Bernoulli draw I of Eq. 2 for one micro-batch, bool: a scalar for granularity step, else [micro_batch].

        granularity step: one draw for all ranks and micro-batches; sample: one for each sample; microbatch: one for each
        `draw_samples` samples of the step, in order. None where the stage draws none. True (the language model moves) with
        probability p.
        """
        stage = self.stage
        if not isinstance(stage, Alignment) or stage.align != "bernoulli":
            return None
        draws = np.random.default_rng([order.seed, _INDICATOR, step])
        if stage.granularity == "step":
            drawn = draws.random()
        else:
            shared = stage.draw_samples if stage.granularity == "microbatch" else 1
            places = np.array(order.places(step, micro)) // shared
            drawn = draws.random(-(-order.global_batch // shared))[places]
        return torch.as_tensor(drawn < stage.p)

    def terms(self, model: Backbone, batch: Batch, features: Tensor, embeds: Tensor, draws: Draws) -> Terms:
        if self.latent_steps == 0:
            return super().terms(model, batch, features, embeds, draws)
        return LatentPass(model, batch, self.stage, self.latent_steps, features, embeds, draws).terms()

    def probes(self, model: Backbone) -> dict[str, VReflection]:
        """teacher_fed: slots hold Z_T of the true box; free_running: the model's own states."""
        if not self.latent_steps:
            return {"": self}
        plain = {"rollout": "sequential", "self_fed": 0.0, "slot_gradient": "detached"}
        fills = {"free_running": "hidden"}
        if model.head(BCM) is not None and has_teacher(self.stage):
            fills = {"teacher_fed": "teacher"} | fills
        return {
            name: VReflection(self.stage.model_copy(update=plain | {"slot_fill": fill}), self.latent_steps)
            for name, fill in fills.items()
        }

    def probe_indicator(self, samples: int) -> Tensor:
        """True: the language model moves."""
        moved = torch.tensor(True)
        return moved if getattr(self.stage, "granularity", "step") == "step" else moved.expand(samples)

    def decoded_with(self) -> frozenset[str]:
        return self.modules() & {"bcm"}

    def oracle(
        self, model: Backbone, prompts: Sequence[Prompt], latent_steps: int, encode: Callable[[Pieces], list[Tensor]] | None = None
    ) -> list[Tensor]:
        """Z_T of the true boxes, by the BCM."""
        if model.head(BCM) is None:
            raise ValueError("latents: oracle needs a BCM, and the checkpoint holds none")
        held = model.get_submodule(BCM).latent_steps
        if held != latent_steps:
            raise ValueError(f"latents: oracle takes the BCM's {held} queries, but latent_steps is {latent_steps}")
        for at, prompt in enumerate(prompts):
            if prompt.boxes is None or not len(prompt.boxes):
                raise ValueError(f"latents: oracle needs the true box of every question; prompt {at} has none")
        return latents_of_boxes(model, prompts, self.stage.region, self.stage.roi_bins)


method = VReflection


def heads_of(stage: Stage1 | Stage2 | Joint) -> frozenset[str]:
    """The heads (names as in `modules.HEADS`) that a stage's forward pass uses."""
    heads = set()
    if isinstance(stage, (Stage1, Joint)) or (isinstance(stage, Stage2) and stage.teacher != "none"):
        heads.add("bcm")
    if isinstance(stage, (Stage2, Joint)) and (stage.teacher != "none" or stage.slot_fill == "student"):
        heads.add("dac")
        if stage.query_source == "static":
            heads.add("static")
    return frozenset(heads)


def teacher(model: Backbone, region: Region) -> tuple[Tensor, Tensor]:
    """(Z_T [B, S, D], A-hat_T [B, S, L]) from the boxes' features."""
    z_t, a_t = model.get_submodule(BCM)(region.features, region.mask)
    return z_t, region.spread(a_t)


def region_of(features: Tensor, cells: Cells, boxes: Tensor, inside: Tensor, kind: str, bins: int) -> Region:
    """F_local: `region: tokens | roi_align`."""
    return token_region(features, cells, inside) if kind == "tokens" else roi_region(features, cells, boxes, bins)


class LatentPass:
    """One forward pass with latent slots: the steps of `stage_terms` for a stage that has any."""

    def __init__(self, model: Backbone, batch: Batch, stage: Stage1 | Stage2 | Joint, slots: int, features: Tensor, embeds: Tensor, draws: Draws) -> None:
        self.model, self.batch, self.stage, self.slots = model, batch, stage, slots
        self.embeds, self.num_boxes = embeds, draws.num_boxes
        self.generators = draws.generator if isinstance(draws.generator, Sequence) else [draws.generator] * len(batch)
        self.indicator = self._per_box(draws.indicator)
        needed = heads_of(stage)
        self.has_teacher, self.has_student = "bcm" in needed, "dac" in needed
        self._refuse()
        self.cells = Cells.of(batch.image_grids, batch.segment_image)
        self.inside = box_cells(batch.boxes, self.cells)
        self.z_t = self.a_t = self.z_s = self.a_s = self.a_soft = None
        if self.has_teacher:
            # In stage 2 the BCM is frozen: no graph, whatever its parameters' flags say.
            with torch.set_grad_enabled(torch.is_grad_enabled() and not isinstance(stage, Stage2)):
                region = region_of(features, self.cells, batch.boxes, self.inside, stage.region, stage.roi_bins)
                self.z_t, self.a_t = teacher(model, region)
        self.keys: Keys | None = None
        if self.has_student:
            self.keys = model.student_resampler.keys(self.cells.gather(features), self.cells.mask)
        self.self_fed = self._draw_self_fed()

    def terms(self) -> Terms:
        fed, hidden = self._run()
        stage, weights, found, counts = self.stage, {}, {}, {"self_fed": self.self_fed.sum()}
        states = self._states(hidden, 1)
        if isinstance(stage, (Stage1, Joint)):
            per_box, clamped = own.alignment(self.z_t, states, stage, self.indicator)
            found["bcm"] = losses.mean(per_box, self.num_boxes)
            counts["clamped"] = clamped
            weights["bcm"] = stage.lambda_bcm
        if self.has_student and self.has_teacher:
            if self.z_s is None:
                self._ask_student(self._queries(hidden))
            target = self.z_t.detach()
            found["dac_feat"] = losses.mean(losses.distance(self.z_s, target, stage.dac_distance), self.num_boxes)
            kl = own.attention_kl(self.a_t.detach(), self.a_soft, self.cells.mask, stage.epsilon, stage.epsilon_in)
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
        passes = TwoPasses(self.model, self.batch)
        first = passes.first(self._place(self._gradient(self.z_t)), graph=from_student or self.stage.slot_gradient == "attached")
        own = self._states(first, 1)
        if from_student:
            self._ask_student(self._queries(first))
            fill = self.z_s
        elif fill is None:
            fill = own
        fill = torch.where(self.self_fed[:, None, None], own.to(fill.dtype), fill)
        fed = self._place(self._gradient(fill))
        return fed, passes.second(fed)

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
        if self.has_teacher and model.head(BCM) is None:
            raise Refused(f"{stage.kind} needs the BCM; load the model with heads including 'bcm'")
        if self.has_teacher and (held := model.box_feature_resampler.latent_steps) != self.slots:
            raise Refused(f"the BCM has {held} queries, but latent_steps is {self.slots}")
        if self.has_student and model.head(DAC) is None:
            raise Refused(f"{stage.kind} needs the DAC; load the model with heads including 'dac'")
        if "static" in heads_of(stage) and model.head(STATIC) is None:
            raise Refused("query_source: static needs its parameter; load the model with heads including 'static'")
        refuse_stage(stage)
        if stage.rolls_out and batch.packed:
            raise Refused(
                "a sequential rollout fills the slots of padded rows, one sample each; packed rows have no common "
                "slot columns: use packing: padded, or rollout: two_pass"
            )
        if steps_by_states(stage) and stage.rollout == "two_pass" and not self.has_teacher:
            raise Refused(
                "rollout: two_pass starts from teacher-filled slots, but teacher: none; use rollout: sequential"
            )


def refuse_stage(stage: Stage1 | Stage2 | Joint) -> None:
    """Raise `Refused` for options that contradict each other whatever the batch."""
    if isinstance(stage, Stage1) and stage.slot_fill == "student":
        raise Refused("slot_fill: student needs the DAC, which stage1 does not train; use stage2 or joint")
    unshifted = isinstance(stage, Distillation) and stage.query_source == "hidden" and stage.query_shift == 0
    if unshifted and stage.slot_fill == "student" and stage.rollout == "sequential":
        raise Refused(
            "query_shift: 0 with slot_fill: student is circular: slot i would be filled from the state at slot i; "
            "use query_shift: 1, or rollout: two_pass"
        )


def _take(head: nn.Module, held: dict[str, Tensor], source: Path) -> None:
    """Copy a head's tensors into it. Raises ValueError naming those that do not fit."""
    own = dict(head.state_dict())
    wrong = [f"{name} is missing" for name in own.keys() - held.keys()]
    wrong += [f"{name} is unexpected" for name in held.keys() - own.keys()]
    wrong += [
        f"{name} has shape {tuple(held[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & held.keys()
        if held[name].shape != own[name].shape
    ]
    if wrong:
        raise ValueError(f"{source}: the teacher's BCM does not fit: {'; '.join(sorted(wrong)[:5])}")
    head.load_state_dict(held)


def _by_segment(steps: list[tuple[Tensor, Tensor, Tensor, Tensor]], slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-slot results of groups of segments (the k-th segment of each row that has one) -> [B, S, ...] each."""
    groups = [steps[i : i + slots] for i in range(0, len(steps), slots)]
    order = torch.cat([group[0][0] for group in groups]).argsort()
    return tuple(
        torch.cat([torch.cat([step[part] for step in group], 1) for group in groups])[order] for part in (1, 2, 3)
    )


def latents_of_boxes(model: Backbone, prompts: Sequence[Prompt], region: str, bins: int) -> list[Tensor]:
    """[b, S, D] of every prompt: Z_T of its true boxes. region, bins: as the BCM was trained."""
    features, grids, boxes, images = boxes_of(model, prompts)
    cells = Cells.of(grids, images)
    found = region_of(features, cells, boxes, box_cells(boxes, cells), region, bins)
    return list(teacher(model, found)[0].split([len(prompt.boxes) for prompt in prompts]))
