"""Prompts that were read before: another decoding of them, or another question about the same pictures, goes on from there.

Kept in main memory, within a limit that the profile's memory gives. Two kinds: short prompts by the batch that they were
read in; of long prompts only the beginning up to the last picture, which all questions about these pictures share, whatever
the protocol. What follows it is a few dozen tokens and is read again for each decoding.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.latent.prefill import Prefill, Prefix, read
from models.latent.prompt import Prompt

if TYPE_CHECKING:
    from models.backbone.model import Backbone
    from models.backbone.tokens import SpecialTokens
    from models.config import Images
    from models.evaluation.engine import Question

SHORTEST_PREFIX = 512
"""Tokens. Below it, copying what was read costs about as much as reading it."""
PASSING = 0.25
"""Share of the room for prefixes that are forgotten again, the longest unused first."""
SHARE_OF_FEATURES, SHARE_OF_PREFILLS = 0.25, 0.5
"""Of the memory that is left once a model is loaded. Features serve every checkpoint with this tower, so they must fit all
together: what is forgotten between two checkpoints is encoded again for each."""
LEAST_LEFT = 0.125
"""Share of all memory that counts as left, however much is in use: a guess of the profile's that is a little too small must
not make an evaluation read everything again and again."""


def resident_bytes() -> int:
    """Main memory that this process takes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rooms(memory_bytes: float, taken_bytes: float) -> tuple[int, int]:
    """Bytes for (features of pictures, prefills) of a process that may take `memory_bytes` and has a model loaded, with which
    it takes `taken_bytes`."""
    left = max(LEAST_LEFT * memory_bytes, memory_bytes - taken_bytes)
    return int(SHARE_OF_FEATURES * left), int(SHARE_OF_PREFILLS * left)


