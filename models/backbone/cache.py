"""A KV cache that grows by blocks: one new column a step does not copy what is there."""

from __future__ import annotations

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
        layer.buffers, layer.used = buffers, used
        layer._view()
        return layer

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

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            self.buffers = tuple(buffer[indices] for buffer in self.buffers)
            self._view()

    def _view(self) -> None:
        self.keys, self.values = (buffer[:, :, : self.used] for buffer in self.buffers)


def _grown(buffer: Tensor, used: int, capacity: int) -> Tensor:
    batch, heads, _, width = buffer.shape
    grown = torch.empty(batch, heads, capacity, width, dtype=buffer.dtype, device=buffer.device)
    grown[:, :, :used] = buffer[:, :, :used]
    return grown
