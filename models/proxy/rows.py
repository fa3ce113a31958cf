"""Conversations as token rows: what phase B trains on.

A row is one system turn, one user turn that opens with the pictures, and any number of further question turns about
the same pictures. The row remembers which tokens are supervised, where the pictures' tokens go, what fills the latent
slots of a turn, and at which positions attention should rest on which picture tokens. Knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from models.proxy import prompts
from models.proxy.questions import Question
from models.proxy.scenes import Box

WEIGHT_ANSWER = 1.0
WEIGHT_FRAME = 0.1
"""Weight of '<answer>', '</answer>' and the like, which are learned in a moment, against the answer itself."""
IGNORE = -100


class Tokens:
    """The tokenizer with a cache, and the ids that rows are built from."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        one = tokenizer.convert_tokens_to_ids
        self.image, self.latent = one("<|image_pad|>"), one("<|lvr|>")
        self.latent_start, self.latent_end, self.pad = one("<|lvr_start|>"), one("<|lvr_end|>"), one("<|endoftext|>")
        self.answer_open = one("<answer>")

    def encode(self, text: str) -> list[int]:
        """Token ids; short texts are remembered."""
        if text not in self._cache:
            if len(self._cache) > 50_000:
                self._cache.clear()
            self._cache[text] = self.tokenizer(text).input_ids
        return self._cache[text]


def cells_of(box: Box, cells: int) -> list[int]:
    """Merged tokens under a box, rounded outwards, raster order."""
    x0, y0 = int(np.floor(box[0] * cells + 1e-6)), int(np.floor(box[1] * cells + 1e-6))
    x1, y1 = int(np.ceil(box[2] * cells - 1e-6)), int(np.ceil(box[3] * cells - 1e-6))
    return [y * cells + x for y in range(y0, y1) for x in range(x0, x1)]


@dataclass(frozen=True)
class Slots:
    """Latent slots of a turn: `tokens` are merged picture tokens that fill them; None fills `count` with the token's own embedding."""

    count: int
    tokens: tuple[int, ...] | None = None


