"""V-Reflection: the two resamplers (BCM, DAC), what fills the latent slots, and the losses between them."""
