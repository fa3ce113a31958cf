"""What training at 7B on eight GPUs wastes, counted, and what it costs by formula: the usual way beside this project's.

    python -m benchmarks.real_scale            # seconds; --write: into benchmarks/real_scale.md

Nothing is timed and no GPU is needed. The cost of a micro-batch is the number of multiply-adds for its tokens in Qwen2.5-VL-7B's language
model. Ranks start each micro-batch together, because they gather sharded parameters together, so every rank waits for the slowest. A cost
of 1 means that there is no padding and the samples are spread evenly over the ranks. The distribution of lengths is assumed: 14 % are drawn
evenly between 4,096 and 5,300 tokens, since the release resizes a picture to at most 5,120, and the others from a log-normal distribution.
The mean (1,190 tokens) and the share of at least 4,096 are those of Visual CoT's pictures as the release resizes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import real_answers, real_costs
from benchmarks.page import about, show
from harness.spec.files import load_profile
from models.training.order import Order
from models.training.packing import release_groups

FILE = Path(__file__).with_suffix(".md")
MEASURED = {"Answers and training steps": "ratios", "Large pictures": "pictures", "Jobs on SLURM": "slurm_load", "Many cells": "many_cells"}
"""Pages whose figures are measured: each needs minutes, a cluster or a quiet machine."""
RANKS, ACCUMULATION, ROWS, STEPS = 8, 8, 4, 60
"""GPUs, micro-batches of a step, samples of one, and simulated steps."""
LAYERS, WIDTH, PARAMETERS = 28, 3584, 7.07e9
"""Of the language model; the parameters without the embedding, which multiplies nothing."""
MEAN, LONG, LONG_SHARE, LONGEST = 1190, 4096, 0.14, 5300

Cost = Callable[[Sequence[int]], float]


def lengths_of(samples: int, seed: int = 0) -> np.ndarray:
    """[samples] tokens."""
    random = np.random.default_rng(seed)
    long = random.random(samples) < LONG_SHARE
    short_mean = (MEAN - LONG_SHARE * (LONG + LONGEST) / 2) / (1 - LONG_SHARE)
    spread = 0.7
    short = random.lognormal(np.log(short_mean) - spread**2 / 2, spread, samples).clip(100, LONG - 1)
    return np.where(long, random.integers(LONG, LONGEST, samples), short).astype(int)


def of_row(tokens: float) -> float:
    """Multiply-adds of one row in a forward pass: the weights once for each token, and causal attention."""
    return tokens * PARAMETERS + LAYERS * WIDTH * tokens**2


def packed(lengths: Sequence[int]) -> float:
    """Samples end to end; each sees only itself."""
    return sum(map(of_row, lengths))


def padded(lengths: Sequence[int]) -> float:
    return len(lengths) * of_row(max(lengths))


def few_logits(supervised: float) -> Cost:
    """`packed`, with logits for so many tokens of each sample."""
    return lambda lengths: packed(lengths) - real_costs.HEAD * (sum(lengths) - supervised * len(lengths))


@dataclass(frozen=True)
class Way:
    """steps: of each step, of each rank, its micro-batches as lists of lengths."""

    name: str
    steps: Iterable[Sequence[Sequence[Sequence[int]]]]
    cost: Cost


def waste(way: Way) -> tuple[float, float, int]:
    """Cost in lockstep and without waiting, both as multiples of the even spread of the samples' own cost; the most tokens, padding
    included where the way pads, that one micro-batch has."""
    lockstep = alone = own = 0.0
    most = 0
    for step in way.steps:
        costs = np.array([[way.cost(batch) for batch in rank] for rank in step])
        lockstep += costs.max(0).sum()
        alone += costs.sum() / len(step)
        own += sum(packed(batch) for rank in step for batch in rank) / len(step)
        sizes = [len(b) * max(b) if way.cost is padded else sum(b) for rank in step for b in rank]
        most = max(most, *sizes)
    return lockstep / own, alone / own, most


def release(lengths: np.ndarray) -> Iterable[Sequence[Sequence[Sequence[int]]]]:
    """Each rank batches a stream of its own; a step takes eight groups of it, of at most four samples."""
    streams = [release_groups(lengths[rank::RANKS].tolist()) for rank in range(RANKS)]
    own = [lengths[rank::RANKS] for rank in range(RANKS)]
    for _ in range(STEPS):
        yield [[own[rank][next(streams[rank])].tolist() for _ in range(ACCUMULATION)] for rank in range(RANKS)]


def ours(lengths: np.ndarray, share: str | None) -> Iterable[Sequence[Sequence[Sequence[int]]]]:
    """share: of `Order`; None: as the samples come, so many for each micro-batch."""
    known = None if share is None else lengths.tolist()
    batch = RANKS * ACCUMULATION * ROWS
    orders = [Order(len(lengths), STEPS, batch, ROWS, 0, rank, RANKS, known, share or "count") for rank in range(RANKS)]  # type: ignore[arg-type]
    for step in range(STEPS):
        yield [[lengths[order.micro_samples(step, micro)].tolist() for micro in range(ACCUMULATION)] for order in orders]


def table() -> str:
    lengths = lengths_of(40_000)
    ways = [
        Way("the release: groups of at most four, padded", release(lengths), padded),
        Way("four samples in random order, padded", ours(lengths, None), padded),
        Way("four samples in random order, packed", ours(lengths, None), packed),
        Way("**here, padded** (slots filled one after another)", ours(lengths, "padded"), padded),
        Way("the same, attention without the padding (flash-attn)", ours(lengths, "padded"), packed),
        Way("**here, packed**", ours(lengths, "tokens"), packed),
    ]
    drawn = f"Drawn: {len(lengths):,} samples, mean {lengths.mean():,.0f} tokens, {100 * (lengths >= LONG).mean():.1f} % of at least {LONG:,}; "
    drawn += f"{STEPS} steps of {RANKS} ranks × {ACCUMULATION} micro-batches."
    lines = [
        drawn,
        "",
        "| Micro-batches | Cost with waiting | Cost without waiting | Largest micro-batch, tokens |",
        "| :-- | --: | --: | --: |",
    ]
    found: dict[str, tuple[float, float, int]] = {}
    for way in ways:
        lockstep, alone, most = found[way.name] = waste(way)
        lines.append(f"| {way.name} | {lockstep:.2f} | {alone:.2f} | {most:,} |")
    costs = real_costs.table(
        RANKS * ACCUMULATION * ROWS * lengths.mean(), (lengths**2).sum() / lengths.sum(), found[ways[1].name][0], found[ways[3].name][0]
    )
    answers = real_answers.table(lengths_of(real_answers.QUESTIONS, seed=3), load_profile("a800").value.resources["evaluate"])
    about = (real_answers.__doc__ or "").split("\n\n", 1)[1].strip()
    return "\n".join([*lines, "", "## Seconds, bytes and prefills, by formula", "", costs, "", "## Decoding of answers", "", about, "", answers])


def measured() -> str:
    """The tables of the measured pages as they were last written, each with the command that makes it anew."""
    parts = []
    for title, name in MEASURED.items():
        rows = [line for line in FILE.with_name(f"{name}.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        parts.append("\n".join([f"## {title}, measured (`python -m benchmarks.{name}`)", "", *rows]))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    options = parser.parse_args(arguments)
    page = f"# At real scale, counted\n\nMade by `python -m benchmarks.real_scale --write`.\n\n## Padding, and waiting for the slowest rank\n\n{ABOUT}\n\n{table()}\n"
    show(page, FILE if options.write else None)
    print(measured())
    return 0


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
