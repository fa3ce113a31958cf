"""Vanilla fine-tuning: no latent slots, cross-entropy only."""
