"""Remake the base checkpoint: ``python -m models.proxy.pretrain --out DIR``.

Phases, each resumable from DIR/state: vision (tower and merger alone), text (lookups), then questions about pictures on
the frozen tower: language (finding and naming), answers (letters), places (where things lie to each other), slots (reading
and writing latent segments), kinds (what BLINK asks). Then the model, processor, log and curve are written to DIR. Everything is seeded; the
bits differ between machines and numbers of processes, the measured accuracies should not.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import torch

from models.proxy import architecture, measure, pretrain_language, pretrain_vision
from models.proxy.curriculum import KINDS_SHARES, PLACES_SHARES, SLOTS_SHARES
from models.proxy.pretrain_language import Course, Plan
from models.proxy.processor import build_processor
from models.proxy.rows import Tokens
from models.proxy.scenes import USUAL, render, sample_scene
from models.proxy.splits import stream

SEED = 0
VISION_STEPS = 900
TEXT = Plan("text", steps=800, stop=600, batch=128, lr=1.5e-3, warmup=50)
LANGUAGE = Plan(
    "language", steps=1600, stop=700, batch=40, ring=1536, fresh=12, lr=1.5e-3, warmup=100, text_share=0.15,
    course=Course(easy=(0, 0.5, 1, 0.25), open_ended=(0, 0.375, 0.6, 0.15), slots=(1, 1, 0, 0), scaffold=(0.25, 0.75, 1, 0),
                  parts=(("look", 0), ("read", 0), ("hop", 0), ("pick", 0.25))),
)
ANSWERS = Plan(
    "answers", steps=900, batch=40, ring=1536, fresh=12, lr=1.2e-3, warmup=40, text_share=0.15,
    course=Course(easy=(0, 0.5, 0.8, 0.2), open_ended=(0.1, 0.4, 0.4, 0.12), slots=(0.5, 0.55, 0, 0.3), scaffold=(0.3, 0.7, 0.7, 0)),
)
PLACES = Plan(
    "places", steps=700, batch=40, ring=1536, fresh=12, lr=1.2e-3, warmup=40, text_share=0.12,
    course=Course(easy=(0, 0.5, 0.7, 0.2), open_ended=(0, 0.4, 0.25, 0.12), slots=(0, 1, 0.3, 0.3), scaffold=(0.2, 0.7, 0.6, 0),
                  shares=PLACES_SHARES),
)
SLOTS = Plan(
    "slots", steps=600, batch=20, lr=8e-4, warmup=30, text_share=0.05,
    course=Course(easy=(0, 1, 0.3, 0.3), open_ended=(0, 1, 0.1, 0.1), slots=(0, 1, 0.4, 0.4), scaffold=(0.4, 0.75, 0.5, 0),
                  shares=SLOTS_SHARES, blind=0.25, written=0.8, puzzles=0.12, own=0.4),
)
KINDS = Plan(
    "kinds", steps=450, batch=20, lr=6e-4, warmup=20, text_share=0.03,
    course=Course(easy=(0, 1, 0.2, 0.2), open_ended=(0, 1, 0.06, 0.06), slots=(0, 1, 0.35, 0.35), scaffold=(0.5, 0.85, 0.5, 0),
                  shares=KINDS_SHARES, blind=0.2, written=0.8, puzzles=0.28, jigsaws=0.75, fixed_order=0.5, own=0.4),
)
PHASES = {p.name: p for p in (TEXT, LANGUAGE, ANSWERS, PLACES, SLOTS, KINDS)}


class Journal:
    """metrics.jsonl: one record per line, appended; printed with the time left."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, record: dict) -> None:
        """Append and print one record."""
        record = {k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()}
        with self.path.open("a") as f:
            f.write(json.dumps(record) + "\n")
        left = record.get("seconds_left")
        shown = {k: v for k, v in record.items() if k not in ("seconds", "seconds_left")}
        print(json.dumps(shown) + (f"  [{left / 60:.1f} min left in this phase]" if left is not None else ""), flush=True)


def _fresh_model(tokens: Tokens) -> torch.nn.Module:
    model = architecture.build({n: tokens.tokenizer.convert_tokens_to_ids(n) for n in architecture.TOKENS_IN_CONFIG}, SEED)
    architecture.linear_patch_embedding(model)
    return model


def _vision(state: Path, threads: int) -> None:
    """Phase A, then the decoder's initialisation; writes state/vision.pt."""
    torch.set_num_threads(threads)
    journal, tokens = Journal(state.parent / "metrics.jsonl"), Tokens(build_processor().tokenizer)
    model = _fresh_model(tokens)
    heads = pretrain_vision.Heads()
    pretrain_vision.train(model, heads, seed=SEED, steps=VISION_STEPS, batch=32, lr=2e-3, log=journal)
    save_vision(model, heads, tokens, state / "vision.pt")


def save_vision(model: torch.nn.Module, heads: torch.nn.Module, tokens: Tokens, path: Path) -> None:
    """Scale the merged tokens, initialise the decoder from the heads and save both."""
    rng = stream("pretrain", SEED, 9)
    pretrain_language.unit_vision(model, np.stack([render(sample_scene(rng, USUAL)) for _ in range(32)]))
    pretrain_language.initialise(model, tokens, pretrain_vision.word_directions(heads), SEED)
    torch.save({"model": model.state_dict()}, path)


def _worker(rank: int, world: int, port: int, name: str, previous: str, out: str, threads: int) -> None:
    """One process of a text or language phase."""
    torch.set_num_threads(threads)
    if world > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    state, plan = Path(out) / "state", PHASES[name].among(world)
    processor = build_processor()
    tokens = Tokens(processor.tokenizer)
    model = _fresh_model(tokens)
    loaded = torch.load(previous, weights_only=True)
    model.load_state_dict(loaded["model"])
    journal = Journal(Path(out) / "metrics.jsonl")

    partial = state / f"{name}.partial.pt"
    scaffold = pretrain_language.train(
        model, tokens, plan, seed=SEED, rank=rank, world=world, checkpoint=partial, log=journal,
        examine=None if name == "text" else (lambda: measure.quick(model, tokens, seed=SEED)), scaffold_state=loaded.get("scaffold"),
    )
    if rank == 0:
        torch.save({"model": model.state_dict(), "scaffold": scaffold}, state / f"{name}.pt")
        partial.unlink(missing_ok=True)
    if world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _run(name: str, previous: Path, out: Path, processes: int, threads: int) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    arguments = (processes, port, name, str(previous), str(out), threads)
    if processes == 1:
        _worker(0, *arguments)
    else:
        torch.multiprocessing.spawn(_worker, args=arguments, nprocs=processes)


def main() -> None:
    """Run the phases that DIR does not hold yet, then write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint; DIR/state holds what resumes")
    parser.add_argument("--processes", type=int, default=2, help="data-parallel processes in the text and language phases")
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--until", choices=("vision", *PHASES, "end"), default="end")
    options = parser.parse_args()
    state = options.out / "state"
    state.mkdir(parents=True, exist_ok=True)
    started = time.time()
    if not (state / "vision.pt").exists():
        _vision(state, options.processes * options.threads)
    previous = state / "vision.pt"
    for name in PHASES:
        if options.until == "vision":
            return
        if not (state / f"{name}.pt").exists():
            _run(name, previous, options.out, options.processes, options.threads)
        previous = state / f"{name}.pt"
        if options.until == name:
            return
    from models.proxy.release import write_base

    write_base(previous, options.out)
    print(f"done in {(time.time() - started) / 60:.0f} min: {options.out}")


if __name__ == "__main__":
    main()
