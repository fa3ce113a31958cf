"""What Qwen2.5-VL-7B's own sizes take on one GPU: seconds, MFU and peak memory, flash attention against sdpa, as a markdown table.

    python -m benchmarks.gpu            # one GPU of 80 GB, 40 GB of disk, at most 8 minutes; no downloads; writes benchmarks/gpu.md
    python -m benchmarks.gpu --tiny     # the same code at tiny widths on a CPU: shows that it runs, and no more

The configuration is the hub's, the weights are random bf16, made on the device; pictures are noise of real sizes, about
1,190 tokens a sample with 14 % of at least 4,096 (Visual CoT's mean). Timed: twenty micro-batches of stage 1 (packed) and
of stage 2 (sequential rollout, padded) with forward, backward and a plain gradient step; writing and loading the
checkpoint, after which the next loss must be the same; one answer with each number of latent steps; questions a second on
ordinary and on 4K pictures. AdamW's state is not here: at 12 bytes a parameter one GPU does not hold it, and on eight it is a
rank's eighth, which has to be added to the peak.

MFU counts what the model needs and not what is computed again: 6 FLOP a trained parameter and token, 4 where a gradient only
passes through, 2 where nothing is trained below (the vision tower), and causal attention (Narayanan et al. 2021, appendix).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2VLImageProcessor

from benchmarks.page import above_zero, page_file, positive
from models import loading
from models.backbone import checkpoint as checkpoints
from models.backbone import template
from models.backbone.images import open_image, patches_of
from models.backbone.model import Backbone
from models.backbone.tokens import SpecialTokens, add_tokens
from models.config import DecodeSpec
from models.efficiency import FULL_SIZE, device_name
from models.latent.batch import Batch
from models.latent.decoding import decode
from models.latent.prompt import Prompt
from models.methods.stage import Slots
from models.methods.vreflection.modules import HEADS as ALL
from models.methods.vreflection.spec import Stage1, Stage2
from models.proxy import BASE_DIR
from models.training.collate import Collator
from models.training.parse import ImageFile, Sample
from models.training.pixels import Live
from models.training.stage import only_train

HEADS = {name: ALL[name] for name in ("bcm", "dac")}
LATENT_STEPS = 8
SIDES = ((644, 812), (644, 812), (560, 1008), (700, 756), (812, 644), (532, 924), (2016, 1596))
"""Height and width in pixels: six pictures of about 670 tokens, one of 4,104."""
QUESTION_SIDES = {"4K pictures": (3024, 4032), "ordinary pictures": SIDES[0]}
TOGETHER = 16
"""Questions on ordinary pictures in one batch; two on 4K pictures."""
STEPS = (0, 1, 2, 4, 8, 16)
"""Latent steps whose latency is taken."""
REPEATS = 3
PEAK_TFLOPS = {"A100": 312, "A800": 312, "H100": 989, "H200": 989, "H800": 989, "L40S": 362}
"""Dense bf16, by the vendor's data sheets; a part of the device's name."""
REPORT = Path(__file__).with_suffix(".md")
TINY = {
    "text_config": {
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 192, "vocab_size": 2048, "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [8, 12, 12]},
    },
    "vision_config": FULL_SIZE["vision_config"] | {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 128,
        "fullatt_block_indexes": [1],
    },
    "tie_word_embeddings": False,
}  # fmt: skip
SHRUNK = 8
"""Pictures of --tiny have sides so many times as short."""


@dataclass
class Row:
    """One line of the table. memory_gb: the device's peak, or on a CPU the process's so far."""

    what: str
    attention: str
    seconds: float
    memory_gb: float
    remark: str = ""
    mfu: float | None = None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tiny", action="store_true", help="tiny widths, small pictures, on a CPU")
    parser.add_argument("--steps", type=positive, default=20, help="micro-batches of each stage (default: 20)")
    parser.add_argument("--minutes", type=above_zero, default=7.0, help="begin nothing new after this (default: 7)")
    parser.add_argument("--out", type=page_file, help=f"the page (default: benchmarks/{REPORT.name}; with --tiny none)")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        print("no GPU is here; --tiny runs the same code on a CPU", file=sys.stderr)
        return 2
    device = "cpu" if options.tiny else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        rows, notes = measure(Path(folder), device, options.tiny, options.steps, time.monotonic() + 60 * options.minutes)
    text = page(rows, notes, device, options.tiny)
    print(text, end="")
    out = options.out or (None if options.tiny else REPORT)
    if out is not None:
        out.write_text(text)
    return 0


def page(rows: list[Row], notes: list[str], device: str, tiny: bool) -> str:
    """The markdown."""
    if tiny:
        said = "Run tiny on a CPU: the code runs; none of these numbers says anything about 7B."
    else:
        said = f"Qwen2.5-VL-7B's sizes, random bf16 weights, on one {device_name(device)}. Written by `python -m benchmarks.gpu`."
    lines = ["# On one GPU", "", said, "", "| What | Attention | Seconds | MFU | Peak GB | |", "| :--- | :--- | ---: | ---: | ---: | :--- |"]
    for row in rows:
        mfu = "" if row.mfu is None else f"{row.mfu:.0%}"
        lines.append(f"| {row.what} | {row.attention} | {row.seconds:.3f} | {mfu} | {row.memory_gb:.1f} | {row.remark} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def peak_flops(device: str) -> float | None:
    """Of the device, per second; None where it is not known."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((1e12 * tera for part, tera in PEAK_TFLOPS.items() if part in name), None)


