"""Decoding of answers by a 7B model, counted: batches as they are, refilled, and as large as memory allows. `benchmarks.real_scale`
prints it.

Prompts are as long as the drawn training samples. A forward pass takes as long as reading the weights and the cache (including padding), or
as long as the multiplications, whichever is longer; adding a question takes as long as copying the cache. Nothing is decoded: the lengths
of answers are given, and `models.latent.refill` runs the batch as in an evaluation. "With prompts" adds encoding the pictures and
prefilling the prompts (including padding), which cost the same in every way of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    PATCHES,
    PEAK_FLOPS,
    TOGETHER,
    VISION_TOWER,
)
from harness.spec.profile import Resources
from models.latent import refill

QUESTIONS, MOST_NEW = 2000, 512
TOKEN_BYTES = 2 * 2 * LAYERS * KEY_HEADS * HEAD_WIDTH
"""Keys and values of one token, bf16."""
DEVICE_BYTES = 80e9
"""Of an A800."""
PROXY_ANSWERS = {4: 6388, 11: 971, 12: 758, 13: 121, 14: 46, 15: 80782, 16: 690, 17: 178, 18: 242}
"""How often answers of a complete run of the proxy's main table were so long, latent steps included; 68 longer ones are left out."""

Lengths = tuple[int, int]
"""Tokens of a prompt, and of its answer."""


@dataclass(eq=False)
class Row:
    name: int
    prompt: int
    answer: int
    said: int = 1

    @property
    def done(self) -> bool:
        return self.said >= self.answer


@dataclass
class Counted:
    """A batch that only counts."""

    lengths: Sequence[Lengths]
    rows: list[Row] = field(default_factory=list)
    columns: int = 0
    forwards: int = 0
    carried: int = 0
    """Rows summed over all forwards, ended ones included that are still carried along."""
    used: int = 0
    """The same without those."""
    seconds: float = 0
    prompts: list[int] = field(default_factory=lambda: [0, 0])
    """Tokens of prompts, and the same with padding."""

    def join(self, parts: list[list[int]] | None) -> dict[int, int]:
        for part in parts or []:
            prompts = [self.lengths[name][0] for name in part]
            self.prompts[0] += sum(prompts)
            self.prompts[1] += max(prompts) * len(prompts)
        new = [Row(name, *self.lengths[name]) for part in parts or [] for name in part]
        before = [row for row in self.rows if not row.done]
        self.rows = before + [row for row in new if not row.done]
        self.columns = max((row.prompt + row.said - 1 for row in self.rows), default=0)
        if before:
            self.seconds += 2 * len(self.rows) * self.columns * TOKEN_BYTES / MEMORY_BYTES
        return {row.name: row.answer for row in new if row.done}

    def step(self) -> dict[int, int]:
        running = [row for row in self.rows if not row.done]
        self.columns += 1
        self.forwards += 1
        self.carried += len(self.rows)
        self.used += len(running)
        weights = 2 * (LANGUAGE_MODEL + HEAD)
        cache = len(self.rows) * self.columns * TOKEN_BYTES
        self.seconds += max((weights + cache) / MEMORY_BYTES, len(self.rows) * weights / (PEAK_FLOPS * MFU))
        for row in running:
            row.said += 1
        return {row.name: row.answer for row in running if row.done}

    @property
    def with_prompts(self) -> float:
        """Seconds. All tokens of prompts count as a picture's."""
        return self.seconds + 2 * (LANGUAGE_MODEL + VISION_TOWER * PATCHES) * self.prompts[1] / (PEAK_FLOPS * MFU)


def counted(
    lengths: Sequence[Lengths], together: int, room: float | None = None, *, refilled: bool = True, by_rows: bool = False
) -> Counted:
    """All questions as `LmmsModel` asks them, shortest prompts first. together: how many of the longest fit. room: of the cache, if that
    is more. refilled: or one batch after another. by_rows: `together` rows, however long."""
    columns = [1 if by_rows else prompt + MOST_NEW for prompt, _ in lengths]
    least = together * max(columns)
    order = sorted(range(len(lengths)), key=lambda at: lengths[at][0])
    groups = [order[at : at + TOGETHER] for at in range(0, len(order), TOGETHER)]
    parts = [group[cut] for group in groups for cut in refill.parts_of([columns[at] for at in group], refill.PART * least)]
    part_of = {name: part for part in parts for name in part}
    waiting, batch = refill.Queue(parts, columns.__getitem__, max(least, room or 0)), Counted(lengths)

    def more(running: list[int]) -> list[list[int]] | None:
        names = waiting.next(running) if refilled or not running else []
        return [part_of[name] for name in names if name == part_of[name][0]] or None

    for _ in refill.run(batch, more):
        pass
    return batch


def table(prompts: np.ndarray, resources: Resources) -> str:
    """prompts: their lengths. resources: a profile's, of its evaluations."""
    random, together = np.random.default_rng(2), resources.batch_size
    lengths, often = np.array(list(PROXY_ANSWERS)), np.array(list(PROXY_ANSWERS.values()))
    answers = {
        "as long as the proxy's": random.choice(lengths, QUESTIONS, p=often / often.sum()),
        f"64 to {MOST_NEW} tokens, all as likely": random.integers(64, MOST_NEW + 1, QUESTIONS),
    }
    ways: list[tuple[str, dict]] = [
        ("one at a time", {"together": 1, "by_rows": True}),
        (f"batches of {together}", {"together": together, "by_rows": True, "refilled": False}),
        (f"{together} rows, refilled", {"together": together, "by_rows": True}),
        (f"as much cache as {together} of the longest, in batches", {"together": together, "refilled": False}),
        ("the same, refilled", {"together": together}),
    ]
    if resources.cache_share is not None:
        own = {"together": together, "room": resources.cache_share * (DEVICE_BYTES - 2 * ALL) / TOKEN_BYTES}
        share = f"{resources.cache_share:.0%} of the GPU's free memory"
        ways += [(f"{share}, in batches", own | {"refilled": False}), ("**here**: the same, refilled", own)]
    heads = ("Answers", "Way", "Forward passes per question", "Rows at once", "Idle rows", "Padding of prompts", "ms per question", "Speed", "ms with prompts", "Speed with prompts")
    lines = ["| " + " | ".join(heads) + " |", "| :-- | :-- |" + (len(heads) - 2) * " --: |"]
    for what, said in answers.items():
        rows = list(zip(prompts[:QUESTIONS].tolist(), said.tolist(), strict=True))
        first = counted(rows, **ways[0][1])
        for name, way in ways:
            count = counted(rows, **way)
            lines.append(
                f"| {what} | {name} | {count.forwards / QUESTIONS:.2f} | {count.carried / count.forwards:.1f} | {1 - count.used / count.carried:.0%} | "
                f"{count.prompts[1] / count.prompts[0] - 1:.0%} | {1e3 * count.seconds / QUESTIONS:.1f} | {first.seconds / count.seconds:.1f}× | "
                f"{1e3 * count.with_prompts / QUESTIONS:.0f} | {first.with_prompts / count.with_prompts:.1f}× |"
            )
    return "\n".join(lines)
