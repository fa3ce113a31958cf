"""The causal card: do a checkpoint's latents depend on the picture, and do its answers depend on the latents?

`causal_card` asks one checkpoint one set of questions under interventions and leaves a row a question; intervals and
sentences are made by who reads them. Knows no method: what a checkpoint's latents are is what its decoding feeds back.
"""

from models.card.measure import causal_card

__all__ = ["causal_card"]
