"""Is the latent path alive? Collapse of Z_T, attention in the box, and the gap between teacher-fed and free-running states.

Pure functions on the tensors of a `StageOutput`; `probe` runs the model twice without gradients. Raw cosines mislead (a
shared constant gives .8), so std across boxes and centred cosines stand beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import Joint, Stage1, Stage2
from models.vreflection.batch import Batch
from models.vreflection.model import StageOutput, VReflection


def instance_std(x: Tensor) -> float:
    """Standard deviation across boxes of [B, S, D], averaged over slots and dimensions; near 0 is collapse. NaN if B < 2."""
    return x.float().std(0).mean().item()


def pairwise_cosine(x: Tensor, centred: bool) -> float:
    """Mean cosine between the same slot of different boxes, [B, S, D]; near 1 is collapse. NaN if B < 2.

    centred: after subtracting the mean over boxes and slots, which removes a constant that all latents share. (The mean
    over boxes alone would give -1 / (B - 1) whatever x is; with S = 1 this is that case.)
    """
    x = x.float()
    if centred:
        x = x - x.mean((0, 1))
    unit = F.normalize(x, dim=-1)
    boxes = len(unit)
    together = unit.sum(0).square().sum(-1) - unit.square().sum((0, 2))  # sum over i != j, per slot
    return (together / (boxes * (boxes - 1))).mean().item() if boxes > 1 else float("nan")


def matched_cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine between a[i, s] and b[i, s] of [B, S, D] after subtracting each one's mean over boxes, per slot.

    Says whether a follows what is particular to b's box: 1 does, 0 does not.
    """
    a, b = (x.float() - x.float().mean(0) for x in (a, b))
    return F.cosine_similarity(a, b, dim=-1).mean().item()


def mass_in_box(attention: Tensor, box_mask: Tensor) -> float:
    """Share of attention [B, S, L] on the cells under the box [B, L], averaged over boxes and slots."""
    return (attention.float() * box_mask[:, None]).sum(-1).mean().item()


def area_share(box_mask: Tensor, key_mask: Tensor) -> float:
    """Share of the image's cells under the box, averaged over boxes: what uniform attention would put there."""
    return (box_mask.sum(1) / key_mask.sum(1)).mean().item()


def summary(output: StageOutput) -> dict[str, float]:
    """All of the above that `output` allows. `h`: states that predict the slots; teacher, student: attention maps."""
    found: dict[str, float] = {}
    for name, x in (("z_t", output.z_t), ("z_s", output.z_s), ("h", output.hidden)):
        if x is not None:
            found[f"{name}_instance_std"] = instance_std(x)
            found[f"{name}_cosine"] = pairwise_cosine(x, centred=False)
            found[f"{name}_centred_cosine"] = pairwise_cosine(x, centred=True)
    if output.z_t is not None and output.hidden is not None:
        found["h_to_z_t_centred_cosine"] = matched_cosine(output.hidden, output.z_t)
    for name, attention in (("teacher", output.a_t), ("student", output.a_s)):
        if attention is not None:
            found[f"{name}_mass_in_box"] = mass_in_box(attention, output.box_mask)
    if output.box_mask is not None:
        found["box_area_share"] = area_share(output.box_mask, output.key_mask)
    return found


def gap(fed: Tensor, free: Tensor) -> dict[str, float]:
    """How far free-running states [B, S, D] are from teacher-fed ones: mean |difference| and matched cosine.

    Slot 0 is left out where there are others: its state comes before any latent and is the same.
    """
    first = 1 if fed.shape[1] > 1 else 0
    fed, free = fed[:, first:].float(), free[:, first:].float()
    return {"exposure_l1": (fed - free).abs().mean().item(), "exposure_centred_cosine": matched_cosine(fed, free)}


def probe(
    model: VReflection,
    batch: Batch,
    stage: Stage1 | Stage2 | Joint,
    latent_steps: int,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Diagnostics of one padded probe batch, teacher-fed (names as in `summary`) and free-running (`free_` before them).

    Free-running: the slots hold the model's own previous state, as in decoding; there the student's attention says
    whether it finds the box by itself. Without a teacher only the free-running numbers are there.
    """
    if latent_steps == 0 or len(batch.boxes) == 0:
        return {}
    plain = {"self_fed": 0.0, "rollout": "sequential"}
    if hasattr(stage, "align"):
        plain["align"] = "joint"  # the losses are not used here; this one needs no draw
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            free_stage = stage.model_copy(update=plain | {"slot_fill": "hidden"})
            free = model.stage_forward(batch, free_stage, latent_steps, generator=generator)
            found = {f"free_{name}": value for name, value in summary(free).items()}
            if free.z_t is not None:
                fed_stage = stage.model_copy(update=plain | {"slot_fill": "teacher"})
                fed = model.stage_forward(batch, fed_stage, latent_steps, generator=generator)
                found |= summary(fed) | gap(fed.hidden, free.hidden)
    finally:
        model.train(training)
    drop = {f"free_{name}" for name in found if name.startswith(("z_t", "teacher", "box_area"))}
    return {name: value for name, value in found.items() if name not in drop}
