"""Questions as token rows: what the text and language phases train on.

A row is a prefix (system turn, the user turn's beginning, the picture) and any number of question turns that each
continue the prefix by themselves: turns of one row share the prefix's computation but do not see each other, so each is
exactly a single-turn conversation. The row remembers which tokens are supervised, what fills a turn's latent slots, and
at which positions attention should rest on which picture tokens. Knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from models.proxy import prompts
from models.proxy.questions import Question
from models.proxy.scenes import ATTRIBUTES, GRAY_LEVELS, Box, Marker

WEIGHT_ANSWER = 1.0
WEIGHT_FRAME = 0.1
"""Weight of '<answer>', '</answer>' and the like, which are learned in a moment, against the answer itself."""
IGNORE = -100


POSITIONS_PER_SECOND = 2
"""mRoPE positions from one pair of frames to the next, a second later, as Qwen2.5-VL counts them."""
READ_CLASSES = (*(len(v) for v in ATTRIBUTES.values()), 12, 12, len(GRAY_LEVELS), len(GRAY_LEVELS))
"""Classes of what a position that has looked at a thing can say: colour, shape, fill, row, column; plates A's and B's level."""


class Tokens:
    """The tokenizer with a cache, and the ids that rows are built from."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        one = tokenizer.convert_tokens_to_ids
        self.image, self.video, self.latent = one("<|image_pad|>"), one("<|video_pad|>"), one("<|lvr|>")
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
    opened: bool = False
    """Whether the segment's first token is supervised, so that the model learns to open one by itself."""
    written: bool = False
    """Whether the state before each slot is drawn to the merged token that fills it."""


@dataclass
class Turn:
    """One question and its answer; positions are token indices within the turn."""

    ids: list[int] = field(default_factory=list)
    targets: list[tuple[int, int, float]] = field(default_factory=list)
    """(position that predicts, token id, weight)"""
    fills: list[tuple[int, int]] = field(default_factory=list)
    """(slot's position, merged picture token that fills it)"""
    looks: list[tuple[int, int, int]] = field(default_factory=list)
    """(query position, merged token for the one head, merged token for the other)"""
    reads: list[tuple[int, ...]] = field(default_factory=list)
    """(position, one label per entry of READ_CLASSES or -100): what can be said at that position after the look"""
    hops: list[tuple[int, int, int]] = field(default_factory=list)
    """(answer position, position of the first name's last word, of the second's)"""
    says: list[tuple[int, int]] = field(default_factory=list)
    """(answer position, first token of the answer's own words, also where a letter is asked for)"""
    picks: list[tuple[int, int]] = field(default_factory=list)
    """(answer position, position of the right option's last word)"""
    writes: list[tuple[int, int]] = field(default_factory=list)
    """(position before a slot, merged picture token that its state is drawn to)"""
    answer_at: int = 0
    """Position that predicts the answer's first token."""


