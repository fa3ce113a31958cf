"""The mechanism on held-out samples, teacher-fed and free-running: runs a trained model, measures with
`models.latent.diagnostics`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from models.backbone.model import VReflection
from models.latent.batch import Batch
from models.latent.diagnostics import exposure, mechanism
from models.latent.terms import StageOutput
from models.methods.registry import Stage
from models.methods.vreflection.spec import Slots


@torch.no_grad()
def probe(
    model: VReflection,
    stage: Stage,
    latent_steps: int,
    batches: Iterable[tuple[int, Batch]],
    *,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Mechanism numbers over held-out batches (padded), teacher-fed and free-running; `autocast`: as in training.

    batches: (number of its first sample, batch). Several processes share them, each with as many batches, and all get the
    numbers of all; a batch that two of them have counts once.
    `ce`: answers with slots as in training (SFT: no slots). `teacher_fed.*`: slots hold Z_T of the true box.
    `free_running.*`: slot i holds the model's own state before it, as in decoding. `exposure_*`: how far the states of
    the two lie apart. Of reflect, whose first state does not depend on the slots: `vr` over all slots, `vr_first` and the
    mechanism numbers (z_t: the crop's embedding) of the first, with the crops in the slots.
    """
    parts: dict[str, dict[int, StageOutput]] = {}
    modes: dict[str, Stage] = {}
    if isinstance(stage, Slots) and latent_steps:
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
        for first, batch in batches:
            for name, mode in modes.items():
                generator = [torch.Generator().manual_seed(first + k) for k in range(len(batch))]
                draw = moved if getattr(mode, "granularity", "step") == "step" else moved.expand(len(batch))
                out = model(batch=batch, stage=mode, latent_steps=latent_steps, indicator=draw, generator=generator)
                parts.setdefault(name, {})[first] = _on_cpu(out)
    model.train(was_training)
    found: dict[str, float] = {}
    merged = {name: _merge([out for _, out in sorted(outs.items())]) for name, outs in _of_all(parts).items()}
    for name, out in merged.items():
        prefix = f"{name}." if name else ""
        found |= {f"{prefix}{part}": value.item() for part, value in out.parts.items()}
        found |= {f"{prefix}{part}": value for part, value in mechanism(out).items()}
    if {"teacher_fed", "free_running"} <= merged.keys():
        found |= exposure(merged["teacher_fed"].hidden, merged["free_running"].hidden)
    return found


def _on_cpu(out: StageOutput) -> StageOutput:
    """The same off the device, which has to hold one batch's maps and not all of them."""
    parts = {name: value.cpu() for name, value in out.parts.items()}
    return StageOutput(**{name: value.cpu() for name, value in out.items() if name != "parts"}, parts=parts)


def _of_all(parts: dict[str, dict[int, StageOutput]]) -> dict[str, dict[int, StageOutput]]:
    """The outputs of all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return parts
    every: list[dict[str, dict[int, StageOutput]]] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, parts)
    return {name: {first: out for one in every for first, out in one[name].items()} for name in parts}


def _merge(outs: list[StageOutput]) -> StageOutput:
    """One output over all batches: losses weighted by their counts, latents stacked, maps padded to the longest."""
    boxes = torch.stack([o.parts["boxes"].float() for o in outs])
    tokens = torch.stack([o.parts["ce_tokens"].float() for o in outs])
    slots = torch.stack([o.parts.get("slots", o.parts["boxes"]).float() for o in outs])  # there where L_VR is a mean over them
    parts = {
        name: (torch.stack([o.parts[name].float() for o in outs]) * (w := tokens if name == "ce" else slots if name == "vr" else boxes)).sum()
        / w.sum().clamp(min=1)
        for name in ("ce", "bcm", "dac_feat", "dac_attn", "vr", "vr_first")
        if name in outs[0].parts
    }
    stacked: dict[str, Tensor | None] = {}
    for name in ("z_t", "z_s", "hidden", "a_t", "a_s", "box_mask", "key_mask"):
        found = [getattr(o, name) for o in outs if getattr(o, name) is not None]
        width = max((x.shape[-1] for x in found), default=0)
        stacked[name] = torch.cat([F.pad(x, (0, width - x.shape[-1])) for x in found]) if found else None
    return StageOutput(outs[0].loss, parts, **stacked)
