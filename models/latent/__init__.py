"""What all latent methods share: one batch with its latent slots, boxes, rollout, losses, diagnostics, decoding."""