@dataclass
class Row:
    """A prefix and its turns. `cells`: merged tokens per side of each picture (none: a text row), or of the one clip."""

    tokens: Tokens
    cells: tuple[int, ...] = ()
    steps: int = 0
    """Pairs of frames of the clip, a second each; 0: pictures."""
    blind: bool = False
    """The picture shown is another scene's: what is asked can only be read from the slots."""
    prefix: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    """mRoPE positions of the prefix (temporal, height, width)."""
    turns: list[Turn] = field(default_factory=list)
    next_position: int = 0
    """mRoPE position of every turn's first token."""

    def __post_init__(self) -> None:
        """Write the prefix. The text phase leaves the system turn out: it costs more than the questions."""
        self._text((f"<|im_start|>system\n{prompts.SYSTEM}<|im_end|>\n" if self.cells else "") + "<|im_start|>user\n")
        for side in self.cells:
            self._text("<|vision_start|>")
            self.prefix += [self.tokens.video if self.steps else self.tokens.image] * (side**2 * max(self.steps, 1))
            start = self.next_position
            for step in range(max(self.steps, 1)):
                time = start + step * POSITIONS_PER_SECOND
                self.positions += [(time, start + k // side, start + k % side) for k in range(side**2)]
            self.next_position = max(max(p) for p in self.positions[-(side**2) :]) + 1
            self._text("<|vision_end|>")

    def _text(self, text: str) -> None:
        for token in self.tokens.encode(text):
            self.prefix.append(token)
            self.positions.append((self.next_position,) * 3)
            self.next_position += 1

    def turn(
        self, question: Question, prompt: str, answer: str, slots: Slots | None = None, seen: tuple[tuple[int, int], ...] = (),
    ) -> Turn:
        """Add a question turn and its supervised answer. `prompt` holds the question's text, perhaps after a note. seen: of each
        thing of a clip's question, the merged tokens that two heads look at."""
        turn = Turn()
        self._look(turn, question, prompt, seen)
        turn.ids += self.tokens.encode(prompt) + self.tokens.encode("<|im_end|>\n<|im_start|>assistant\n")
        first_slot = len(turn.ids) + 1
        if slots is not None:
            self._segment(turn, slots)
        self._supervise(turn, [self.tokens.answer_open], WEIGHT_FRAME)
        turn.answer_at = len(turn.ids) - 1
        if self.blind and slots is not None:
            turn.hops.append((turn.answer_at, first_slot, first_slot + slots.count - 1))
        elif turn.looks:
            turn.hops.append((turn.answer_at, turn.looks[0][0], turn.looks[-1][0]))
        turn.says.append((turn.answer_at, self.tokens.encode(" " + question.answer_text)[0]))
        if answer == question.letter:
            written = next(w for w in (f"{answer}. ", f"({answer}) ") if w + question.answer_text in prompt)
            end = prompt.rindex(written + question.answer_text) + len(written + question.answer_text)
            turn.picks.append((turn.answer_at, len(self.tokens.encode(prompt[:end])) - 1))
        self._supervise(turn, self.tokens.encode(" " + answer), WEIGHT_ANSWER)
        self._supervise(turn, self.tokens.encode(" </answer><|im_end|>\n"), WEIGHT_FRAME)
        self.turns.append(turn)
        return turn

    def _segment(self, turn: Turn, slots: Slots) -> None:
        """A latent segment. Where it is written, the state that opens it fetches what the names' last words have seen."""
        if slots.opened:
            self._supervise(turn, [self.tokens.latent_start], WEIGHT_FRAME)
        else:
            turn.ids.append(self.tokens.latent_start)
        start = len(turn.ids) - 1
        turn.fills += [(start + 1 + k, t) for k, t in enumerate(slots.tokens or ())]
        if slots.written:
            turn.writes += [(start + k, t) for k, t in enumerate(slots.tokens or ())]
            if turn.looks:
                turn.hops.append((start, turn.looks[0][0], turn.looks[-1][0]))
        turn.ids += [self.tokens.latent] * slots.count
        self._supervise(turn, [self.tokens.latent_end, *self.tokens.encode("\n")], WEIGHT_FRAME)

    def _look(self, turn: Turn, question: Question, prompt: str, seen: tuple[tuple[int, int], ...]) -> None:
        """Note where attention should rest: at the last word of each name on its thing; where there are things and no
        words for them (marked points), at the question's last token on both, one head each."""
        if not self.cells or not question.things or self.blind:
            return
        cell = [t.row * self.cells[0] + t.col for t in question.things]
        seen = seen or tuple((c, c) for c in cell)
        begin = prompt.index(question.text)
        if question.names:
            end = begin
            for name, looked, thing in zip(question.names, seen, question.things, strict=False):
                end = prompt.index(name, end) + len(name)
                at = len(self.tokens.encode(prompt[:end])) - 1
                turn.looks.append((at, *looked))
                words = (list(v).index(thing.get(a)) for a, v in ATTRIBUTES.items())
                turn.reads.append((at, *words, thing.row, thing.col, IGNORE, IGNORE))
        elif all(isinstance(t, Marker) for t in question.things):
            at = len(self.tokens.encode(prompt[: begin + len(question.text)])) - 1
            turn.looks.append((at, cell[0], cell[1]))
            turn.reads.append((at, *[IGNORE] * 5, *(m.level for m in question.things)))

    @staticmethod
    def _supervise(turn: Turn, ids: list[int], weight: float) -> None:
        turn.targets += [(len(turn.ids) - 1 + k, token, weight) for k, token in enumerate(ids)]
        turn.ids += ids


@dataclass
class Batch:
    """Rows of one prefix length; turns padded on the right (causal attention needs no mask for that)."""

    prefix: torch.Tensor
    """int64 [rows, prefix]"""
    prefix_positions: torch.Tensor
    """int64 [3, rows, prefix]"""
    turns: torch.Tensor
    """int64 [turns, length]"""
    turn_positions: torch.Tensor
    """int64 [3, turns, length]"""
    row_of: torch.Tensor
    """int64 [turns]: each turn's row"""
    picture_at: int | None
    """Index of the first picture's first token in every prefix, None in text rows."""
    pictured: torch.Tensor
    """int64: the prefix's columns that hold pictures' tokens, the same in every row"""
    target_at: torch.Tensor
    """int64 [targets, 2]: turn, position that predicts"""
    target_ids: torch.Tensor
    target_weights: torch.Tensor
    fill_at: torch.Tensor
    """int64 [fills, 3]: turn, slot position, merged token"""
    look_at: torch.Tensor
    """int64 [looks, 4]: turn, query position, first and second thing's merged token"""
    read_at: torch.Tensor
    """int64 [reads, 2 + classifiers]: turn, position, labels"""
    hop_at: torch.Tensor
    """int64 [hops, 4]: turn, answer position, the names' positions"""
    say_at: torch.Tensor
    """int64 [says, 3]: turn, answer position, the answer's first token"""
    pick_at: torch.Tensor
    """int64 [picks, 4]: turn, answer position, the right option's position, twice"""
    write_at: torch.Tensor
    """int64 [writes, 3]: turn, position before the slot, merged token"""
    answers: torch.Tensor
    """int64 [turns]: index into the targets of each turn's answer"""


def collate(rows: list[Row]) -> Batch:
    """Rows to tensors. ValueError if rows differ in their pictures' sizes: prefixes then differ in length."""
    if len({(len(r.prefix), r.cells, r.steps) for r in rows}) > 1:
        raise ValueError("a batch holds rows with pictures of the same sizes, or without any")
    turns = [(k, t) for k, r in enumerate(rows) for t in r.turns]
    length = max(len(t.ids) for _, t in turns)
    pad, first = rows[0].tokens.pad, rows[0]

    def table(values: list[tuple[int, ...]], width: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long).reshape(-1, width)

    answers, count = [], 0
    for _, t in turns:
        answers.append(count + next(k for k, (at, _, _) in enumerate(t.targets) if at == t.answer_at))
        count += len(t.targets)
    start = torch.tensor([rows[k].next_position for k, _ in turns])
    pictured = [k for k, token in enumerate(first.prefix) if token in (first.tokens.image, first.tokens.video)]
    return Batch(
        prefix=torch.tensor([r.prefix for r in rows]),
        prefix_positions=torch.tensor([r.positions for r in rows]).permute(2, 0, 1),
        turns=torch.tensor([t.ids + [pad] * (length - len(t.ids)) for _, t in turns]),
        turn_positions=(start[:, None] + torch.arange(length)).expand(3, -1, -1),
        row_of=torch.tensor([k for k, _ in turns]),
        picture_at=pictured[0] if first.cells else None,
        pictured=torch.tensor(pictured, dtype=torch.long),
        target_at=table([(n, p) for n, (_, t) in enumerate(turns) for p, _, _ in t.targets], 2),
        target_ids=torch.tensor([i for _, t in turns for _, i, _ in t.targets]),
        target_weights=torch.tensor([w for _, t in turns for _, _, w in t.targets]),
        fill_at=table([(n, s, i) for n, (_, t) in enumerate(turns) for s, i in t.fills], 3),
        look_at=table([(n, *look) for n, (_, t) in enumerate(turns) for look in t.looks], 4),
        read_at=table([(n, *read) for n, (_, t) in enumerate(turns) for read in t.reads], 2 + len(READ_CLASSES)),
        hop_at=table([(n, *hop) for n, (_, t) in enumerate(turns) for hop in t.hops], 4),
        say_at=table([(n, *say) for n, (_, t) in enumerate(turns) for say in t.says], 3),
        pick_at=table([(n, at, option, option) for n, (_, t) in enumerate(turns) for at, option in t.picks], 4),
        write_at=table([(n, *write) for n, (_, t) in enumerate(turns) for write in t.writes], 3),
        answers=torch.tensor(answers),
    )
