"""A world small enough for two CPU cores, with the interfaces of the full-size one.

This package makes everything the full-size study takes from the outside: pictures with exact evidence boxes
(``scenes``), questions about them (``questions``), a Qwen2.5-VL processor (``processor``), a trained base checkpoint
(``pretrain`` makes it, ``base/`` holds it), a training set in the Visual-CoT format (``trainset``) and benchmark
mirrors in the schema of the stock lmms-eval tasks (``mirrors``).

It must not know how a model is fine-tuned, evaluated or compared: nothing here imports the rest of the repository.
Its numbers show that the method's code runs and how its parts act on a small model; they do not estimate a 7B model's.
"""

from pathlib import Path

BASE_DIR = Path(__file__).parent / "base"
"""The committed base checkpoint: config, weights, tokenizer, image processor, model card."""
VIDEO_BASE_DIR = BASE_DIR.parent / "base-video"
"""The same, taught to read clips (`pretrain_clips`)."""