class Prefills:
    """What was read of one checkpoint.

    Decodings pass over the questions again and again in the same order. So what is kept stays until `clear` or
    `forget_batches`: forgetting the longest unused would leave a second pass nothing. When that room is full, further prefixes
    stay only until newer ones need the rest of the room, which is long enough for questions about one picture, because they
    are asked one soon after another.

    capacity_bytes: of everything. device: where it is kept. reader: reads prompts; `models.latent.prefill.read`.
    """

    def __init__(self, capacity_bytes: int, device: str = "cpu", reader: Callable[..., Prefill] = read) -> None:
        self.device, self.reader = device, reader
        self.limit(capacity_bytes)

    def limit(self, capacity_bytes: int) -> None:
        """Forget everything, and keep at most so much from now on."""
        self.capacity_bytes = capacity_bytes
        self.clear()

    def clear(self) -> None:
        self._batches: dict[tuple[Question, bool], tuple[Prefill, int, tuple[Question, ...]]] = {}
        """(question, forced) → prefill, its row there, the questions that it was read with."""
        self._batch_bytes = 0
        self._staying: dict[Any, Prefix] = {}
        self._staying_bytes = 0
        self._passing: OrderedDict[Any, Prefix] = OrderedDict()
        self._passing_bytes = 0

    def forget_batches(self) -> None:
        """Other questions come; they may be about the same pictures."""
        self._batches.clear()
        self._batch_bytes = 0

    def of(
        self,
        model: Backbone,
        questions: Sequence[Question],
        prompts: list[Prompt],
        forced: bool,
        tokens: SpecialTokens,
        images: Images,
        parts: Sequence[int] | None = None,
    ) -> Prefill:
        """These questions, read; prompts: theirs. parts: numbers of consecutive questions that are read at once; None: all.

        What was kept of a question is taken if it was read with the same others, so that not a digit depends on what was kept.
        """
        sizes = parts or [len(questions)]
        pieces: list[tuple[Prefill, list[int]]] = []
        rows: dict[tuple[Question, bool], tuple[int, tuple[Question, ...]]] = {}
        for size, end in zip(sizes, accumulate(sizes)):
            part = tuple(questions[end - size : end])
            if (held := self._held(part, forced)) is not None:
                pieces += held
                continue
            own = prompts[end - size : end]
            begun = self._begun(model, part, own, tokens, images)
            pieces.append((self.reader(model, own, forced, tokens, begun), list(range(size))))
            if not any(begun):
                rows |= {(question, forced): (row, part) for row, question in enumerate(part, end - size)}
        prefill = Prefill.joined([piece.rows(kept).to(model.device) for piece, kept in _merged(pieces)])
        if len(rows) == len(questions) and prefill.nbytes <= self._left:
            staying = prefill.to(self.device)
            self._batch_bytes += staying.nbytes
            self._batches |= {key: (staying, *where) for key, where in rows.items()}
        return prefill

    def _held(self, part: tuple[Question, ...], forced: bool) -> list[tuple[Prefill, list[int]]] | None:
        """Where these questions are, if they were read together."""
        held = [self._batches.get((question, forced)) for question in part]
        if any(one is None or one[2] != part for one in held):
            return None
        return [(prefill, [row]) for prefill, row, _ in held]

    @property
    def _left(self) -> float:
        """Bytes for what stays."""
        return (1 - PASSING) * self.capacity_bytes - self._batch_bytes - self._staying_bytes

    def _begun(
        self, model: Backbone, questions: Sequence[Question], prompts: list[Prompt], tokens: SpecialTokens, images: Images
    ) -> list[Prefix | None]:
        """Each question's prefix, where it has one that is worth keeping; those not known are read, each once."""
        most = PASSING * self.capacity_bytes // bytes_of_token(model)
        lengths = [_shared_tokens(prompt, tokens) for prompt in prompts]
        keys = [
            (question.input_ids[:length].numpy().tobytes(), question.images, question.reader, images) if SHORTEST_PREFIX <= length <= most else None
            for question, length in zip(questions, lengths, strict=True)
        ]
        held = {key: self._get(key) for key in keys if key is not None}
        new = {key: at for at, key in enumerate(keys) if key is not None and held[key] is None}
        if new:
            beginnings = [replace(prompts[at], input_ids=prompts[at].input_ids[: lengths[at]]) for at in new.values()]
            for key, prefix in zip(new, self.reader(model, beginnings, False, tokens).prefixes(self.device), strict=True):
                held[key] = prefix
                self._put(key, prefix)
        return [None if key is None else held[key] for key in keys]

    def _get(self, key: Any) -> Prefix | None:
        if key in self._passing:
            self._passing.move_to_end(key)
            return self._passing[key]
        return self._staying.get(key)

    def _put(self, key: Any, prefix: Prefix) -> None:
        if prefix.nbytes <= self._left:
            self._staying[key] = prefix
            self._staying_bytes += prefix.nbytes
            return
        self._passing[key] = prefix
        self._passing_bytes += prefix.nbytes
        while self._passing_bytes > PASSING * self.capacity_bytes:
            self._passing_bytes -= self._passing.popitem(last=False)[1].nbytes


def _merged(pieces: Sequence[tuple[Prefill, list[int]]]) -> list[tuple[Prefill, list[int]]]:
    """Consecutive rows of one prefill as one piece."""
    merged: list[tuple[Prefill, list[int]]] = []
    for prefill, rows in pieces:
        if merged and merged[-1][0] is prefill:
            merged[-1][1].extend(rows)
        else:
            merged.append((prefill, [*rows]))
    return merged


def _shared_tokens(prompt: Prompt, tokens: SpecialTokens) -> int:
    """Tokens of a prompt up to the end of its last picture or clip."""
    seen = ((prompt.input_ids == tokens.image) | (prompt.input_ids == tokens.video)).nonzero()
    return int(seen[-1]) + 1 if len(seen) else 0


def bytes_of_token(model: Backbone) -> int:
    """Keys and values of one token in all layers."""
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * width * torch.empty(0, dtype=model.dtype).element_size()
