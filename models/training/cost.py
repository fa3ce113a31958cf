"""Bytes that trainings put on a disk and into a GPU, from parameter counts alone. Without torch, so that a plan can say them."""

from __future__ import annotations

STATE_BYTES = 12
"""Of a trained parameter in a checkpoint: float32 weight and AdamW's two moments."""
WRITE_BYTES_PER_SECOND = 1e9
"""Assumed until the first checkpoint of a run is written; then that one's own time counts."""


def checkpoint_bytes(trained: int, held: int = 0, stored_bytes: int = 2) -> int:
    """One training checkpoint. trained: parameters that the optimiser moves; held: all the model's, where DeepSpeed writes
    them too, frozen ones among them, at `stored_bytes` each (0 without DeepSpeed)."""
    return STATE_BYTES * trained + stored_bytes * held


def gpu_bytes(trained: int, frozen: int, zero: int = 0, ranks: int = 1) -> float:
    """The least that one GPU holds: weights, gradients and AdamW's two moments, without activations. trained, frozen: parameters; zero: DeepSpeed's
    stage, 0 without it (weights and gradients are float32 then; otherwise bfloat16, beside float32 weights for the optimiser)."""
    if zero == 0:
        return 16 * trained + 2 * frozen
    gradients, weights = 2 / (ranks if zero >= 2 else 1), 2 / (ranks if zero >= 3 else 1)
    return trained * (STATE_BYTES / ranks + gradients + weights) + frozen * weights
