"""V-Reflection on Qwen2.5-VL: the two resamplers, the losses, what fills the latent slots, and latent decoding.

Knows tensors of one batch. Knows nothing of data sets, optimisers, benchmarks or jobs: `batch.Batch` comes in from
training, `decoding.Prompt` from evaluation, and both get tensors back. `checkpoint` alone knows files and key names.
"""
