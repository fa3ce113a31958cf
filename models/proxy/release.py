"""The last step of pretraining: a checkpoint folder with weights, processor, curve, numbers and model card."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from models.proxy import architecture, measure
from models.proxy.language import PARTS
from models.proxy.processor import build_processor

MEASURED = ("mmvp", "hrbench4k", "blink", "vstar", "hrbench8k", "mmerealworld_lite")
MEASURE_SEED = 0


def write_weights(state: Path, out: Path) -> None:
    """Save a phase's state as a bf16 Qwen2.5-VL checkpoint with its processor."""
    processor = build_processor()
    ids = {n: processor.tokenizer.convert_tokens_to_ids(n) for n in architecture.TOKENS_IN_CONFIG}
    model = architecture.build(ids, 0)
    model.load_state_dict(torch.load(state, weights_only=True)["model"])
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    out.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(out)
    processor.save_pretrained(out)


def curve(metrics: Path, png: Path) -> None:
    """Draw the training curve: losses and accuracies over the phases that read pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    language, before = [], 0  # the phases one after another on one axis
    for phase in ("language", "answers", "places"):
        own = [r for r in records if r["phase"] == phase]
        language += [{**r, "step": r["step"] + before} for r in own]
        before += max((r["step"] for r in own), default=0)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    trained = [r for r in language if "loss" in r]
    for key in ("loss", *(f"{part}_loss" for part in PARTS)):
        known = [r for r in trained if key in r]
        left.plot([r["step"] for r in known], [r[key] for r in known], label=key)
    left.set(xlabel="step of the language, answers and places phases", ylabel="loss (nats)", yscale="log")
    left.legend()
    right.plot([r["step"] for r in trained], [r["train_accuracy"] for r in trained], color="0.6", label="training, all prompts")
    examined = [r for r in language if any(k.startswith("dev/") for k in r)]
    for key in sorted({k for r in examined for k in r if k.startswith("dev/")}):
        right.plot([r["step"] for r in examined], [r[key] for r in examined], marker=".", lw=1, label=key)
    right.set(xlabel="step of the language, answers and places phases", ylabel="share of right answers", ylim=(0, 1))
    right.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(png, dpi=90)
    pyplot.close(figure)


def write_base(state: Path, out: Path) -> None:
    """Write the whole folder. Measures every benchmark on dev and on test once, so it takes some minutes."""
    write_weights(state, out)
    curve(out / "metrics.jsonl", out / "curve.png")
    model, tokens = measure.load(out)
    results = []
    for name in MEASURED:
        for split in ("dev", "test"):
            results.append(measure.measure(model, tokens, name, split, MEASURE_SEED))  # type: ignore[arg-type]
            print(json.dumps(results[-1]), flush=True)
    (out / "measured.jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
    (out / "README.md").write_text(card(results, sum(p.numel() for p in model.parameters())))


_CARD = """---
base_model: none
tags: [qwen2_5_vl, proxy]
---
# Proxy base: a Qwen2.5-VL of {parameters:.2f} M parameters in a world of coloured shapes

A `Qwen2_5_VLForConditionalGeneration` (vision depth 4, width 128, patch 8, merge 2; decoder 6 layers, width 192, untied
embeddings), made from random values by

    python -m models.proxy.pretrain --out DIR

on two CPU cores in about an hour when they are free. It answers multiple-choice questions about small procedural pictures with an option
letter, `<answer> A </answer>`. It exists so that the fine-tuning and evaluation code can be run end to end on a laptop;
its accuracies say nothing about those of a large model.

## How it was trained
1. *vision* (900 steps): tower and merger alone, with dense heads per merged token (attributes, place, marker, background).
2. *text* (600): the decoder alone looks up which option states a word, and what a sentence says of an object.
3. *language* (700), 4. *answers* (900) and 5. *places* (700): the decoder on the frozen tower, six questions per picture, each a conversation
   of its own behind a shared prefix; few objects and open answers first, crowded pictures and letters later; prompts of
   every evaluation protocol. A scaffold of five losses shows where to look, what is there, where to fetch it, how the
   answer reads and which option says so (`models/proxy/language.py`); its weight is zero from seven tenths of every
   phase's schedule on. Without it, letters stayed at chance. The last phase asks mostly where two objects lie to each other.
   From the middle of *answers* on, up to 30 % of the turns hold `<|lvr_start|>`, 1 to 16 `<|lvr|>` slots and
   `<|lvr_end|>` before the answer. Slots are filled with the placeholder's own embedding, with the merged vision tokens
   under the evidence box, or, rarely, with random ones. The loss never teaches the model to open such a segment by itself,
   nor against it: those tokens are left out of the softmax. So it knows them and can read vision tokens in slots, but has
   learned no latent reasoning.

Not seen in training: counting, the object closest to another, leftmost and the like, comparisons of two objects, pictures
as crowded as the HR-Bench mirror's (192 px, 26 to 36 objects; it saw 8 to 20 there), pattern and jigsaw puzzles, several pictures in one prompt.

## Measured
Greedy, the paper's prompt, percent right with 95 % Wilson intervals; questions of `dev` and `test` share no scene with
training or each other (`models/proxy/splits.py`). `dev` was looked at during development, `test` once.

{table}

By subset, test:

{subsets}

Curve: `curve.png`, from `metrics.jsonl`. Weights bf16. Licence Apache-2.0.
"""


def card(results: list[dict], parameters: int) -> str:
    """The model card from measured results."""
    rows = ["| benchmark | split | n | accuracy | 95 % | chance |", "|---|---|---|---|---|---|"]
    rows += [f"| {r['benchmark']} | {r['split']} | {r['n']} | {r['accuracy']} | {r['low']}–{r['high']} | {r['chance']} |" for r in results]
    subsets = ["| benchmark | subset | n | accuracy |", "|---|---|---|---|"]
    subsets += [
        f"| {r['benchmark']} | {key.removeprefix('subset/').removeprefix('family/')} | {value[1]} | {value[0]} |"
        for r in results if r["split"] == "test" for key, value in r.items()
        if key.startswith("subset/") and r["benchmark"] != "mmvp" or key.startswith("family/") and r["benchmark"] == "mmvp"
    ]
    return _CARD.format(parameters=parameters / 1e6, table="\n".join(rows), subsets="\n".join(subsets))
