"""A tiny random checkpoint and a miniature mirror of every benchmark, in the stock schemas."""

from __future__ import annotations

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def picture(seed: int, side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def encoded(seed: int) -> str:
    return base64.b64encode(png(picture(seed))).decode()


def replace_decoding(monkeypatch, say):
    """say(prompts, spec, tokens, eos) gives their `Decoded`, in place of the model."""
    from models.evaluation import engine

    def stream(model, source, spec, *, tokens, eos, **options):
        while (joining := source([])) is not None:
            yield dict(zip(joining.names, say(joining.prompts, spec, tokens, eos), strict=True))

    monkeypatch.setattr(engine, "stream", stream)


def write_split(folder, rows, split, config=None, **pictures):
    """One parquet file and its README; `pictures` names the image columns."""
    import datasets

    where = folder / (config or "data")
    where.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows)
    for column in pictures.get("columns", ()):
        table = table.cast_column(column, datasets.Image())
    table.to_parquet(where / f"{split}-00000-of-00001.parquet")
    return {
        "config_name": config or "default",
        "data_files": [{"split": split, "path": f"{where.name}/{split}-*.parquet"}],
    }


def write_readme(folder, configs):
    import yaml

    (folder / "README.md").write_text("---\n" + yaml.safe_dump({"configs": configs}) + "---\n")


def image_cell(seed: int, side: int = 64) -> dict:
    return {"bytes": png(picture(seed, side)), "path": None}


def mmvp(folder):
    rows = [
        {
            "image": image_cell(k),
            "Index": k + 1,
            "Question": "Is the object red or blue?",
            "Options": "(a) Red (b) Blue",
            "Correct Answer": "(a)" if k % 2 == 0 else "(b)",
        }
        for k in range(6)
    ]
    write_readme(folder, [write_split(folder, rows, "train", columns=["image"])])


def blink(folder):
    from models.evaluation.tasks import _BLINK

    names = {
        "counting": "Counting",
        "iq_test": "IQ_Test",
        "jigsaw": "Jigsaw",
        "relative_reflectance": "Relative_Reflectance",
    }
    configs = []
    for number, short in enumerate(_BLINK):
        name = names.get(short, "Spatial_Relation")
        images = 3 if short == "jigsaw" else 1
        rows = [
            {
                "idx": f"val_{name}_{k}",
                "question": "Which one is it?",
                "sub_task": name,
                **{f"image_{i + 1}": image_cell(100 * number + 10 * k + i) if i < images else None for i in range(4)},
                "choices": ["one", "two", "three"],
                "answer": f"({'ABC'[k]})",
                "prompt": "Which one is it?\nSelect from the following choices.\n(A) one\n(B) two\n(C) three",
                "explanation": None,
            }
            for k in range(3)
        ]
        configs.append(write_split(folder, rows, "val", name, columns=[f"image_{i + 1}" for i in range(4)]))
    write_readme(folder, configs)


def vstar(folder):
    post = "\nAnswer with the option's letter from the given choices directly."
    rows = [
        {
            "image": image_cell(700 + k, 64 if k % 2 else 80),
            "text": f"What is it?\n{options}{post}",
            "category": category,
            "label": "BA"[k % 2],
            "question_id": str(k),
        }
        for k, (options, category) in enumerate(
            [("(A) red\n(B) blue\n(C) black\n(D) white", "direct_attributes")] * 3
            + [("(A) left\n(B) right", "relative_position")] * 2
        )
    ]
    write_readme(folder, [write_split(folder, rows, "test", columns=["image"])])


def hrbench(folder):
    rows = [
        {
            "index": k,
            "image": encoded(800 + k // 4),
            "question": "What colour is it?",
            "A": "red",
            "B": "blue",
            "C": "black",
            "D": "white",
            "answer": "ABCD"[k % 4],
            "category": "single" if k < 4 else "cross",
            "cycle_category": str(k % 4),
        }
        for k in range(8)
    ]
    config = "hrbench_version_split"
    configs = write_split(folder, rows, "hrbench_4k", config)
    configs["data_files"] += write_split(folder, rows, "hrbench_8k", config)["data_files"]
    write_readme(folder, [configs])


def mmerealworld(folder):
    rows = [
        {
            "index": str(k),
            "bytes": encoded(900 + k),
            "question": "What is it?",
            "multi-choice options": ["(A) red", "(B) blue", "(C) black", "(D) white", "(E) none of these"],
            "answer": "ABCDE"[k],
            "category": "Perception/Remote Sensing" if k < 2 else "Reasoning/Monitoring",
            "l2-category": "color",
        }
        for k in range(4)
    ]
    write_readme(folder, [write_split(folder, rows, "train")])


WRITERS = {
    "mmvp": mmvp,
    "blink": blink,
    "vstar": vstar,
    "hrbench4k": hrbench,
    "hrbench8k": hrbench,
    "mmerealworld_lite": mmerealworld,
}


@pytest.fixture(scope="session")
def mirrors(tmp_path_factory):
    """benchmark -> folder."""
    root = tmp_path_factory.mktemp("mirrors")
    os.environ["LMMS_EVAL_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets-cache"))
    for name, write in WRITERS.items():
        (root / name).mkdir()
        write(root / name)
    return {name: root / name for name in WRITERS}


SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|lvr_start|>", "<|lvr|>", "<|lvr_latent_end|>", "<|lvr_end|>",
)  # fmt: skip


def byte_processor(latent_tokens: bool = True):
    """Qwen2.5-VL's processor over a vocabulary of single bytes and the special tokens; patches of 8 px."""
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2_5_VLProcessor, Qwen2TokenizerFast
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    from models.proxy.processor import CHAT_TEMPLATE

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2TokenizerFast(vocab={c: i for i, c in enumerate(letters)}, merges=[])
    special = SPECIAL if latent_tokens else [t for t in SPECIAL if "lvr" not in t]
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in special], special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    size = {"shortest_edge": 3136, "longest_edge": 1003520}
    shared = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**shared),
        chat_template=CHAT_TEMPLATE,
    )


def write_checkpoint(folder, seed: int = 0, latent_tokens: bool = True):
    """A random two-layer Qwen2.5-VL with its processor, no heads."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from models.proxy import architecture

    torch.set_num_threads(1)
    processor = byte_processor(latent_tokens)
    processor.save_pretrained(folder)
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = architecture.config(ids)
    config.vision_config.depth = 2
    config.vision_config.fullatt_block_indexes = [1]
    config.text_config.num_hidden_layers = 2
    config.text_config.layer_types = config.text_config.layer_types[:2]
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    torch.nn.init.normal_(model.lm_head.weight, std=0.5)  # decided answers, so that rounding cannot tip them
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """See `write_checkpoint`."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def images():
    """Limits under which the tests' pictures keep their size."""
    from models.config import Images

    return Images(min_pixels=32 * 32, max_pixels=512 * 512)
