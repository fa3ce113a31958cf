"""A random Qwen2.5-VL of a few thousand parameters with the proxy's tokenizer, and small data sets in the authors' format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from models.config import Images
from models.proxy import BASE_DIR

SMALL = Images(min_pixels=32 * 32, max_pixels=512 * 512)


def tiny_config(tokenizer) -> Qwen2_5_VLConfig:
    ids = tokenizer.get_vocab()
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2,
                  "temporal_patch_size": 2, "window_size": 32, "fullatt_block_indexes": [1], "out_hidden_size": 64}  # fmt: skip
    text = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": False,
                "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}  # fmt: skip
    return Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def write_base(folder: Path) -> Path:
    """A checkpoint folder in float32: config, weights, tokenizer, processors."""
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(AutoTokenizer.from_pretrained(BASE_DIR)))
    model.save_pretrained(folder, save_original_format=False)
    AutoProcessor.from_pretrained(BASE_DIR).save_pretrained(folder)
    return folder


def write_data(
    folder: Path, n: int, *, sides: tuple[int, ...] = (64, 96), several: bool = False, bare: bool = False, seed: int = 0
) -> Path:
    """A data set of n samples with random pictures, in the authors' format. several: every second has two pictures and
    boxes; bare: every third has no box."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(seed)
    annotations = []
    for k in range(n):
        count = 2 if several and k % 2 else 1
        names = [f"{k:03d}_{i}.png" for i in range(count)]
        for i, name in enumerate(names):
            height, width = sides[(k + i) % len(sides)], sides[(k // 2 + i) % len(sides)]
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
        corner = rng.uniform(0, 0.5, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (count, 2))], axis=1).tolist()
        marks = "<lvr>\n" * count
        if bare and k % 3 == 0:
            boxes, marks = [], ""
        annotations.append({
            "dataset": "toy", "image": names, "bboxes": boxes, "bbox_images": list(range(len(boxes)))[::-1],
            "conversations": [
                {"from": "human", "value": "<image>\n" * len(names) + "What colour is it?" + " Please." * (k % 3)},
                {"from": "gpt", "value": f"{marks}<answer> {'ABCD'[k % 4]} </answer>"},
            ],
        })  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(annotations))
    meta = [{"ds_name": "toy", "data_path": "annotations.json", "image_folder": "images", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def make_data(tmp_path_factory) -> Callable[..., Path]:
    """make_data(n, sides=(64, 96), several=False): see `write_data`."""

    def make(n: int, **options) -> Path:
        return write_data(tmp_path_factory.mktemp("data"), n, **options)

    return make
