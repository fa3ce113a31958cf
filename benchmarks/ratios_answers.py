"""Questions a second of this project against transformers' `generate` of one question at a time. `benchmarks.ratios` prints it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from models.backbone.images import load_image_processor
from models.config import DecodeSpec, Images
from models.evaluation.cache import BoundedCache
from models.evaluation.engine import Engine, Question
from models.evaluation.likelihood import LetterTokens
from models.evaluation.lmms_model import LmmsModel
from models.evaluation.mirror import load_task
from models.proxy.mirrors import write_mirror

NEW_TOKENS = 64
TASKS = {"vr_mmvp": "mmvp", "vr_hrbench4k": "hrbench4k"}
Conversation = list[dict]


def questions_of(folder: Path, count: int) -> list[Conversation]:
    """So many questions, half of MMVP and half of HR-Bench, from the proxy's mirrors, written to `folder`."""
    chats: list[Conversation] = []
    for task, benchmark in TASKS.items():
        write_mirror(folder / benchmark, benchmark, n=count // 2, seed=0, split="dev")
        loaded = load_task(task, folder / benchmark)
        chats += [loaded.doc_to_messages(document) for document in loaded.eval_docs]
    return chats


@dataclass(frozen=True)
class Compared:
    """ratios: of each round, in seconds of this process's core. prompt, answer: tokens, on average. rate: questions a second of this
    project in the last round."""

    ratios: list[float]
    prompt: float
    answer: float
    rate: float


class AnswersAlone(LetterTokens):
    """Computes no likelihoods of letters: `generate` computes none either."""

    def __init__(self, letters: LetterTokens) -> None:
        self.special = letters.special

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.new_zeros(len(logits), 0)

    def at(self, *answer: object) -> None:
        """Nothing is known of any answer."""


class Both:
    """A checkpoint in fp32, loaded for both ways.

    ends: whether an answer ends where the model says so; else it has NEW_TOKENS tokens. Both take what else the checkpoint's
    generation_config.json says, but decode greedily. A latent segment is never begun: `generate` knows none.
    """

    def __init__(self, checkpoint: Path, images: Images, ends: bool) -> None:
        self.images = images
        self.engine = Engine(checkpoint, precision="fp32")
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.processor.image_processor = load_image_processor(checkpoint, images)
        self.plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "pad_token_id": self.processor.tokenizer.pad_token_id}
        if self.engine.plain:  # the latent tokens' ids mean nothing to it, and an answer holds them as any other
            self.start = "emitted"
        else:
            self.start = "never"
            self.options["suppress_tokens"] = [self.engine.tokens.lvr_start]
        if ends:
            self.options["eos_token_id"] = sorted(self.engine.eos["all"])
        else:
            self.engine.eos["all"], self.plain.generation_config.eos_token_id = set(), None

    def without_likelihoods(self) -> None:
        """From here on this project does not compute how likely each letter was, as an evaluation does."""
        self.engine.letters = AnswersAlone(self.engine.letters)

    def compared(self, chats: Sequence[Conversation], rounds: int) -> Compared:
        """Raises AssertionError where an answer differs."""
        ratios = []
        for _ in range(rounds):
            begun = time.process_time()
            alone = [self.generated(chat) for chat in chats]
            between = time.process_time()
            asked, together = self.batched(chats)
            ours = time.process_time() - between
            ratios.append((between - begun) / ours)
            texts = [self.processor.tokenizer.decode(ids) for ids in alone]
            if different := [at for at, (one, other) in enumerate(zip(texts, together, strict=True)) if one != other]:
                at = different[0]
                raise AssertionError(f"question {at}: {texts[at]!r} alone, {together[at]!r} in a batch")
        prompt = statistics.mean(len(question.input_ids) for question in asked)
        return Compared(ratios, prompt, statistics.mean(map(len, alone)), len(chats) / ours)

    def generated(self, chat: Conversation) -> list[int]:
        """One answer of transformers."""
        parts = [part for message in chat for part in message["content"]]
        bare = [{**m, "content": [{"type": "image"} if p["type"] == "image" else p for p in m["content"]]} for m in chat]
        text = self.processor.apply_chat_template(bare, tokenize=False, add_generation_prompt=True)
        inputs = self.processor(text=[text], images=[part["url"] for part in parts if part["type"] == "image"], return_tensors="pt")
        with torch.inference_mode():
            ids = self.plain.generate(**inputs, **self.options)
        return ids[0, inputs["input_ids"].shape[1] :].tolist()

    def batched(self, chats: Sequence[Conversation]) -> tuple[list[Question], list[str]]:
        """All questions as this project prepares them, and its answers in one batch, with nothing kept from before."""
        self.engine.forget_answers()
        self.engine.features = BoundedCache(self.engine.features.capacity_bytes)
        decode = DecodeSpec(start=self.start, max_new_tokens=NEW_TOKENS, repetition_penalty="checkpoint")
        model = LmmsModel(self.engine, batch_size=len(chats), images=self.images, decode=decode)
        questions = self.engine.prepare(chats, self.images, [list] * len(chats))
        model.prepared = {("vr_mmvp", at): question for at, question in enumerate(questions)}
        limits = dict.fromkeys(model.prepared, NEW_TOKENS)
        model._answer(sorted(limits, key=lambda key: len(model.prepared[key].input_ids)), limits)
        return questions, [model.answers[key].response for key in limits]
