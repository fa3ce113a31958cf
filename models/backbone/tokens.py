"""The added tokens, the chat template and mRoPE positions: from a conversation to ids (release's template)."""

from __future__ import annotations

from dataclasses import dataclass

ADDED = ("<|lvr_start|>", "<|lvr|>", "<|lvr_latent_end|>", "<|lvr_end|>")
"""In the order in which they are added; the paper's names are sovt, lvr, eovt."""

IGNORED = -100
"""Label of what is no target of the cross-entropy."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that the template and the decoder know by name."""

    lvr_start: int
    lvr: int
    lvr_latent_end: int
    lvr_end: int
    image: int
    vision_start: int
    vision_end: int
    video: int = -1
    """-1: none."""

    @classmethod
    def of(cls, tokenizer) -> SpecialTokens:
        """Read them from a tokenizer; a missing one is an error that names it."""
        names = {
            "lvr_start": "<|lvr_start|>", "lvr": "<|lvr|>", "lvr_latent_end": "<|lvr_latent_end|>", "lvr_end": "<|lvr_end|>",
            "image": "<|image_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>",
        }  # fmt: skip
        vocabulary = tokenizer.get_vocab()
        missing = [name for name in names.values() if name not in vocabulary]
        if missing:
            raise ValueError(f"the tokenizer lacks {', '.join(missing)}; call tokens.add_tokens(tokenizer) first")
        return cls(**{field: vocabulary[name] for field, name in names.items()}, video=vocabulary.get("<|video_pad|>", -1))


def add_tokens(tokenizer) -> int:
    """Add the four latent tokens, in the release's order; returns how many were new."""
    return tokenizer.add_tokens(list(ADDED), special_tokens=True)
