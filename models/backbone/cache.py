"""A KV cache that grows by blocks: one new column a step does not copy what is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

BLOCK = 32
"""Columns added whenever the buffer is full."""


class BufferLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room to spare; `keys` and `values` are views of the used part."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.used = 0
        self.buffers = tuple(new.new_empty(*new.shape[:2], 0, new.shape[3]) for new in (key_states, value_states))

    @classmethod
    def over(cls, buffers: tuple[Tensor, Tensor], used: int) -> BufferLayer:
        """A layer whose first `used` columns are these buffers'; further columns are written into them while they last."""
        layer = cls()
        layer.lazy_initialization(*buffers)
        layer.hold(buffers, used)
        return layer

    def hold(self, buffers: tuple[Tensor, Tensor], used: int) -> None:
        """These in place of its own."""
        self.buffers, self.used = buffers, used
        self._view()

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            self.buffers = tuple(_grown(buffer, self.used, end + BLOCK) for buffer in self.buffers)
        for buffer, new in zip(self.buffers, (key_states, value_states)):
            buffer[:, :, self.used : end] = new
        self.used = end
        self._view()
        return self.keys, self.values

    def _view(self) -> None:
        self.keys, self.values = (buffer[:, :, : self.used] for buffer in self.buffers)


def _grown(buffer: Tensor, used: int, capacity: int) -> Tensor:
    batch, heads, _, width = buffer.shape
    grown = torch.empty(batch, heads, capacity, width, dtype=buffer.dtype, device=buffer.device)
    grown[:, :, :used] = buffer[:, :, :used]
    return grown


def right_aligned(parts: Sequence[Tensor]) -> Tensor:
    """[sum of r, heads, widest + BLOCK, d]: the rows of these [r, heads, columns, d], zeros before them, room behind them."""
    _, heads, _, width = parts[0].shape
    rows, columns = sum(map(len, parts)), max(part.shape[2] for part in parts)
    aligned = torch.empty(rows, heads, columns + BLOCK, width, dtype=parts[0].dtype, device=parts[0].device)
    for part, own in zip(parts, aligned.split([len(part) for part in parts])):
        own[:, :, : columns - part.shape[2]] = 0  # masked, but NaN times zero would be NaN
        own[:, :, columns - part.shape[2] : columns] = part
    return aligned
