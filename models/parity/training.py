"""What the references of LVR and of VisReflect hold of one training step, compared with our forward pass on the same batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from models.backbone.model import Backbone
from models.latent.batch import Batch
from models.latent.terms import Terms
from models.parity.reference import GRADIENT, OUTPUT, STRIDE, Check, Noted, difference, unequal

_ROWS = re.compile(r"(?P<name>.+?)[._]rows_(?P<first>\d+)_\d+")
_SHORT = {"embed": "model.language_model.embed_tokens.weight"}


def outputs(
    model: Backbone, batch: Batch, terms: Terms, held: Noted, prefix: str, title: str, inner: str = "", states: Tensor | None = None
) -> Iterator[Check]:
    """Positions, what the language model was fed, its last states and the logits at supervised positions.

    prefix: of the run's tensors; inner: what stands between it and the names of one pass ("pass1."). states [R, L, D]: those
    that the logits are taken of, if not the last hidden ones.
    """
    real = batch.attention_mask
    if f"{prefix}.position_ids" in held:
        theirs = held[f"{prefix}.position_ids"][:, real]
        yield Check(f"{title}: mRoPE positions", unequal(batch.position_ids[1:, real], theirs), 0)
    for name, ours in (("inputs_embeds", terms.embeds), ("hidden", terms.hidden)):
        if f"{prefix}.{inner}{name}" in held:
            theirs = held[f"{prefix}.{inner}{name}"][real]
            yield Check(f"{title}: {name}", difference(ours[real].detach(), theirs), OUTPUT)
    if f"{prefix}.logits_at_supervised" in held:
        row, column = held[f"{prefix}.supervised_rows_positions"]
        logits = model.lm_head((terms.hidden if states is None else states)[row, column]).detach()
        yield Check(f"{title}: logits", difference(logits, held[f"{prefix}.logits_at_supervised"]), OUTPUT)


def losses(
    model: Backbone, terms: Terms, stated: Noted, names: Mapping[str, str], held: Mapping[str, Tensor], prefix: str, title: str
) -> Iterator[Check]:
    """Every loss and the total with their gradients. names: our name of a loss -> that of the reference ("ce": "ce")."""
    yield Check(f"{title}: lambda", abs(terms.weights[next(n for n in names if n != "ce")] - stated["lambda"]), 1e-9)
    for ours, theirs in names.items():
        loss = terms.losses[ours]
        yield Check(f"{title}: loss {theirs}", _loss_difference(loss, stated[f"loss_{theirs}"]), OUTPUT)
        yield from gradients(model, loss, stated.get(f"grad_l2.{theirs}"), held, f"{prefix}.grad.{theirs}.", f"{title}: {theirs}")
    total = terms.total()
    yield Check(f"{title}: total", _loss_difference(total, stated["total"]), OUTPUT)
    yield from gradients(model, total, stated.get("grad_l2.total"), held, f"{prefix}.grad.total.", f"{title}: total")


def _loss_difference(ours: Tensor, theirs: float) -> float:
    return difference(ours.detach(), torch.tensor(theirs))


def gradients(
    model: Backbone, loss: Tensor, norms: Mapping[str, float | None] | None, held: Mapping[str, Tensor], prefix: str, title: str
) -> Iterator[Check]:
    """The norms of all gradients in one check, the parameters without any, and every gradient that `held` has under `prefix`:
    whole, some rows of it, or every 16th row. norms None: the loss has no gradient."""
    named = dict(model.named_parameters())
    norms = {name: None for name in named if "visual" not in name} if norms is None else {name: norms[name] for name in norms}
    absent = sorted(set(norms) - set(named))
    yield Check(f"{title}: parameters the model lacks{': ' * bool(absent)}{', '.join(absent)}", len(absent), 0)
    asked = {name: named[name] for name in norms if name in named}
    found = dict.fromkeys(asked)
    if loss.requires_grad:
        found = dict(zip(asked, torch.autograd.grad(loss, list(asked.values()), retain_graph=True, allow_unused=True), strict=True))
    real = {name: grad for name, grad in found.items() if grad is not None and bool(grad.any())}
    stray = sorted(name for name in asked if (norms[name] is None or norms[name] == 0) == (name in real))
    yield Check(f"{title}: parameters without gradient{': ' * bool(stray)}{', '.join(stray)}", len(stray), 0)
    off = torch.tensor([0.0, *(real[name].norm().item() / norms[name] - 1 for name in real if norms[name])]).abs().max()
    yield Check(f"{title}: norms of {len(real)} gradients", off.item(), GRADIENT)
    for key in [key for key in held if key.startswith(prefix)]:
        name, theirs = key.removeprefix(prefix), held[key]
        rows = slice(None)
        if name.endswith(suffix := f"[::{STRIDE}]"):
            name, rows = name.removesuffix(suffix), slice(None, None, STRIDE)
        elif match := _ROWS.fullmatch(name):
            first = int(match["first"])
            name, rows = _SHORT.get(match["name"], match["name"]), slice(first, first + len(theirs))
        ours = real.get(name)
        differs = float("inf") if ours is None else difference(ours[rows], theirs)
        yield Check(f"{title}: gradient of {name.removeprefix('model.language_model.')}", differs, GRADIENT)
