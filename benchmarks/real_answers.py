"""Decoding of answers by a 7B model, counted: batches as they are, refilled, and as large as memory allows. `benchmarks.real_scale`
prints it.

Prompts are as long as the drawn samples of training. A forward takes as long as the reading of the weights and of the cache, padding
included, or the multiplications, whichever is longer. Nothing is decoded: lengths of answers are given, and batches shrink by the rules of `models.latent.decoding`. Reading of
prompts costs the same in every way and is left out; refilling reads them a few at a time, which can only cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.real_costs import (
    ALL,
    HEAD,
    HEAD_WIDTH,
    KEY_HEADS,
    LANGUAGE_MODEL,
    LAYERS,
    MEMORY_BYTES,
    MFU,
    PEAK_FLOPS,
)
from models.latent.decoding import COMPACT_BELOW, LATE_FORWARDS, LATE_SHARE

QUESTIONS, MOST_NEW = 2000, 512
TOKEN_BYTES = 2 * 2 * LAYERS * KEY_HEADS * HEAD_WIDTH
"""Keys and values of one token, bf16."""
DEVICE_BYTES, CACHE_SHARE = 80e9, 0.5
"""Of an A800, and the share of what the weights leave that the cache is assumed to take."""
PROXY_ANSWERS = {4: 6388, 11: 971, 12: 758, 13: 121, 14: 46, 15: 80782, 16: 690, 17: 178, 18: 242}
"""How often answers of a complete run of the proxy's main table were so long, latent steps included; 68 longer ones are left out."""

Row = tuple[int, int]
"""Tokens of a prompt, and of its answer."""


@dataclass
class Count:
    forwards: int = 0
    rows: int = 0
    """Summed over all forwards, ended rows that are still carried along included."""
    used: int = 0
    """The same without those, and without answers that are begun again."""
    seconds: float = 0
    prompts: list[int] = field(default_factory=lambda: [0, 0])
    """Tokens of prompts, and the same with padding."""

    def forward(self, rows: int, columns: int) -> None:
        self.forwards += 1
        self.rows += rows
        weights = 2 * (LANGUAGE_MODEL + HEAD)
        self.seconds += max((weights + rows * columns * TOKEN_BYTES) / MEMORY_BYTES, rows * weights / (PEAK_FLOPS * MFU))


Fits = Callable[[int, int], bool]
"""Whether so many rows with so long a prompt may stand in one batch."""


def fixed(rows: int) -> Fits:
    return lambda number, longest: number <= rows


def budget(tokens: float) -> Fits:
    """As many as take no more of the cache than so many tokens."""
    return lambda number, longest: number * (longest + MOST_NEW) <= tokens


def batched(rows: Sequence[Row], fits: Fits) -> Count:
    """As `LmmsModel` decodes: sorted by prompt, each batch to its end, but for late rows, which begin again together."""
    count, late = Count(), []
    for batch in _batches(rows, fits):
        late += _decoded(count, batch, leave_late=True)
    for batch in _batches(late, fits):
        _decoded(count, batch, leave_late=False)
    count.used = sum(answer - 1 for _, answer in rows)
    return count


def _batches(rows: Iterable[Row], fits: Fits) -> Iterable[list[Row]]:
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: row[0]):
        if batch and not fits(len(batch) + 1, row[0]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _decoded(count: Count, batch: Sequence[Row], leave_late: bool) -> list[Row]:
    """Counts one batch, whose first tokens come from the prompts; returns the rows that were given up."""
    longest, carried = max(prompt for prompt, _ in batch), len(batch)
    count.prompts[0] += sum(prompt for prompt, _ in batch)
    count.prompts[1] += longest * carried
    for step in range(1, max(answer for _, answer in batch)):
        running = sum(answer > step for _, answer in batch)
        if leave_late and step > LATE_FORWARDS and running <= LATE_SHARE * len(batch):
            return [row for row in batch if row[1] > step]
        carried = running if running <= COMPACT_BELOW * carried else carried
        count.forward(carried, longest + step)
    return []


def refilled(rows: Sequence[Row], fits: Fits) -> Count:
    """The place of a row that ends is taken at once by the next prompt, read alone, in the same order."""
    waiting = sorted(rows, key=lambda row: row[0], reverse=True)
    count, running = Count(), []
    while waiting or running:
        while waiting and fits(len(running) + 1, max([waiting[-1][0], *(prompt for prompt, _, _ in running)])):
            prompt, answer = waiting.pop()
            running.append([prompt, answer, 1])
        running = [row for row in running if row[2] < row[1]]
        if running:
            count.forward(len(running), max(prompt + said for prompt, _, said in running))
        for row in running:
            row[2] += 1
    count.used = sum(answer - 1 for _, answer in rows)
    count.prompts = 2 * [sum(prompt for prompt, _ in rows)]
    return count


def table(prompts: np.ndarray, together: int) -> str:
    """prompts: their lengths. together: questions decoded at once, of the profile."""
    random = np.random.default_rng(2)
    lengths, often = np.array(list(PROXY_ANSWERS)), np.array(list(PROXY_ANSWERS.values()))
    answers = {
        "as long as the proxy's": random.choice(lengths, QUESTIONS, p=often / often.sum()),
        f"64 to {MOST_NEW} tokens, all as likely": random.integers(64, MOST_NEW + 1, QUESTIONS),
    }
    as_longest = budget(together * (int(prompts[:QUESTIONS].max()) + MOST_NEW))
    device = budget(CACHE_SHARE * (DEVICE_BYTES - 2 * ALL) / TOKEN_BYTES)
    ways = [
        (f"batches of {together}", batched, fixed(together)),
        (f"{together} rows, refilled", refilled, fixed(together)),
        (f"**here**: as much cache as {together} of the longest", batched, as_longest),
        ("the same, refilled", refilled, as_longest),
        (f"{CACHE_SHARE:.0%} of the free memory of the GPU", batched, device),
        ("the same, refilled", refilled, device),
    ]
    lines = ["| Answers | Way | Forwards a question | Rows at once | Idle or repeated rows | Padding of prompts | ms a question | Speed |", "| :-- | :-- |" + 6 * " --: |"]
    for what, own in answers.items():
        rows = list(zip(prompts[:QUESTIONS].tolist(), own.tolist(), strict=True))
        now = None
        for name, way, fits in ways:
            count = way(rows, fits)
            now = now or count.seconds
            lines.append(
                f"| {what} | {name} | {count.forwards / QUESTIONS:.2f} | {count.rows / count.forwards:.1f} | {1 - count.used / count.rows:.0%} | "
                f"{count.prompts[1] / count.prompts[0] - 1:.0%} | {1e3 * count.seconds / QUESTIONS:.1f} | {now / count.seconds:.2f}× |"
            )
    return "\n".join(lines)
