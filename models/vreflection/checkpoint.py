"""Reading and writing checkpoints. The only place that knows key names of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.vreflection.model import VReflection

HEADS = {"bcm": "box_feature_resampler", "dac": "student_resampler", "static": "vreflection"}
"""Our name of a head -> the prefix of its keys. `static`: the learned queries of `query_source: static`."""


def load(
    path: Path | str,
    *,
    heads: set[str] | frozenset[str],
    latent_steps: int,
    dtype: torch.dtype,
    attn_implementation: str = "sdpa",
    seed: int = 0,
) -> VReflection:
    """The model with `heads` (of `HEADS`) from a checkpoint folder; a head the files do not hold starts fresh under `seed`."""
    raise NotImplementedError


def save(model: VReflection, path: Path | str, facts: dict[str, Any], state_dict: dict[str, torch.Tensor] | None = None) -> None:
    """Write config, weights and vreflection.json (`facts`); plain transformers opens the language model from the folder."""
    raise NotImplementedError
