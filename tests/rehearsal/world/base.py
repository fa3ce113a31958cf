"""The base model as the hub's repository holds it: flat config, generation config, processor, five shards under old key names.

Widths are tiny. What code trips over is true: vocabulary 152064, heads of 128 with M-RoPE [16, 24, 24], grouped queries
from width 256 on, windowed vision blocks beside full ones, a vision MLP width that no power of two divides, bf16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.rehearsal.world import tokenizer

REPO, REVISION = "Qwen/Qwen2.5-VL-7B-Instruct", "cc594898137f460bfe9f0759e9844b3ce807cfb5"
VOCABULARY, HEAD, LAYERS, SHARDS = 152_064, 128, 4, 5
VISION = {"depth": 4, "hidden_size": 64, "intermediate_size": 180, "num_heads": 4, "fullatt_block_indexes": [1, 3]}
FIRST_LATENT_TOKEN = 151_665
"""The id that `<|lvr_start|>` gets when it is added behind the tokenizer's last."""

OPENINGS = {*"ABCDE", "ĠA", "ĠB", "<", "<latent>"}
"""What an answer may begin with: an option letter, the answer's markup, a latent segment."""
FOLLOWS = [
    ("<", "answer", 0.6), ("answer", ">", 0.6), (">", "ĠB", 0.6), *((word, "<end>", 1.0) for word in (*"ABCDE", "ĠA", "ĠB")),
    ("Ċ", "<latent>", 0.2),
]  # fmt: skip
"""(token, its successor, weight): answers can be read and end soon, as a trained model's do."""

GENERATION = {
    "bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05, "temperature": 1e-06, "transformers_version": "4.49.0",
}  # fmt: skip
PROCESSOR = {
    "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
}  # fmt: skip


def config(width: int) -> dict[str, Any]:
    """config.json in the flat form of transformers 4.49, in which the hub has it: text options at the top level."""
    heads = width // HEAD
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
        "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656,
        "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02, "intermediate_size": 2 * width + 24,
        "max_position_embeddings": 128000, "max_window_layers": LAYERS, "model_type": "qwen2_5_vl",
        "num_attention_heads": heads, "num_hidden_layers": LAYERS, "num_key_value_heads": max(1, heads // 2),
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": True, "use_sliding_window": False,
        "vision_config": {
            "hidden_act": "silu", "in_chans": 3, "out_hidden_size": width, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "window_size": 112, "tokens_per_second": 2, "temporal_patch_size": 2, **VISION,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": VOCABULARY,
    }  # fmt: skip


def write(folder: Path, width: int, seed: int) -> None:
    folder.mkdir(parents=True)
    files = {
        "config.json": config(width), "generation_config.json": GENERATION, "preprocessor_config.json": PROCESSOR,
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    vocab = tokenizer.write(folder)
    ids = vocab | {"<end>": 151_645, "<latent>": FIRST_LATENT_TOKEN}
    favoured = [ids[text] for text in sorted(OPENINGS)]
    _write_shards(
        folder, _weights(width, seed, favoured, [(ids[first], ids[after], weight) for first, after, weight in FOLLOWS])
    )


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Every weight under its key of transformers before 4.52: `visual.*`, `model.layers.*`, `lm_head.*`."""
    vision, inner, text = VISION["hidden_size"], VISION["intermediate_size"], 2 * width + 24
    keys = max(1, width // HEAD // 2) * HEAD
    found: dict[str, tuple[int, ...]] = {"visual.patch_embed.proj.weight": (vision, 3, 2, 14, 14)}

    def dense(name: str, out: int, into: int, bias: bool) -> None:
        found[f"{name}.weight"] = (out, into)
        if bias:
            found[f"{name}.bias"] = (out,)

    for k in range(VISION["depth"]):
        block = f"visual.blocks.{k}"
        found[f"{block}.norm1.weight"] = found[f"{block}.norm2.weight"] = (vision,)
        dense(f"{block}.attn.qkv", 3 * vision, vision, True)
        dense(f"{block}.attn.proj", vision, vision, True)
        dense(f"{block}.mlp.gate_proj", inner, vision, True)
        dense(f"{block}.mlp.up_proj", inner, vision, True)
        dense(f"{block}.mlp.down_proj", vision, inner, True)
    found["visual.merger.ln_q.weight"] = (vision,)
    dense("visual.merger.mlp.0", 4 * vision, 4 * vision, True)
    dense("visual.merger.mlp.2", width, 4 * vision, True)
    found["model.embed_tokens.weight"] = (VOCABULARY, width)
    for k in range(LAYERS):
        layer = f"model.layers.{k}"
        found[f"{layer}.input_layernorm.weight"] = found[f"{layer}.post_attention_layernorm.weight"] = (width,)
        dense(f"{layer}.self_attn.q_proj", width, width, True)
        dense(f"{layer}.self_attn.k_proj", keys, width, True)
        dense(f"{layer}.self_attn.v_proj", keys, width, True)
        dense(f"{layer}.self_attn.o_proj", width, width, False)
        dense(f"{layer}.mlp.gate_proj", text, width, False)
        dense(f"{layer}.mlp.up_proj", text, width, False)
        dense(f"{layer}.mlp.down_proj", width, text, False)
    found["model.norm.weight"] = (width,)
    dense("lm_head", VOCABULARY, width, False)
    return found


def _weights(width: int, seed: int, favoured: list[int], follows: list[tuple[int, int, float]]) -> dict[str, Any]:
    """Random weights that mean nothing, but whose output prefers `favoured` tokens, and some tokens after others."""
    import torch

    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(width).items():
        if len(shape) == 1 and "bias" not in name:
            weights[name] = torch.ones(shape)
            continue
        spread = 0.02 if len(shape) == 1 or name == "lm_head.weight" else 0.5 if "embed_tokens" in name else None
        fan_in = torch.Size(shape[1:]).numel()
        weights[name] = torch.randn(shape, generator=random) * (spread or fan_in**-0.5)
    head, embeddings = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    head[favoured] *= 6
    # A token's embedding stays in the residual stream, so its successor's output row points at it.
    for first, after, weight in follows:
        head[after] += weight * embeddings[first]
    return {name: value.to(torch.bfloat16) for name, value in weights.items()}


def _write_shards(folder: Path, weights: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    names, place = list(weights), {}
    for k in range(SHARDS):
        shard = f"model-{k + 1:05d}-of-{SHARDS:05d}.safetensors"
        own = names[k * len(names) // SHARDS : (k + 1) * len(names) // SHARDS]
        save_file({name: weights[name] for name in own}, folder / shard, metadata={"format": "pt"})
        place.update(dict.fromkeys(own, shard))
    index = {"metadata": {"total_size": sum(2 * w.numel() for w in weights.values())}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
