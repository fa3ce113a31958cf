"""How much faster this project answers and trains than the plain way, in one run on a CPU: ratios, not seconds.

    python -m benchmarks.ratios            # minutes; --write: into benchmarks/ratios.md

Answers: the proxy's base model in fp32, questions of MMVP and HR-Bench (four rotations of each picture) from the proxy's mirrors.
The plain way prepares each question with the checkpoint's own processor and calls transformers' `generate` with it alone. Here the
same questions are prepared and decoded by the model behind lmms-eval, in batches. Both decode greedily, and their answers must be
equal.

Once with the answers' own lengths, and once with 64 tokens each, beyond their ends.

Training: an accumulated step of stage 1 with AdamW, features of pictures known, on a random model whose output layer has about the
share of all weights that it has at 7B; lengths are those of `benchmarks.real_scale`, an eighth as long. The release's way pads groups of at most four samples,
computes logits of every token in fp32, and runs the BCM twice. Here the same samples are shared out by length and packed, and logits
are computed where a token is supervised. Tokens are those of the samples, without padding.

An earlier form of the training ratio took an optimiser step after every micro-batch and timed the encoding of pictures too; it gave
2.3 and 1.0. It measured other work, so those numbers and the one here do not compare.

Both ways take turns, so that whatever else the machine does slows them alike; the median of the rounds' ratios is reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from benchmarks import gpu, real_scale
from models.backbone.images import load_image_processor
from models.backbone.model import Backbone
from models.backbone.tokens import add_tokens
from models.config import DecodeSpec, Images
from models.evaluation.engine import Engine
from models.evaluation.lmms_model import LmmsModel
from models.evaluation.mirror import load_task
from models.evaluation.vision import FeatureCache
from models.latent.batch import Batch
from models.latent.boxes import Cells, box_cells
from models.methods.stage import Slots
from models.methods.vreflection.method import region_of
from models.methods.vreflection.modules import BCM
from models.methods.vreflection.spec import Stage1
from models.proxy import BASE_DIR
from models.proxy.mirrors import write_mirror
from models.training.collate import Collator
from models.training.packing import release_groups, shares
from models.training.parse import ImageFile, Sample
from models.training.pixels import Live
from models.training.stage import only_train

FILE = Path(__file__).with_suffix(".md")
IMAGES = Images(min_pixels=784)
QUESTIONS, TOGETHER, NEW_TOKENS, ROUNDS = 128, 64, 64, 3
SHORTER, SAMPLES, ROWS = 8, 64, 4
SIZES = gpu.TINY | {
    "text_config": gpu.TINY["text_config"]
    | {
        "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 1024,
        "vocab_size": 2048,
    },
    "vision_config": gpu.TINY["vision_config"] | {"out_hidden_size": 256},
}  # fmt: skip
Conversation = list[dict]


def answered(folder: Path, questions: int, to_the_end: bool = True) -> tuple[str, str, list[float], float]:
    """(what, how, ratio of each round, questions a second of the last). to_the_end: answers end where the model says so."""
    tasks = {"vr_mmvp": "mmvp", "vr_hrbench4k": "hrbench4k"}
    chats: list[Conversation] = []
    for task, benchmark in tasks.items():
        if not (folder / benchmark).exists():
            write_mirror(folder / benchmark, benchmark, n=questions // 2, seed=0, split="dev")
        loaded = load_task(task, folder / benchmark)
        chats += [loaded.doc_to_messages(document) for document in loaded.eval_docs]
    engine = Engine(BASE_DIR, precision="fp32", attention="eager")
    processor = AutoProcessor.from_pretrained(BASE_DIR)
    processor.image_processor = load_image_processor(BASE_DIR, IMAGES)
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE_DIR, dtype=torch.float32).eval()
    if not to_the_end:
        engine.eos["all"], plain.generation_config.eos_token_id = set(), None
    ratios = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        alone = [generated(plain, processor, engine, chat) for chat in chats]
        between = time.perf_counter()
        together = batched(engine, chats)
        ours = time.perf_counter() - between
        ratios.append((between - begun) / ours)
        if different := [at for at, (one, other) in enumerate(zip(alone, together, strict=True)) if one != other]:
            raise AssertionError(f"question {different[0]}: {alone[different[0]]!r} alone, {together[different[0]]!r} in a batch")
    tokens = statistics.mean(len(processor.tokenizer(answer)["input_ids"]) for answer in alone)
    about = f"{len(chats)} questions in batches of {TOGETHER}, {tokens:.0f} tokens an answer; all answers are equal"
    longer = "" if to_the_end else " with long answers"
    return f"Questions a second{longer}, against `generate` of one question at a time", about, ratios, len(chats) / ours


def generated(model: Qwen2_5_VLForConditionalGeneration, processor, engine: Engine, chat: Conversation) -> str:
    """One answer of transformers."""
    parts = [part for message in chat for part in message["content"]]
    bare = [{**m, "content": [{"type": "image"} if p["type"] == "image" else p for p in m["content"]]} for m in chat]
    text = processor.apply_chat_template(bare, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[part["url"] for part in parts if part["type"] == "image"], return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=sorted(engine.eos["all"]) or None,
            suppress_tokens=[engine.tokens.lvr_start], pad_token_id=processor.tokenizer.pad_token_id,
        )  # fmt: skip
    return processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])


def batched(engine: Engine, chats: Sequence[Conversation]) -> list[str]:
    """All answers of this project, with nothing kept from before."""
    engine.forget_answers()
    engine.features = FeatureCache(engine.features.capacity_bytes)
    decode = DecodeSpec(start="never", max_new_tokens=NEW_TOKENS)
    model = LmmsModel(engine, batch_size=TOGETHER, images=IMAGES, decode=decode)
    questions = engine.prepare(chats, IMAGES, [list] * len(chats))
    model.prepared = {("vr_mmvp", at): question for at, question in enumerate(questions)}
    limits = dict.fromkeys(model.prepared, NEW_TOKENS)
    order = sorted(limits, key=lambda key: len(model.prepared[key].input_ids))
    model._answer(order, limits)
    return [model.answers[key].response for key in limits]


def trained(folder: Path, samples: int) -> tuple[str, str, list[float], float]:
    """The same of training steps."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    add_tokens(tokenizer)
    model = gpu.build(tokenizer, SIZES, "cpu").float().train()
    model.gradient_checkpointing_disable()
    stage = Stage1()
    only_train(model, stage.method(gpu.LATENT_STEPS))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    lengths = (real_scale.lengths_of(samples, seed=1) // SHORTER).tolist()
    made = [sample_of(folder, at, length) for at, length in enumerate(lengths)]
    release = [[made[k] for k in group] for group in release_groups(lengths, long=real_scale.LONG // SHORTER, max_tokens=16384 // SHORTER)]
    packs = [[made[k] for k in group] for group in shares(lengths, -(-samples // ROWS))]
    padded, packed = (list(batches(model, tokenizer, groups, how)) for groups, how in ((release, "padded"), (packs, "packed")))
    tokens = sum(int(batch.attention_mask.sum()) for batch in padded)
    if sum(map(len, padded)) != sum(map(len, packed)):
        raise AssertionError("both ways must train the same samples")
    ratios = []
    for _ in range(ROUNDS):
        theirs = timed(model, optimiser, padded, lambda batch: release_loss(model, stage, batch))
        ours = timed(model, optimiser, packed, lambda batch: own_loss(model, stage, batch))
        ratios.append(theirs / ours)
    with_padding = sum(batch.input_ids.numel() for batch in padded) / tokens
    about = f"{samples} samples of {tokens / samples:.0f} tokens on average, {with_padding:.2f} times as many with the release's padding"
    return "Tokens a second of training in stage 1, against the release's way", about, ratios, tokens / ours


def sample_of(folder: Path, at: int, tokens: int) -> Sample:
    """A picture of noise of about so many tokens, a question and a box."""
    side = max(2, round(max(1, tokens - 40) ** 0.5))
    path = folder / f"{at}.png"
    Image.fromarray(np.random.default_rng(at).integers(0, 255, (28 * side, 28 * side, 3), dtype=np.uint8)).save(path)
    turns = ({"from": "human", "value": "<image>\nWhat colour is it?"}, {"from": "gpt", "value": "<lvr>\n<answer> A </answer>"})
    return Sample(str(at), (ImageFile(str(at), path),), turns, ((0.2, 0.3, 0.6, 0.7),), (0,))


def batches(model: Backbone, tokenizer, groups: Sequence[Sequence[Sample]], packing: str) -> Iterator[Batch]:
    collate = Collator(
        tokenizer, Live(gpu.image_processor()), slots=Slots("fixed", gpu.LATENT_STEPS), packing=packing,
        short_rows=packing == "packed",
    )  # fmt: skip
    for group in groups:
        batch = collate(list(group)).batch
        yield replace(batch, image_embeds=model.vision(batch), pixel_values=None, image_grid_thw=None)


def timed(model: Backbone, optimiser: torch.optim.Optimizer, some: Sequence[Batch], loss: Callable[[Batch], torch.Tensor]) -> float:
    """Seconds to train on all of them once."""
    begun = time.perf_counter()
    for batch in some:
        loss(batch).backward()
    optimiser.step()
    optimiser.zero_grad()
    return time.perf_counter() - begun


def own_loss(model: Backbone, stage: Stage1, batch: Batch) -> torch.Tensor:
    return model.stage_terms(batch, stage, gpu.LATENT_STEPS, indicator=torch.tensor(True)).total()


def release_loss(model: Backbone, stage: Stage1, batch: Batch) -> torch.Tensor:
    """Ours with the cross-entropy of all logits in fp32 in its place, and a second run of the BCM (whose result is the first's)."""
    terms = model.stage_terms(batch, stage, gpu.LATENT_STEPS, indicator=torch.tensor(True))
    logits = model.lm_head(terms.hidden).float()
    targets = batch.labels.roll(-1, dims=1).masked_fill(batch.labels.roll(-1, dims=1) == model.config.image_token_id, -100)
    targets[:, -1] = -100
    features = model.vision(batch)
    cells = Cells.of(batch.image_grids, batch.segment_image)
    region = region_of(features, cells, batch.boxes, box_cells(batch.boxes, cells), stage.region, stage.roi_bins)
    again = model.get_submodule(BCM)(region.features, region.mask)[0]
    ce = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    kept = sum(terms.weights[name] * loss for name, loss in terms.losses.items() if name != "ce")
    return ce + 0.5 * kept + 0.5 * kept.detach() * again.mean() / again.mean().detach()


def machine(threads: int) -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({names[0] if names else 'unknown'}), {threads} thread; the load average was {load:.1f} at the end"
        + (", so other programs took most of the machine." if load > os.cpu_count() + 0.5 else ".")
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help=f"default: {QUESTIONS}")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"of training; default: {SAMPLES}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = ["| What | Ratio | of each round | Goal | How |", "| :-- | --: | --: | --: | :-- |"]
    with tempfile.TemporaryDirectory() as folder:
        long = partial(answered, to_the_end=False)
        for measure, size, goal in ((answered, options.questions, 8), (long, options.questions, 8), (trained, options.samples, 2)):
            what, how, ratios, rate = measure(Path(folder), size)
            middle = statistics.median(ratios)
            missed = "" if middle >= goal else " (**not reached**)"
            each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
            lines.append(f"| {what} | {middle:.1f} | {each} | ≥ {goal}{missed} | {how}; {rate:,.0f} a second here |")
            print(lines[-1], flush=True)
    page = f"# Ratios measured in one run\n\nMade by `python -m benchmarks.ratios --write`.\n\n{ABOUT}\n\n{machine(1)}\n\n" + "\n".join(lines) + "\n"
    print(page)
    if options.write:
        FILE.write_text(page, encoding="utf-8")
    return 0


ABOUT = (__doc__ or "").split("\n\n", 2)[2].strip()


if __name__ == "__main__":
    raise SystemExit(main())
