"""L_BCM (Eq. 2) and the attention part of L_DAC (Eq. 4). Pure functions, fp32 inside."""

from __future__ import annotations

import torch
from torch import Tensor

from models.latent.losses import distance
from models.methods.vreflection.spec import Alignment


def alignment(z_t: Tensor, h: Tensor, options: Alignment, indicator: Tensor | None) -> tuple[Tensor, Tensor]:
    """L_BCM of each box [B], and the number of elements that the clamp changed (0 without a clamp).

    z_t, h: [B, S, D]. indicator: bool scalar or [B]; True moves the language model (sg on Z_T), False the BCM.
    bernoulli: I |sg(Z_T) - H| + (1 - I) |Z_T - sg(H)|. split: half of each (release). joint: no stop-gradient.
    The side that stands still gets a zero gradient, not none, whatever the backend; so ranks stay alike. It stands still
    as far as this loss's own arguments go: with `slot_gradient: attached`, H has seen Z_T in earlier slots, and True still
    reaches the BCM through them (as Eq. 2 and Algorithm 1 read literally); `detached` closes that way.
    """
    z_t, h = z_t.float(), h.float()
    clamped = torch.zeros((), device=h.device)
    if options.clamp > 0:
        clamped = ((z_t.detach().abs() > options.clamp).sum() + (h.detach().abs() > options.clamp).sum()).float()
        z_t, h = (x.clamp(-options.clamp, options.clamp) for x in (z_t, h))
    if options.align == "joint":
        return distance(h, z_t, options.bcm_distance), clamped
    if options.align == "split":
        bcm_moves = distance(h.detach(), z_t, options.bcm_distance)
        model_moves = distance(h, z_t.detach(), options.bcm_distance)
        return 0.5 * bcm_moves + 0.5 * model_moves, clamped
    if indicator is None:
        raise ValueError("align: bernoulli needs the draw: pass indicator")
    model_moves = indicator.to(device=h.device, dtype=torch.bool).reshape(-1, 1, 1)
    moving_z = torch.where(model_moves, z_t.detach(), z_t)
    moving_h = torch.where(model_moves, h, h.detach())
    return distance(moving_z, moving_h, options.bcm_distance), clamped


def attention_kl(target: Tensor, student: Tensor, key_mask: Tensor, epsilon: float, epsilon_in: str) -> Tensor:
    """KL(A-hat_T || A_S) of each box [B]: summed over queries and keys (Eq. 4).

    target, student: [B, S, L]; key_mask [B, L]. epsilon_in both: t log((t + e) / (s + e)); student: t (log t - log(s + e)).
    """
    target = target.float()
    student = student.float().masked_fill(~key_mask[:, None], 1.0)  # padding has t = 0; 1 keeps its gradient finite
    numerator = target + epsilon if epsilon_in == "both" else target
    return (torch.xlogy(target, numerator) - torch.xlogy(target, student + epsilon)).flatten(1).sum(1)