def model_flops(model: Backbone, batch: Batch) -> float:
    """Of one training step on the batch, as MFU counts them. The rows' own tokens: padding is no use."""
    config, vision = model.config.text_config, model.model.visual
    lengths = np.diff([0, *batch.flat.ends.tolist()]).astype(float)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    passed = sum(p.numel() for p in model.model.language_model.layers.parameters()) + model.lm_head.weight.numel()
    frozen = sum(p.numel() for p in model.model.language_model.layers.parameters() if not p.requires_grad)
    language = 6 * (passed - frozen) + 4 * frozen
    attention = 3 * 2 * config.num_hidden_layers * config.hidden_size * float((lengths**2).sum())
    patches = float(batch.image_grid_thw.prod(-1).sum()) if batch.image_grid_thw is not None else 0.0
    seeing = (6 if any(p.requires_grad for p in vision.parameters()) else 2) * sum(p.numel() for p in vision.parameters())
    assert trained, "nothing is trained"
    return language * float(lengths.sum()) + attention + seeing * patches


def measure(folder: Path, device: str, tiny: bool, steps: int, until: float) -> tuple[list[Row], list[str]]:
    """All rows, and what was left out and why."""
    rows: list[Row] = []
    notes: list[str] = []
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    add_tokens(tokenizer)
    samples = make_samples(folder, SHRUNK if tiny else 1)
    with timed(rows, "Make the model on the device", "", device):
        model = build(tokenizer, TINY if tiny else FULL_SIZE, device)
    rows[-1].remark = f"{sum(p.numel() for p in model.parameters()) / 1e9:.3g} billion parameters"
    kinds = ["sdpa"]
    if importlib.util.find_spec("flash_attn") is not None and device == "cuda":
        kinds.insert(0, "flash_attention_2")
    else:
        notes.append("flash attention: not measured (flash-attn is not installed, or there is no GPU)")

    def late(what: str) -> bool:
        over = time.monotonic() > until
        notes.extend([f"{what}: not begun, the time was up"] * over)
        return over

    for kind in kinds:
        model.set_attn_implementation(kind)
        for name, stage in (("Stage 1, packed", Stage1()), ("Stage 2, sequential", Stage2(teacher="random"))):
            if late(f"{name} with {kind}"):
                continue
            batches = make_batches(tokenizer, samples, stage.kind == "stage1", steps)
            with timed(rows, f"{name}: a micro-batch of 4", kind, device):
                done = train(model, stage, batches, until)
            rows[-1].seconds /= done
            peak = peak_flops(device)
            rows[-1].mfu = sum(model_flops(model, one) for one in batches[:done]) / done / rows[-1].seconds / peak if peak else None
            rows[-1].remark = f"{done} of them, {sum(int(b.flat.ends[-1]) for b in batches[:done]) / done:.0f} tokens each"
    if not late("checkpoint"):
        model = resume(rows, folder / "checkpoint", model, tokenizer, samples, device)
    for kind in kinds:
        model.set_attn_implementation(kind)
        for what, count in (("ordinary pictures", TOGETHER), ("4K pictures", 2)):
            if not late(f"answers about {what} with {kind}"):
                answer(rows, folder, model, tokenizer, kind, device, SHRUNK if tiny else 1, what, count)
    if not late("latency of latent steps"):
        latency(rows, folder, model, tokenizer, kinds[0], device, SHRUNK if tiny else 1)
    if not tiny and peak_flops(device) is None:
        notes.append(f"MFU: unknown, because the peak of {device_name(device)} is not in PEAK_TFLOPS")
    return rows, notes


