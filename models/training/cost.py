"""Bytes that trainings put on a disk, from parameter counts alone. Without torch, so that a plan can say them."""

from __future__ import annotations

STATE_BYTES = 12
"""Of a trained parameter in a checkpoint: float32 weight and AdamW's two moments."""
WRITE_BYTES_PER_SECOND = 1e9
"""Assumed until the first checkpoint of a run is written; then that one's own time counts."""


def checkpoint_bytes(trained: int, held: int = 0, stored_bytes: int = 2) -> int:
    """One training checkpoint. trained: parameters that the optimiser moves; held: all the model's, where DeepSpeed writes
    them too, frozen ones among them, at `stored_bytes` each (0 without DeepSpeed)."""
    return STATE_BYTES * trained + stored_bytes * held
