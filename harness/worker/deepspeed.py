"""A profile's word for a ZeRO stage, as DeepSpeed's configuration. "auto" is filled in by transformers' Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def zero_of(asked: str | Mapping[str, str] | None, stage: str) -> dict[str, Any] | None:
    """The configuration for a stage of this kind; asked: the profile's `deepspeed`. None: without DeepSpeed."""
    name = asked if isinstance(asked, str) or asked is None else asked.get(stage, asked.get("other"))
    return None if name is None else zero_config(name)


def zero_config(name: str) -> dict[str, Any]:
    """name: zero1, zero2 or zero3; no offload. Raises ValueError for anything else."""
    if name not in ("zero1", "zero2", "zero3"):
        raise ValueError(f"deepspeed: {name!r} is none of zero1, zero2, zero3")
    stage = int(name[-1])
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "zero_allow_untested_optimizer": True,
    }