@contextmanager
def timed(rows: list[Row], what: str, attention: str, device: str) -> Iterator[None]:
    """Adds a row with the block's seconds and the peak within it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows.append(Row(what, attention, seconds, peak / 1e9))


def build(tokenizer, sizes: dict, device: str) -> Backbone:
    """Random weights in bf16, made where they stay."""
    ids = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        **sizes, image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            model = Backbone(config, HEADS, LATENT_STEPS)
    finally:
        torch.set_default_dtype(before)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def make_samples(folder: Path, shrunk: int) -> list[Sample]:
    """A picture of noise, a question and a box each."""
    rng = np.random.default_rng(0)
    made = []
    for at, (height, width) in enumerate(SIDES):
        path = folder / f"{at}.png"
        Image.fromarray(rng.integers(0, 255, (height // shrunk, width // shrunk, 3), dtype=np.uint8)).save(path)
        turns = ({"from": "human", "value": "<image>\nWhat colour is it?"}, {"from": "gpt", "value": "<lvr>\n<answer> A </answer>"})
        made.append(Sample(str(at), (ImageFile(str(at), path),), turns, ((0.2, 0.3, 0.6, 0.7),), (0,)))
    return made


def image_processor() -> Qwen2VLImageProcessor:
    return Qwen2VLImageProcessor(patch_size=14, merge_size=2, temporal_patch_size=2, min_pixels=28 * 28, max_pixels=5120 * 28 * 28)


def make_batches(tokenizer, samples: list[Sample], packed: bool, count: int) -> list[Batch]:
    """Micro-batches of four, the pictures going round; on the CPU."""
    collate = Collator(
        tokenizer, Live(image_processor()), slots=Slots("fixed", LATENT_STEPS), packing="packed" if packed else "padded"
    )
    return [collate([samples[(4 * k + i) % len(samples)] for i in range(4)]).batch for k in range(count)]


def loss_of(model: Backbone, stage: Stage1 | Stage2, batch: Batch, number: int) -> torch.Tensor:
    return model(batch=batch.to(model.device), stage=stage, latent_steps=LATENT_STEPS, indicator=torch.tensor(number % 2 == 0)).loss


def train(model: Backbone, stage: Stage1 | Stage2, batches: list[Batch], until: float) -> int:
    """Forward, backward and a plain step on each batch; how many there was time for, at least one."""
    model.train()
    only_train(model, stage.method(LATENT_STEPS))
    for number, batch in enumerate(batches):
        loss = loss_of(model, stage, batch, number)
        loss.backward()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{stage.kind}: the loss of micro-batch {number} is {loss.item()}")
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-5)
                    parameter.grad = None
        if time.monotonic() > until:
            return number + 1
    return len(batches)


def resume(rows: list[Row], folder: Path, model: Backbone, tokenizer, samples: list[Sample], device: str) -> Backbone:
    """The model from its written checkpoint; its next loss is the one that the model in memory has."""
    kind, (batch,) = model.config._attn_implementation, make_batches(tokenizer, samples, True, 1)
    with torch.no_grad():
        before = loss_of(model.eval(), Stage1(), batch, 0).item()
    folder.mkdir()
    with timed(rows, "Write the checkpoint", "", device):
        checkpoints.save(model, folder, {})
    size = sum(file.stat().st_size for file in folder.iterdir())
    rows[-1].remark = f"{size / 1e9:.3g} GB"
    del model
    with timed(rows, "Load it", "", device):
        model = loading.load(
            folder, heads=HEADS, latent_steps=LATENT_STEPS, dtype=torch.bfloat16, attn_implementation=kind, device_map=device
        )
    with torch.no_grad():
        after = loss_of(model.eval(), Stage1(), batch, 0).item()
    if before != after:
        raise AssertionError(f"the loss after loading is {after!r}, before it was {before!r}")
    rows[-1].remark = f"the next loss is the same ({after:.6f})"
    return model


def prompts_of(folder: Path, tokenizer, sides: tuple[int, int], count: int) -> list[Prompt]:
    """The same question on a picture of noise, so many times; each picture is encoded by itself."""
    path, (height, width) = folder / "question.png", sides
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    patches, grids = patches_of(image_processor(), [open_image(path)])
    merged = [(int(grids[0, 1]) // 2, int(grids[0, 2]) // 2)]
    ids = torch.tensor(template.prompt(tokenizer, "<image>\nWhat colour is it?", merged))
    return [Prompt(ids, pixel_values=patches[0], image_grid_thw=grids) for _ in range(count)]


def answer(
    rows: list[Row], folder: Path, model: Backbone, tokenizer, kind: str, device: str, shrunk: int, what: str, count: int
) -> None:
    """Questions in one batch, at most 64 tokens each, with a latent segment."""
    height, width = QUESTION_SIDES[what]
    prompts = prompts_of(folder, tokenizer, (height // shrunk, width // shrunk), count)
    spec = DecodeSpec(latent_steps=LATENT_STEPS, start="forced", max_new_tokens=64)
    with timed(rows, f"Answer {count} questions on {what}", kind, device):
        answers = decode(model.eval(), prompts, spec, tokens=SpecialTokens.of(tokenizer), eos=set())
    tokens = sum(len(one.token_ids) for one in answers)
    speed = count / rows[-1].seconds
    rows[-1].remark = f"{speed:.3g} questions/s; prompts of {len(prompts[0].input_ids)} tokens, {tokens} tokens generated"


def latency(rows: list[Row], folder: Path, model: Backbone, tokenizer, kind: str, device: str, shrunk: int) -> None:
    """One question, 16 tokens, with each number of latent steps; in turn, the median of some rounds."""
    height, width = QUESTION_SIDES["ordinary pictures"]
    prompts = prompts_of(folder, tokenizer, (height // shrunk, width // shrunk), 1)
    taken: dict[int, list[Row]] = {steps: [] for steps in STEPS}
    for _ in range(1 + REPEATS):
        for steps in STEPS:
            spec = DecodeSpec(latent_steps=steps, max_new_tokens=16, **({"start": "forced"} if steps else {}))
            with timed(taken[steps], f"One answer with {steps} latent steps", kind, device):
                (found,) = decode(model.eval(), prompts, spec, tokens=SpecialTokens.of(tokenizer), eos=set())
            if found.latent_steps != steps:
                raise AssertionError(f"asked for {steps} latent steps, {found.latent_steps} were taken")
    without = float(np.median([row.seconds for row in taken[0][1:]]))
    for steps, found in taken.items():
        warm = found[1:]
        seconds = float(np.median([row.seconds for row in warm]))
        more = f"{seconds / without:.2f} times that without latent steps" if steps else "16 tokens, prefill included"
        rows.append(Row(warm[0].what, kind, seconds, max(row.memory_gb for row in warm), f"{more}; median of {REPEATS}"))


if __name__ == "__main__":
    sys.exit(main())
