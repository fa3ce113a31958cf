"""What an answer may say: a beginning that is put into its mouth, then letters alone; and no run of ids twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any


@dataclass(frozen=True)
class Script:
    """Ids of an answer's beginning and end."""

    prefix: tuple[int, ...]
    end: int

    @classmethod
    def of(cls, tokenizer: Any, prefix: str) -> Script:
        return cls(tuple(_ids(tokenizer, prefix)), tokenizer.convert_tokens_to_ids("<|im_end|>"))

    def allowed(self, said: int, letters: Sequence[int] | None) -> Sequence[int] | None:
        """Ids that may come after so many; None: any. letters: None for an answer that is free behind the beginning."""
        if said < len(self.prefix):
            return self.prefix[said : said + 1]
        if letters is None:
            return None
        return letters if said == len(self.prefix) else (self.end,)


def letter_ids(tokenizer: Any, letters: Sequence[str], prefix: str) -> tuple[int, ...]:
    """Of each letter as it follows the beginning, its first id. Raises ValueError where two share one, or the beginning's own
    ids change before a letter."""
    begun, found = _ids(tokenizer, prefix), []
    for letter in letters:
        ids = _ids(tokenizer, f"{prefix} {letter}")
        if ids[: len(begun)] != begun or len(ids) == len(begun):
            raise ValueError(f"the tokenizer does not write {letter!r} behind {prefix!r}; use answer: free")
        found.append(ids[len(begun)])
    if len(set(found)) < len(found):
        raise ValueError(f"letters {', '.join(letters)} begin with the same token behind {prefix!r}; use answer: free")
    return tuple(found)


def listed_letters(text: str) -> list[str]:
    """The option letters that a question lists at the heads of its lines ("A. …", "(A) …", "A) …", "A: …"), from A on without
    a gap."""
    heads = set(re.findall(r"^\s*\(?([A-Z])[.):]", text, re.MULTILINE))
    return list(takewhile(heads.__contains__, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def repeating(ids: Sequence[int], size: int) -> set[int]:
    """Ids that would end a run of `size` that `ids` holds already."""
    if size < 1 or len(ids) < size:
        return set()
    last = list(ids[len(ids) - size + 1 :]) if size > 1 else []
    return {ids[at + size - 1] for at in range(len(ids) - size + 1) if list(ids[at : at + size - 1]) == last}


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
