"""Remake the base that reads clips: ``python -m models.proxy.pretrain_clips --out DIR``.

One more phase on top of the base of pictures: questions about clips, mixed with what the phase *kinds* asks about pictures, so
that little is forgotten. The tower stays as it is. DIR/state holds what resumes. With --card the numbers and the card of a finished
checkpoint are made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from models.proxy import BASE_DIR, clips, measure, pretrain_language
from models.proxy.curriculum import KINDS_SHARES
from models.proxy.pretrain import SEED, Journal
from models.proxy.pretrain_language import Course, Plan

CLIPS = Plan(
    "clips", steps=450, batch=20, ring=400, fresh=4, lr=8e-4, warmup=20, text_share=0.03,
    course=Course(easy=(0, 1, 0.2, 0.2), open_ended=(0, 0.7, 0.3, 0.06), slots=(0, 1, 0.3, 0.3), scaffold=(0.4, 0.8, 0.5, 0),
                  shares=KINDS_SHARES, blind=0.2, written=0.8, puzzles=0.2, jigsaws=0.75, fixed_order=0.5, own=0.4, clips=0.65),
)


def write(model: torch.nn.Module, source: Path, out: Path) -> None:
    """The weights in bf16, beside the files that say how `source` is read."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    saved = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=torch.bfloat16)
    saved.load_state_dict({name: value.bfloat16() for name, value in model.state_dict().items()})
    saved.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        shutil.copyfile(source / name, out / name)


PICTURES = ("mmvp", "blink", "vstar")
_CARD = """---
base_model: none
tags: [qwen2_5_vl, proxy]
---
# Proxy base that reads clips

The base of `models/proxy/base` after one more phase: {steps} steps of {batch} rows, about two thirds of them questions about clips of
{seconds} seconds, the rest what its last phase asks about pictures. Tower, tokenizer and processor are the base's. It is made by

    python -m models.proxy.pretrain_clips --out DIR

in {minutes} minutes on one CPU core that other work shared, without the numbers below. Tables with a column of clips begin with it (`clip_backbone` in the profiles); all others begin with
the base itself. Its accuracies say nothing about those of a large model.

Percent right on questions about clips, {each} of each family (chance: 50 for order, 25 for the others). The base has read clean clips;
fine-tuning and evaluation are in the shifted world, where things are paler and the ground is noisier.

{clips}

Percent right on questions about pictures, development split (`python -m models.proxy.measure`):

{pictures}

{found}

Everything that was tried is in `experiments/tuning/README.md`. Weights bf16. Licence Apache-2.0.
"""


def write_numbers(out: Path, source: Path) -> None:
    """measured.jsonl: both checkpoints on clips (development and test questions) and on pictures (development); and the card."""
    lines = []
    for name, folder in (("base", source), ("base-video", out)):
        model, tokens = measure.load(folder)
        for split in ("dev", "test"):
            for shifted in (False, True):
                lines.append({"checkpoint": name, **measure.measure_clips(model, tokens, split, shifted=shifted)})
        for benchmark in PICTURES:
            found = measure.measure(model, tokens, benchmark, "dev", SEED)
            lines.append({"checkpoint": name, **{key: found[key] for key in ("benchmark", "split", "n", "accuracy", "low", "high", "chance")}})
    (out / "measured.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_card(out)


def write_card(out: Path) -> None:
    """README.md from measured.jsonl and metrics.jsonl."""
    (out / "README.md").write_text(card(*(_lines(out / name) for name in ("measured.jsonl", "metrics.jsonl"))))


def card(measured: list[dict], metrics: list[dict]) -> str:
    families = list(clips.FAMILIES)
    of_clips, of_pictures = ([line for line in measured if key in line] for key in ("world", "benchmark"))
    table = [f"| checkpoint | world | split | {' | '.join(families)} | mean |", "|---" * (len(families) + 4) + "|"]
    table += [f"| {o['checkpoint']} | {o['world']} | {o['split']} | {' | '.join(str(o[f]) for f in families)} | {o['mean']} |" for o in of_clips]
    pictures = ["| checkpoint | benchmark | n | accuracy | 95 % | chance |", "|---|---|---|---|---|---|"]
    pictures += [f"| {o['checkpoint']} | {o['benchmark']} | {o['n']} | {o['accuracy']} | {o['low']}–{o['high']} | {o['chance']} |" for o in of_pictures]
    shown = [o for o in of_clips if o["checkpoint"] == "base-video" and o["world"] == "shifted"]
    chance = {family: 50 if family == "order" else 25 for family in families}
    read = [family for family in families if all(o[family] >= chance[family] + 10 for o in shown)]
    found = (
        f"In the shifted world it answers {' and '.join(read)} at least 10 points above chance on development and on test questions. "
        f"It is not shown to answer {', '.join(f for f in families if f not in read)}: a comparison of recipes on these can show what "
        "training teaches from there, and little else."
    )
    steps, seconds = (max(record[key] for record in metrics if key in record) for key in ("step", "seconds"))
    return _CARD.format(
        steps=steps, minutes=round(seconds / 60), batch=CLIPS.batch, seconds=clips.SECONDS, each=of_clips[0]["each"], clips="\n".join(table), pictures="\n".join(pictures), found=found
    )


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    """Train the phase, or what is left of it, and write checkpoint and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--source", type=Path, default=BASE_DIR, help="the base that it starts from")
    parser.add_argument("--steps", type=int, default=CLIPS.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card", action="store_true", help="only numbers and card")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.card:
        write_numbers(options.out, options.source)
        return
    state = options.out / "state"
    state.mkdir(parents=True, exist_ok=True)
    model, tokens = measure.load(options.source)
    model.train()
    plan = replace(CLIPS, steps=options.steps)
    started = time.time()
    pretrain_language.train(
        model, tokens, plan, seed=SEED, rank=0, world=1, checkpoint=state / "clips.partial.pt", log=Journal(options.out / "metrics.jsonl"),
        examine=lambda: {f"dev/{k}": v for k, v in measure.measure_clips(model, tokens, "dev", shifted=False, each=40).items() if isinstance(v, float)},
        examine_every=100, save_every=50,
    )
    write(model, options.source, options.out)
    write_numbers(options.out, options.source)
    print(f"done in {(time.time() - started) / 60:.0f} min: {options.out}")


if __name__ == "__main__":
    main()
