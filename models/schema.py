"""What every schema here is made of. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Orientation = Literal["upright", "stored"]


class Frozen(BaseModel):
    """Immutable, and strict about names: an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimisation(Frozen):
    """AdamW with linear warm-up; what every stage shares."""

    steps: Count = 2500
    lr: Positive = 1e-5
    weight_decay: NonNegative = 0.1
    decay_norms: bool = False
    """Apply weight decay to norms and biases too (the release does)."""
    warmup_ratio: Probability = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    global_batch: Count = 256
    """Sequences per optimiser step over all ranks (8 GPUs x 4 instances x 8 accumulation)."""
    precision: Literal["bf16", "fp32"] = "bf16"
    max_grad_norm: Positive = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)


class Images(Frozen):
    """How pixels become tokens. The processor backend is pinned: torchvision and PIL differ by up to 0.27 after normalisation."""

    min_pixels: Count = 128 * 28 * 28
    max_pixels: Count = 5120 * 28 * 28
    processor: Literal["torchvision", "pil"] = "torchvision"
    orientation: Orientation = "upright"
    """Of pictures with an EXIF orientation. upright: turned as the tag says, as `datasets` decodes benchmarks' pictures, boxes
    with them (they are drawn on the stored raster); stored: as the raster lies in the file (the release's training)."""
