"""Checkpoints with the modules of any method, and what a checkpoint's own stage is."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from models.backbone import checkpoint
from models.backbone.model import Backbone, Head
from models.config import TrainSpec
from models.methods.base import Method
from models.methods.registry import PACKAGES, STAGES


def every_head() -> dict[str, Head]:
    """Of all methods, by our name."""
    methods = [import_module(f"models.methods.{package}.method").method for package in PACKAGES]
    return {name: head for method in methods for name, head in method.heads.items()}


def load(path: Path | str, *, heads: Collection[str], latent_steps: int, dtype: torch.dtype, **options: Any) -> Backbone:
    """As `checkpoint.load`, heads by name. Other heads that the files hold are left out."""
    known = every_head()
    if unknown := sorted(set(heads) - set(known)):
        raise ValueError(f"unknown heads {', '.join(unknown)}; there are {', '.join(known)}")
    wanted = {name: head for name, head in known.items() if name in heads}
    spare = {head.prefix for head in known.values()} - {head.prefix for head in wanted.values()}
    return checkpoint.load(path, heads=wanted, spare=spare, latent_steps=latent_steps, dtype=dtype, **options)


def method_of(path: Path | str) -> Method | None:
    """What the checkpoint was last trained by, as it records; of files that record nothing but hold what a stage is decoded with,
    that stage, with what options are recorded. None for a base model."""
    facts = checkpoint.facts(path)
    if "spec" in facts:
        spec = TrainSpec.model_validate(facts["spec"])
        return spec.stage.method(facts.get("latent_steps", spec.latent_steps))
    for stage in STAGES.values():
        said = {name: facts[name] for name in stage.model_fields if name != "kind" and facts.get(name) is not None}
        found = stage(**said).method(facts.get("latent_steps", 8))
        asked = found.decoded_with()
        if asked and all(checkpoint.holds(path, found.heads[name].prefix) for name in asked):
            return found
    return None
