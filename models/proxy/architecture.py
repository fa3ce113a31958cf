"""The proxy's Qwen2.5-VL: a real `Qwen2_5_VLForConditionalGeneration` of 3.9 M parameters, and its pixel layout.

Knows the sizes and how pixels become patches; nothing of words beyond the vocabulary's size.
"""

from __future__ import annotations

import types
from functools import lru_cache

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from models.backbone.products import widen_products

widen_products()  # pretraining and its measurements compute in bf16, too

PATCH_PX = 8
MERGE = 2
TEMPORAL = 2
HIDDEN = 192
VOCABULARY = 1024
"""Rows of the embedding: the tokenizer's entries and room to spare, as in the full-size model."""

ROPE_THETA = 100.0
"""The full-size model's 1e6 would leave most of a head's 24 frequencies constant over a prompt of this length."""
TOKENS_IN_CONFIG = ("<|endoftext|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
"""Special tokens whose ids the configuration needs."""

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def config(token_ids: dict[str, int]) -> Qwen2_5_VLConfig:
    """The configuration, with the special tokens' ids filled in from the tokenizer.

    """
    vision = dict(
        depth=4, hidden_size=128, intermediate_size=256, num_heads=4, patch_size=PATCH_PX, spatial_merge_size=MERGE,
        temporal_patch_size=TEMPORAL, window_size=64, fullatt_block_indexes=[1, 3], out_hidden_size=HIDDEN,
    )
    text = dict(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=4096, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": [6, 9, 9]},
        bos_token_id=token_ids["<|endoftext|>"], eos_token_id=token_ids["<|im_end|>"], pad_token_id=token_ids["<|endoftext|>"],
    )
    return Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=False,
        image_token_id=token_ids["<|image_pad|>"], video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"], vision_end_token_id=token_ids["<|vision_end|>"],
    )


def build(token_ids: dict[str, int], seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised model in fp32 under a fixed seed."""
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(config(token_ids)).float()


def patches(pictures: np.ndarray) -> torch.Tensor:
    """Pictures uint8 [n, side, side, 3] as the processor would hand them to the tower: [n * patches, 3*2*8*8] fp32."""
    return clip_patches(np.repeat(pictures[:, None], TEMPORAL, axis=1))


def clip_patches(clips: np.ndarray) -> torch.Tensor:
    """Clips uint8 [n, frames, side, side, 3] as the tower takes them, an even number of frames: [n * patches, 3*2*8*8] fp32."""
    n, frames, side = clips.shape[:3]
    x = (clips.astype(np.float32) / 255 - np.array(IMAGE_MEAN, np.float32)) / np.array(IMAGE_STD, np.float32)
    g, steps = side // (PATCH_PX * MERGE), frames // TEMPORAL
    x = x.reshape(n, steps, TEMPORAL, g, MERGE, PATCH_PX, g, MERGE, PATCH_PX, 3)
    x = x.transpose(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)  # clip, step, merged row and column, row and column in it, channel, frame, y, x
    return torch.from_numpy(np.ascontiguousarray(x.reshape(n * steps * (g * MERGE) ** 2, -1)))


@lru_cache(maxsize=64)
def grid(n: int, side: int, steps: int = 1) -> torch.Tensor:
    """grid_thw of n square pictures or clips, int64 [n, 3], in patches."""
    return torch.tensor([[steps, side // PATCH_PX, side // PATCH_PX]] * n)


def linear_patch_embedding(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Compute the patch embedding as a matrix product instead of conv3d, in place: same numbers, much faster on CPU."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight = self.proj.weight
        return torch.nn.functional.linear(hidden_states.to(weight.dtype), weight.view(weight.shape[0], -1))

    embed = model.model.visual.patch_embed
    embed.forward = types.MethodType(forward, embed)


def see(model: Qwen2_5_VLForConditionalGeneration, pictures: np.ndarray) -> torch.Tensor:
    """Merged vision tokens [n, tokens, HIDDEN] of n pictures of one size, raster order."""
    return see_clips(model, np.repeat(pictures[:, None], TEMPORAL, axis=1))


def see_clips(model: Qwen2_5_VLForConditionalGeneration, clips: np.ndarray) -> torch.Tensor:
    """Merged vision tokens [n, steps * tokens, HIDDEN] of n clips [n, frames, side, side, 3], step after step."""
    n, frames, side = clips.shape[:3]
    tokens = model.model.visual(clip_patches(clips), grid_thw=grid(n, side, frames // TEMPORAL)).pooler_output
    if isinstance(tokens, (tuple, list)):
        tokens = torch.cat(list(tokens))
    return tokens.reshape(n, -1, HIDDEN)
