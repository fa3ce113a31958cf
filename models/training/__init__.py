"""Training of one stage: the authors' data format in, a checkpoint folder out.

Knows files of samples, the order in which they are drawn, batches, the optimiser and resumable checkpoints. Knows nothing
of losses or latent slots (`models.vreflection` computes one batch) nor of jobs (a `models.run.Run` says where to write).

    data       meta JSON + annotation JSON -> validated samples, by offset
    images     which pixels the vision tower sees, and the tower itself
    features   the tower's outputs for every training image, on disk
    packing    which samples share a row
    collate    samples -> `models.vreflection.batch.Batch`
    trainer    the `transformers.Trainer` subclass
    train      one stage from start to finish
"""
