"""Does the mechanism work? Collapse of the latents, attention in the box, and what changes when the model feeds itself.

Raw cosines mislead, because a constant that all boxes share makes them large: hence the deviation across boxes and
cosines of what is left after the mean over boxes is taken away.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Sft, Stage
from models.vreflection.batch import Batch
from models.vreflection.model import StageOutput, VReflection


def instance_std(z: Tensor) -> float:
    """Standard deviation over boxes of [B, S, D], averaged over slots and dimensions; 0 = collapsed to a constant."""
    return z.float().std(dim=0, correction=0).mean().item()


def pairwise_cosine(z: Tensor) -> float:
    """Mean cosine between different boxes' latents [B, S, D] at the same slot; 1 = collapsed."""
    unit = F.normalize(z.float(), dim=-1)
    boxes = len(unit)
    return ((unit.sum(0).square().sum(-1) - boxes) / max(boxes * (boxes - 1), 1)).mean().item()


def centred_cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine between a and b [B, S, D], each less its mean over boxes: how well they agree on the instance."""
    a, b = (x.float() - x.float().mean(0) for x in (a, b))
    return F.cosine_similarity(a, b, dim=-1).mean().item()


def mass_in_box(attention: Tensor, box_mask: Tensor) -> float:
    """Attention [B, S, L] that falls on the cells under the box [B, L], averaged over boxes and slots."""
    return (attention.float() * box_mask[:, None]).sum(-1).mean().item()


def box_area(box_mask: Tensor, key_mask: Tensor) -> float:
    """Share of an image's cells that lie under the box: what uniform attention would give."""
    return (box_mask.sum(-1) / key_mask.sum(-1)).mean().item()


def mechanism(out: StageOutput) -> dict[str, float]:
    """The numbers above, of whatever a stage's output holds."""
    found: dict[str, float] = {}
    for name, z in (("z_t", out.z_t), ("z_s", out.z_s)):
        if z is not None and len(z) > 1:
            found[f"{name}_std"] = instance_std(z)
            found[f"{name}_cosine"] = pairwise_cosine(z)
    if out.hidden is not None and out.z_t is not None and len(out.z_t) > 1:
        found["hidden_z_t_cosine"] = centred_cosine(out.hidden, out.z_t)
    if out.box_mask is not None and len(out.box_mask):
        found["box_area"] = box_area(out.box_mask, out.key_mask)
        if out.a_t is not None:
            found["teacher_in_box"] = mass_in_box(out.a_t, out.box_mask)
        if out.a_s is not None:
            found["student_in_box"] = mass_in_box(out.a_s, out.box_mask)
    return found


@torch.no_grad()
def probe(
    model: VReflection, stage: Stage, latent_steps: int, batches: Iterable[Batch], *, autocast: torch.dtype | None = None
) -> dict[str, float]:
    """Mechanism numbers over held-out batches (padded), teacher-fed and free-running; `autocast`: as in training.

    `ce`: answers with slots as in training (SFT: no slots). `teacher_fed.*`: slots hold Z_T of the true box.
    `free_running.*`: slot i holds the model's own state before it, as in decoding. `exposure_gap`: L1 distance
    between the states of the two, over the teacher-fed states' own mean deviation across boxes; 0 = none, about 1 =
    as far apart as different questions.
    """
    parts: dict[str, list[StageOutput]] = {}
    modes: dict[str, Stage] = {}
    if not isinstance(stage, Sft) and latent_steps:
        plain = {"rollout": "sequential", "self_fed": 0.0, "slot_gradient": "detached"}
        if model.box_feature_resampler is not None and getattr(stage, "teacher", "stage1") != "none":
            modes["teacher_fed"] = stage.model_copy(update=plain | {"slot_fill": "teacher"})
        modes["free_running"] = stage.model_copy(update=plain | {"slot_fill": "hidden"})
    modes = modes or {"": stage}
    moved = torch.tensor(True)
    cast = nullcontext() if autocast is None else torch.autocast(model.device.type, autocast)
    was_training = model.training
    model.eval()
    with cast:
        for batch in batches:
            for name, mode in modes.items():
                generator = torch.Generator().manual_seed(0)
                draw = moved.expand(len(batch)) if getattr(mode, "granularity", None) == "sample" else moved
                out = model(batch=batch, stage=mode, latent_steps=latent_steps, indicator=draw, generator=generator)
                parts.setdefault(name, []).append(out)
    model.train(was_training)
    found: dict[str, float] = {}
    merged = {name: _merge(outs) for name, outs in parts.items()}
    for name, out in merged.items():
        prefix = f"{name}." if name else ""
        found |= {f"{prefix}{part}": value.item() for part, value in out.parts.items()}
        found |= {f"{prefix}{part}": value for part, value in mechanism(out).items()}
    if {"teacher_fed", "free_running"} <= merged.keys():
        fed, free = merged["teacher_fed"].hidden.float(), merged["free_running"].hidden.float()
        spread = (fed - fed.mean(0)).abs().mean()
        found["exposure_gap"] = ((fed - free).abs().mean() / spread.clamp(min=1e-12)).item()
        found["exposure_cosine"] = centred_cosine(fed, free)
    return found


def _merge(outs: list[StageOutput]) -> StageOutput:
    """One output over all batches: losses weighted by their counts, latents stacked, maps padded to the longest."""
    boxes = torch.stack([o.parts["boxes"].float() for o in outs])
    tokens = torch.stack([o.parts["ce_tokens"].float() for o in outs])
    parts = {
        name: (torch.stack([o.parts[name].float() for o in outs]) * (w := tokens if name == "ce" else boxes)).sum()
        / w.sum().clamp(min=1)
        for name in ("ce", "bcm", "dac_feat", "dac_attn")
        if name in outs[0].parts
    }
    stacked: dict[str, Tensor | None] = {}
    for name in ("z_t", "z_s", "hidden", "a_t", "a_s", "box_mask", "key_mask"):
        found = [getattr(o, name) for o in outs if getattr(o, name) is not None]
        width = max((x.shape[-1] for x in found), default=0)
        stacked[name] = torch.cat([F.pad(x, (0, width - x.shape[-1])) for x in found]) if found else None
    return StageOutput(outs[0].loss, parts, **stacked)

