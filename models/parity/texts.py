"""The stand-in tokenizer of the LVR and VisReflect references: a byte's id is its value, named tokens have ids of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping


class ByteTokenizer:
    """ids: text of every named token -> its id. Called as a transformers tokenizer is."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = {text: value for text, value in ids.items() if isinstance(value, int)}
        names = sorted(self.ids, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)))

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        found, at = [], 0
        for match in self._names.finditer(text):
            found += [*text[at : match.start()].encode(), self.ids[match.group()]]
            at = match.end()
        return {"input_ids": [*found, *text[at:].encode()]}

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)
