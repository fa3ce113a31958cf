"""Remake the base that reads clips: ``python -m models.proxy.pretrain_clips --out DIR``.

One more phase on top of the base of pictures: questions about clips, mixed with what the phase *kinds* asks about pictures, so
that nothing is forgotten. The tower stays as it is. DIR/state holds what resumes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import torch

from models.proxy import BASE_DIR, measure, pretrain_language
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


def main() -> None:
    """Train the phase, or what is left of it, and write checkpoint and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--source", type=Path, default=BASE_DIR, help="the base that it starts from")
    parser.add_argument("--steps", type=int, default=CLIPS.steps)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    state = options.out / "state"
    state.mkdir(parents=True, exist_ok=True)
    model, tokens = measure.load(options.source)
    model.train()
    plan = Plan(**{**vars(CLIPS), "steps": options.steps})
    started = time.time()
    pretrain_language.train(
        model, tokens, plan, seed=SEED, rank=0, world=1, checkpoint=state / "clips.partial.pt", log=Journal(options.out / "metrics.jsonl"),
        examine=lambda: {f"dev/{k}": v for k, v in measure.measure_clips(model, tokens, "dev", shifted=False, each=40).items() if isinstance(v, float)},
        examine_every=100, save_every=50,
    )
    write(model, options.source, options.out)
    model, tokens = measure.load(options.out)
    found = [measure.measure_clips(model, tokens, split, shifted=shifted) for split in ("dev", "test") for shifted in (False, True)]
    (options.out / "measured.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    print(f"done in {(time.time() - started) / 60:.0f} min: {options.out}")


if __name__ == "__main__":
    main()
