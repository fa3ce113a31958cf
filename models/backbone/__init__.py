"""Qwen2.5-VL itself: model, added tokens, chat template, checkpoints, pictures. Knows no data set, benchmark or job."""
