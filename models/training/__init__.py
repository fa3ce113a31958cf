"""Training of one stage: the authors' data format in, a checkpoint folder out.

Knows files of samples, the order in which they are drawn, batches, the optimiser and resumable checkpoints. Knows
nothing of losses or latent slots (`models.methods` computes one batch) nor of jobs (a `models.run.Run` says where to
write).

    data       meta JSON + annotation JSON -> validated samples, by offset
    jsonlist, parse, places, survey, index
               its parts: entries of a file, one entry checked, where pictures lie, one pass over all, what is kept of it
    external   a data set that lies elsewhere: the data job
    lengths    how many tokens a sample has, without its pixels
    substitutes  what takes the place of a sample that fails
    features   the tower's outputs for every training image, on disk
    packing    which samples share a row
    collate    samples -> `models.latent.batch.Batch`
    order      which samples and random draws belong to which step
    cost       what a checkpoint takes on a disk
    trainer    the `transformers.Trainer` subclass
    probe      the mechanism on held-out samples
    stage      one stage from start to finish
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`train` and `cache_features`, imported when asked for, so that reading data does not load transformers."""
    if name == "train":
        from models.training.stage import train

        return train
    if name == "cache_features":
        from models.training.features import cache_features

        return cache_features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
