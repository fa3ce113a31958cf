"""The mechanism on held-out samples, teacher-fed and free-running: runs a trained model, measures with
`models.latent.diagnostics`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from models.backbone.model import Backbone
from models.latent.batch import Batch
from models.latent.diagnostics import exposure, mechanism
from models.latent.terms import StageOutput
from models.methods.stage import StageSpec


@torch.no_grad()
def probe(
    model: Backbone,
    stage: StageSpec,
    latent_steps: int,
    batches: Iterable[tuple[int, Batch]],
    *,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Mechanism numbers over held-out batches (padded), teacher-fed and free-running; `autocast`: as in training.

    batches: (number of its first sample, batch). Several processes share them, each with as many batches, and all get the
    numbers of all; a batch that two of them have counts once.
    `ce`: answers with slots as in training. Other numbers stand under the name of the way in which the method fills the slots
    here (`Method.probes`), or under none where it is training's own. `exposure_*`: how far the states of `teacher_fed` and
    `free_running` lie apart.
    """
    parts: dict[str, dict[int, StageOutput]] = {}
    modes = stage.method(latent_steps).probes(model)
    cast = nullcontext() if autocast is None else torch.autocast(model.device.type, autocast)
    was_training = model.training
    model.eval()
    with cast:
        for first, batch in batches:
            if len(modes) > 1 and batch.pixel_values is not None:  # once for all modes: the tower is the same, and frozen
                batch = replace(batch, image_embeds=model.vision(batch), pixel_values=None, image_grid_thw=None)
            for name, mode in modes.items():
                generator = [torch.Generator().manual_seed(first + k) for k in range(len(batch))]
                draw = mode.probe_indicator(len(batch))
                out = model(batch=batch, stage=mode.stage, latent_steps=latent_steps, indicator=draw, generator=generator)
                parts.setdefault(name, {})[first] = _on_cpu(out)
    model.train(was_training)
    found: dict[str, float] = {}
    merged = {name: _merge(stage, [out for _, out in sorted(outs.items())]) for name, outs in _of_all(parts).items()}
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


def _merge(stage: StageSpec, outs: list[StageOutput]) -> StageOutput:
    """One output over all batches: losses weighted by their counts, latents stacked, maps padded to the longest."""
    sizes = {what: torch.stack([o.parts[what].float() for o in outs]) for what in ("boxes", "slots", "ce_tokens")}
    parts = {
        name: (torch.stack([o.parts[name].float() for o in outs]) * (w := sizes["ce_tokens" if name == "ce" else stage.averaged(name)])).sum()
        / w.sum().clamp(min=1)
        for name in ("ce", *stage.means)
        if name in outs[0].parts
    }
    stacked: dict[str, Tensor | None] = {}
    for name in ("z_t", "z_s", "hidden", "a_t", "a_s", "box_mask", "key_mask"):
        found = [getattr(o, name) for o in outs if getattr(o, name) is not None]
        width = max((x.shape[-1] for x in found), default=0)
        stacked[name] = torch.cat([F.pad(x, (0, width - x.shape[-1])) for x in found]) if found else None
    return StageOutput(outs[0].loss, parts, **stacked)