@dataclass
class Row:
    """One token row under construction; positions are Qwen2.5-VL's three mRoPE rows."""

    tokens: Tokens
    cells: tuple[int, ...] = ()
    """Merged tokens per side of each picture."""
    ids: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    targets: list[tuple[int, int, float]] = field(default_factory=list)
    """(position that predicts, token id, weight)"""
    picture_at: list[int] = field(default_factory=list)
    """Index of each picture's first token."""
    fills: list[tuple[int, int]] = field(default_factory=list)
    """(slot's index in the row, merged token that fills it)"""
    looks: list[tuple[int, int, int]] = field(default_factory=list)
    """(query position, merged token for the one head, merged token for the other)"""
    answers_at: list[int] = field(default_factory=list)
    """Positions that predict an answer's first token."""
    _next: int = 0

    def text(self, text: str) -> None:
        """Append text."""
        self._append(self.tokens.encode(text))

    def _append(self, ids: list[int]) -> None:
        for token in ids:
            self.ids.append(token)
            self.positions.append((self._next,) * 3)
            self._next += 1

    def open(self) -> None:
        """Append the system turn (left out where there is no picture: phase T saves it) and the user turn's beginning."""
        self.text((f"<|im_start|>system\n{prompts.SYSTEM}<|im_end|>\n" if self.cells else "") + "<|im_start|>user\n")
        for side in self.cells:
            self.text("<|vision_start|>")
            self.picture_at.append(len(self.ids))
            self.ids += [self.tokens.image] * side**2
            self.positions += [(self._next, self._next + k // side, self._next + k % side) for k in range(side**2)]
            self._next += side
            self.text("<|vision_end|>")

    def turn(self, question: Question, prompt: str, answer: str, slots: Slots | None = None) -> None:
        """Append a question turn and its supervised answer. `prompt` holds the question's text, perhaps after a note."""
        if not self.ids:
            self.open()
        elif self.answers_at:
            self.text("<|im_start|>user\n")
        self._look(question, prompt, len(self.ids))
        self._append(self.tokens.encode(prompt))
        self.text("<|im_end|>\n<|im_start|>assistant\n")
        if slots is not None:
            self._append([self.tokens.latent_start])
            if slots.tokens is not None:
                self.fills += [(len(self.ids) + k, t) for k, t in enumerate(slots.tokens)]
            self._append([self.tokens.latent] * slots.count)
            self._supervise([self.tokens.latent_end], WEIGHT_FRAME)
            self._supervise(self.tokens.encode("\n"), WEIGHT_FRAME)
        self._supervise([self.tokens.answer_open], WEIGHT_FRAME)
        self.answers_at.append(len(self.ids) - 1)
        self._supervise(self.tokens.encode(" " + answer), WEIGHT_ANSWER)
        self._supervise(self.tokens.encode(" </answer><|im_end|>\n"), WEIGHT_FRAME)

    def _look(self, question: Question, prompt: str, start: int) -> None:
        """Note where attention should rest: at the last word of each name on its thing; where there are things and no
        words for them (marked points), at the question's last token on both, one head each."""
        if not self.cells or not question.things:
            return
        cell = [t.row * self.cells[0] + t.col for t in question.things]
        begin = prompt.index(question.text)
        if question.names:
            end = begin
            for name, c in zip(question.names, cell, strict=False):
                end = prompt.index(name, end) + len(name)
                self.looks.append((start + len(self.tokens.encode(prompt[:end])) - 1, c, c))
        elif len(cell) == 2:
            self.looks.append((start + len(self.tokens.encode(prompt[: begin + len(question.text)])) - 1, cell[0], cell[1]))

    def _supervise(self, ids: list[int], weight: float) -> None:
        self.targets += [(len(self.ids) - 1 + k, token, weight) for k, token in enumerate(ids)]
        self._append(ids)


@dataclass
class Batch:
    """Rows padded on the right (causal attention needs no mask then)."""

    ids: torch.Tensor
    """int64 [rows, length]"""
    positions: torch.Tensor
    """int64 [3, rows, length]"""
    picture_rows: torch.Tensor
    """int64 [pictures, first token's (row, index)]; pictures of one batch have one size"""
    picture_tokens: int
    target_at: torch.Tensor
    """int64 [targets, 2]: row, position that predicts"""
    target_ids: torch.Tensor
    target_weights: torch.Tensor
    fill_at: torch.Tensor
    """int64 [fills, 4]: row, slot position, picture index in the batch, merged token"""
    look_at: torch.Tensor
    """int64 [looks, 4]: row, query position, first and second thing's token"""
    answers_at: torch.Tensor
    """int64 [answers, 3]: row, position, answer's first token"""


def collate(rows: list[Row]) -> Batch:
    """Rows to tensors. A row may carry one picture or none; ValueError if picture sizes differ."""
    sizes = {c for r in rows for c in r.cells}
    if len(sizes) > 1 or any(len(r.cells) > 1 for r in rows):
        raise ValueError(f"a batch holds single pictures of one size, got sides {sorted(sizes)} in tokens")
    length = max(len(r.ids) for r in rows)
    ids = torch.full((len(rows), length), rows[0].tokens.pad)
    positions = torch.zeros((3, len(rows), length), dtype=torch.long)
    picture_of: dict[int, int] = {}
    for k, r in enumerate(rows):
        ids[k, : len(r.ids)] = torch.tensor(r.ids)
        positions[:, k, : len(r.ids)] = torch.tensor(r.positions).T
        if r.picture_at:
            picture_of[k] = len(picture_of)
    first = {(r, p): t for r, row in enumerate(rows) for p, t, _ in row.targets}

    def table(values: list[tuple[int, ...]], width: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long).reshape(-1, width)

    return Batch(
        ids, positions, table([(k, rows[k].picture_at[0]) for k in picture_of], 2), (sizes.pop() ** 2) if sizes else 0,
        table([(k, p) for k, r in enumerate(rows) for p, _, _ in r.targets], 2),
        torch.tensor([t for r in rows for _, t, _ in r.targets]),
        torch.tensor([w for r in rows for _, _, w in r.targets]),
        table([(k, s, picture_of[k], t) for k, r in enumerate(rows) for s, t in r.fills], 4),
        table([(k, p, a, b) for k, r in enumerate(rows) for p, a, b in r.looks], 4),
        table([(k, p, first[k, p]) for k, r in enumerate(rows) for p in r.answers_at], 3),
    )
