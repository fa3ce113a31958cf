"""Is the latent path alive? Collapse of the latents, attention in the box, and how far the model drifts when it feeds itself.

Pure functions on the tensors of a `StageOutput`. Raw cosines mislead, because a constant that all boxes share makes them
large: hence the deviation across boxes and cosines of what is left after a mean is taken away.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from models.latent.terms import StageOutput


def instance_std(z: Tensor) -> float:
    """Standard deviation over boxes of [B, S, D], averaged over slots and dimensions; 0 = collapsed to a constant."""
    return z.float().std(dim=0, correction=0).mean().item()


def pairwise_cosine(z: Tensor, centred: bool = False) -> float:
    """Mean cosine between different boxes' latents [B, S, D] at the same slot; 1 = collapsed. NaN for one box.

    centred: after subtracting the mean over boxes and slots, which removes a constant that all latents share. (The mean
    over boxes alone would give -1 / (B - 1) whatever z is; with S = 1 this is that case.)
    """
    z = z.float()
    if centred:
        z = z - z.mean((0, 1))
    unit = F.normalize(z, dim=-1)
    boxes = len(unit)
    together = unit.sum(0).square().sum(-1) - unit.square().sum((0, 2))  # sum over i != j, per slot
    return (together / (boxes * (boxes - 1))).mean().item() if boxes > 1 else float("nan")


def centred_cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine between a and b [B, S, D], each less its mean over boxes, per slot: how well they agree on the instance."""
    a, b = (x.float() - x.float().mean(0) for x in (a, b))
    return F.cosine_similarity(a, b, dim=-1).mean().item()


def mass_in_box(attention: Tensor, box_mask: Tensor) -> float:
    """Attention [B, S, L] that falls on the cells under the box [B, L], averaged over boxes and slots."""
    return (attention.float() * box_mask[:, None]).sum(-1).mean().item()


def box_area(box_mask: Tensor, key_mask: Tensor) -> float:
    """Share of an image's cells that lie under the box: what uniform attention would give."""
    return (box_mask.sum(-1) / key_mask.sum(-1)).mean().item()


def mechanism(out: StageOutput) -> dict[str, float]:
    """The numbers above, of whatever a stage's output holds; those that compare boxes only with two or more."""
    found: dict[str, float] = {}
    for name, z in (("z_t", out.z_t), ("z_s", out.z_s), ("hidden", out.hidden)):
        if z is not None and len(z) > 1:
            found[f"{name}_std"] = instance_std(z)
            found[f"{name}_cosine"] = pairwise_cosine(z)
            found[f"{name}_centred_cosine"] = pairwise_cosine(z, centred=True)
    if out.hidden is not None and out.z_t is not None and len(out.z_t) > 1:
        found["hidden_z_t_cosine"] = centred_cosine(out.hidden, out.z_t)
    if out.box_mask is not None and len(out.box_mask):
        found["box_area"] = box_area(out.box_mask, out.key_mask)
        for name, attention in (("teacher", out.a_t), ("student", out.a_s)):
            if attention is not None:
                found[f"{name}_in_box"] = mass_in_box(attention, out.box_mask)
    return found


def exposure(fed: Tensor, free: Tensor) -> dict[str, float]:
    """Teacher-fed against free-running states [B, S, D] of the same samples.

    exposure_gap: mean |difference| over the teacher-fed states' own mean deviation across boxes; 0 = none, about 1 = as
    far apart as different questions. exposure_cosine: how well they agree on the instance.
    """
    fed, free = fed.float(), free.float()
    spread = (fed - fed.mean(0)).abs().mean()
    return {
        "exposure_gap": ((fed - free).abs().mean() / spread).item(),
        "exposure_cosine": centred_cosine(fed, free),
    }
