"""A byte-level BPE tokenizer in the files of Qwen2's: 151,643 entries, then 22 added tokens from 151643 to 151664.

The true merges are not in any package this project depends on, so a few thousand are learned from Python's own manual
and the rest of the vocabulary is filled with pairs of learned entries, ranked below all learned merges. Ids, special
tokens, normalisation, splitting and file form are Qwen2's; how a given word is cut is not.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

ENTRIES = 151_643
LEARNED = 3_000
ANSWERS = " ".join(f"<answer> {letter} </answer> ({letter}) Answer with the letter {letter}." for letter in "ABCDE")
"""Seen often in training, so that its words are entries."""
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PLAIN = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The 7B repository's, character for character."""


def write(folder: Path) -> dict[str, int]:
    """tokenizer.json, vocab.json, merges.txt, tokenizer_config.json, chat_template.json. Returns the vocabulary."""
    vocab, merges = vocabulary()
    added = [
        {"id": ENTRIES + k, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": text in SPECIAL}
        for k, text in enumerate(SPECIAL + PLAIN)
    ]  # fmt: skip
    files: dict[str, Any] = {
        "tokenizer.json": _tokenizer_json(vocab, merges, added),
        "vocab.json": vocab,
        "tokenizer_config.json": {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(a["id"]): {name: a[name] for name in sorted(a.keys() - {"id"})} for a in added
            },
            "additional_special_tokens": list(SPECIAL[1:]),
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    return vocab


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All entries with their ids, and all merges in order of rank; a merge's entry has the id 256 + its rank."""
    from pydoc_data import topics

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=LEARNED, initial_alphabet=alphabet, show_progress=False)
    texts = [topics.topics[name] for name in sorted(topics.topics)] + [ANSWERS] * 20
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in learned["merges"]]

    vocab = {letter: rank for rank, letter in enumerate(alphabet)}
    kept: list[tuple[str, str]] = []
    words = [left + right for left, right in merges]
    for left, right in itertools.chain(merges, itertools.product(words, repeat=2)):
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            kept.append((left, right))
        if len(vocab) == ENTRIES:
            return vocab, kept
    raise AssertionError("too few learned entries to fill the vocabulary from")


def _tokenizer_json(vocab: dict[str, int], merges: list[tuple[str, str]], added: list[dict]) -> dict[str, Any]:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PRETOKENIZE_REGEX}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": [f"{left} {right}" for left, right in merges],
        },
    }  # fmt: skip
