"""How likely each option letter was where a model answered: from the forward passes that wrote the answer, no other.

**The answer position** is one token of the response:

- the *last* token that writes the letter which the strict reader (`extract.read_strict`) takes from the response, and no other
  letter or digit: " B" in "<answer> B </answer>", "B" in "(B)" or "Answer: B". The last, because a chain of thought
  may name every option before it decides.
- where the reader takes no letter, or takes it from an option's words ("red"), or the letter is part of a longer token: the first
  token with visible text, special tokens aside, of what the reader reads (the last `<answer>` block, else the response
  without its thoughts): where a letter would have stood.
- where there is no such token either (an empty answer): the last token, at which the model ended instead of answering.

So every decoded answer has one, readable or not, and no question drops out because a model failed on it.

**A letter's probability** there is the sum over all tokens that write this letter and no other letter or digit ("B", " B",
"(B", "B."), in the case of the letter that was written, else in upper case. It is the model's own: before a
repetition penalty, and before tokens that a protocol forbids.

Two numbers are made of it (`of_right`). *Over the options*: log of the right letter's share among the question's option
letters. This is the metric: it asks what the model knows, whether or not it is about to write a letter at all. *Over the
vocabulary*: log of the probability itself; beside the first it says how much is lost to other forms.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.evaluation.extract import place_to_read, read_strict

if TYPE_CHECKING:
    from torch import Tensor

LETTERS = string.ascii_uppercase + string.ascii_lowercase
LOGITS_AT_ONCE = 1 << 18
"""1 MB in fp32: temporary tensors of this size stay in a CPU's caches."""
DIGITS = 6
"""Decimals that are stored."""


@dataclass(frozen=True)
class AnswerLetters:
    """logs: log-probabilities (nats) of A, B, … at the answer position; None for a letter that no token writes. written: whether the
    token there is the letter that was read. least: for an endpoint that lists only the likeliest tokens, the log-probability of
    the last one listed, which an unlisted letter cannot exceed."""

    logs: tuple[float | None, ...]
    written: bool
    least: float | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any] | None) -> AnswerLetters | None:
        """From the JSON that `asdict` gives."""
        return None if found is None else cls(tuple(found["logs"]), found["written"], found.get("least"))


def of_right(letters: AnswerLetters | None, target: str, options: int) -> dict[str, Any]:
    """The fields of a sample: `loglik` (over the options) and `loglik_vocabulary` in nats, `letter_written`, and where an
    endpoint did not list a letter, `loglik_bound`: then what it did list bounds the two. {} where nothing is known.

    target: the right letter, upper case. options: how many the question has.
    """
    if letters is None or len(target) != 1 or target not in LETTERS[:options] or options > 26:
        return {}
    logs = letters.logs[:options]
    unlisted = [log is None for log in logs]
    known = [letters.least if log is None else log for log in logs]
    if any(log is None for log in known):
        return {}
    right = known[LETTERS.index(target)]
    most = max(known)
    whole = most + math.log(sum(math.exp(log - most) for log in known))
    found = {"loglik": round(right - whole, DIGITS), "loglik_vocabulary": round(right, DIGITS), "letter_written": letters.written}
    return found | ({"loglik_bound": True} if any(unlisted) else {})


def lone_letter(text: str) -> str:
    """The letter that a token writes, if it is the only letter or digit in it; else ""."""
    written = [c for c in text if c.isalnum()]
    return written[0] if len(written) == 1 and written[0] in LETTERS else ""


def answer_position(pieces: Sequence[str], special: Sequence[bool]) -> tuple[int, bool]:
    """(index of the answer position, whether the letter that was read stands there).

    pieces: the response's tokens as text. special: which of them are special tokens. ValueError for no token at all.
    """
    if not pieces:
        raise ValueError("a response without tokens has no answer position")
    response = "".join(pieces)
    start, end = place_to_read(response)
    letter = read_strict(response, 26)
    at, inside = 0, []
    for index, piece in enumerate(pieces):
        if at < end and at + len(piece) > start and not special[index]:
            inside.append(index)
        at += len(piece)
    writing = [index for index in inside if letter and lone_letter(pieces[index]).upper() == letter]
    if writing:
        return writing[-1], True
    return next((index for index in inside if pieces[index].strip()), len(pieces) - 1), False


def listed_letters(tokens: Sequence[tuple[str, Mapping[str, float]]]) -> AnswerLetters | None:
    """From what an endpoint returns with `logprobs`: each token's text and the log-probabilities of the likeliest tokens there.
    None where it listed nothing."""
    if not tokens or not all(likeliest for _, likeliest in tokens):
        return None
    pieces = [text for text, _ in tokens]
    index, written = answer_position(pieces, [piece.startswith("<|") and piece.endswith("|>") for piece in pieces])
    small = 26 * (written and lone_letter(pieces[index]).islower())
    shares = dict.fromkeys(LETTERS[small : small + 26], 0.0)
    for text, log in tokens[index][1].items():
        if (letter := lone_letter(text)) in shares:
            shares[letter] += math.exp(log)
    logs = tuple(round(math.log(share), DIGITS) if share else None for share in shares.values())
    return AnswerLetters(logs, written, least=round(min(tokens[index][1].values()), DIGITS))


class LetterTokens:
    """Which tokens of a vocabulary write which letter. Called with logits, it keeps what `at` needs later."""

    def __init__(self, tokenizer: Any) -> None:
        import torch

        self.special = frozenset(tokenizer.all_special_ids) | frozenset(tokenizer.added_tokens_decoder)
        by_letter: dict[str, list[int]] = {letter: [] for letter in LETTERS}
        for token, text in enumerate(tokenizer.batch_decode([[token] for token in range(len(tokenizer))])):
            if token not in self.special and (letter := lone_letter(text)):
                by_letter[letter].append(token)
        self.known = [bool(tokens) for tokens in by_letter.values()]
        longest = max(map(len, by_letter.values()), default=0) or 1
        self.ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in by_letter.values()])
        self.padding = torch.tensor([[False] * len(tokens) + [True] * (longest - len(tokens)) for tokens in by_letter.values()])

    def __call__(self, logits: Tensor) -> Tensor:
        """[k, V] logits -> [k, 52] log-probabilities of a…z and A…Z in `LETTERS`' order, -inf for a letter that no token writes."""
        import torch

        self.ids, self.padding = self.ids.to(logits.device), self.padding.to(logits.device)
        parts = logits.split(max(1, LOGITS_AT_ONCE // logits.shape[-1]))
        whole = torch.cat([part.float().logsumexp(-1, keepdim=True) for part in parts])
        found = logits[:, self.ids].float().masked_fill(self.padding, -math.inf)
        return found.logsumexp(-1) - whole

    def at(self, kept: Tensor, kept_at: Sequence[int], pieces: Sequence[str], special: Sequence[bool]) -> AnswerLetters | None:
        """kept: [n, 52], of the tokens kept_at, in order. None where the answer position is a token that was not the model's."""
        if not len(kept_at):
            return None
        index, written = answer_position(pieces, special)
        if index not in kept_at:
            return None
        small = 26 * (written and lone_letter(pieces[index]).islower())
        row = kept[list(kept_at).index(index), small : small + 26].tolist()
        known = self.known[small : small + 26]
        return AnswerLetters(tuple(round(log, DIGITS) if one else None for log, one in zip(row, known, strict=True)), written)
