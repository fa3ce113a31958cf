"""Two passes over the same rows that differ in what fills the slots alone. What stands before a sample's first slot is the same in
both, keys, values and gradients too, so it is computed once: of a clip or a picture with its question, nearly the whole sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.backbone import samples
from models.backbone.model import Backbone
from models.backbone.rows import laid_out
from models.latent import slots
from models.latent.batch import Batch
from models.latent.rollout import Extender


@dataclass(eq=False)
class Halves:
    """Every sample of a batch in a row of its own: C columns, of which `width` are for what stands before the first slot.

    n sequences (a sample, or padding between samples) of N tokens in all, numbered as `Flat` lays them end to end.
    """

    tokens: Tensor
    """[n, C]: number of the token that stands there; 0 where `real` is False."""
    real: Tensor
    """[n, C] bool"""
    width: int
    in_first: Tensor
    """[n, C] bool: what the first pass needs: up to the last slot, and nothing behind it."""

    @classmethod
    def of(cls, batch: Batch) -> Halves:
        ends = batch.flat.ends.long()
        length, device = ends.diff(), ends.device
        row, column, _ = slots.places(batch)
        token = torch.searchsorted(batch.flat.places, row * batch.input_ids.shape[1] + column)
        owner = torch.searchsorted(ends, token, right=True) - 1
        within = token - ends[owner]
        begin = length.scatter_reduce(0, owner, within, "amin")
        last = torch.zeros_like(length).scatter_reduce(0, owner, within + 1, "amax").maximum(begin)
        # One column at least in each part: ranks that share parameters take the same steps, and no pass takes zero columns.
        width, rest = max(int(begin.max()), 1), max(int((length - begin).max()), 1)
        before, after = torch.arange(width, device=device), begin[:, None] + torch.arange(rest, device=device)
        at = torch.cat([before.expand(len(length), -1), after], 1)
        real = torch.cat([before < begin[:, None], after < length[:, None]], 1)
        in_first = real & (at < last[:, None])
        return cls(torch.where(real, ends[:-1, None] + at, 0), real, width, in_first)


class TwoPasses:
    """`first`, then `second`, each once. With attention that cannot be told samples apart, or that does not see all keys so far (sliding
    layers), each is a pass over everything."""

    def __init__(self, model: Backbone, batch: Batch) -> None:
        self.model, self.batch = model, batch
        language = model.model.language_model
        self.shared = samples.apart(language.config) and not language.has_sliding_layers
        if self.shared:
            self.halves = Halves.of(batch)
            positions = batch.position_ids[1:].flatten(1)[:, batch.flat.places][:, self.halves.tokens]
            self.extender = Extender(language, positions, self.halves.real, ragged=True)

    def first(self, fed: Tensor, graph: bool = True) -> Tensor:
        """Embeddings [R, L, D] -> last hidden states [R, L, D], 0 behind a sample's last slot. graph: whether gradients flow
        through the slots' part."""
        grad = torch.is_grad_enabled() and graph
        if not self.shared:
            with torch.set_grad_enabled(grad):
                return self.model.run_language(fed, self.batch)
        halves, rows = self.halves, self._in_rows(fed)
        self.before = self.extender(rows[:, : halves.width])
        with torch.set_grad_enabled(grad):
            behind = self.extender.fork()(rows[:, halves.width :], halves.in_first[:, halves.width :])
        return self._laid_out(behind, halves.in_first)

    def second(self, fed: Tensor) -> Tensor:
        """The same of everything. fed: as before but for the slots."""
        if not self.shared:
            return self.model.run_language(fed, self.batch)
        return self._laid_out(self.extender(self._in_rows(fed)[:, self.halves.width :]), self.halves.real)

    def _in_rows(self, fed: Tensor) -> Tensor:
        return fed.flatten(0, 1)[self.batch.flat.places][self.halves.tokens]

    def _laid_out(self, behind: Tensor, shown: Tensor) -> Tensor:
        hidden = torch.cat([self.before, behind], 1)[shown]
        places = self.batch.flat.places[self.halves.tokens[shown]]
        return laid_out(hidden, places, self.batch.input_ids.shape)
