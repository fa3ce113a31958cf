"""Streaming reader of annotation files: one JSON list, several lists one after the other (`cat a.json b.json`), JSON Lines,
or a mix of these, with or without a byte order mark. Knows nothing of what an entry means."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 22
_GAP = re.compile(r"[\s,]*")
_MARK = "\ufeff"


class DataError(ValueError):
    """A file of the data set cannot be used: the message names file, entry, field and remedy."""


def entries(path: Path) -> Iterator[tuple[int, int, Any]]:
    """(first byte, bytes, parsed) of every entry, in order. DataError names file, entry and byte.

    Every byte of the file is accounted for: text between or after the lists that is no entry is an error.
    """
    decoder, scan = codecs.getincrementaldecoder("utf-8")(), json.JSONDecoder().raw_decode
    text, position, offset, number, ended = "", 0, 0, 0, False

    def fail(why: str) -> DataError:
        return DataError(
            f"{path}: entry {number}, near byte {offset}: {why}; the file must be a JSON list of objects, or JSON Lines"
        )

    with path.open("rb") as file:

        def more() -> None:
            nonlocal text, position, ended
            chunk = file.read(CHUNK_BYTES)
            ended = not chunk
            try:
                text, position = text[position:] + decoder.decode(chunk, final=ended), 0
            except UnicodeDecodeError as error:
                raise fail(f"not UTF-8 ({error.reason})") from None

        def skip() -> None:
            nonlocal position, offset
            while True:
                end = _GAP.match(text, position).end()
                offset += end - position
                position = end
                if position < len(text) or ended:
                    return
                more()

        skip()
        if text.startswith(_MARK, position):
            position, offset = position + 1, offset + len(_MARK.encode())
        listed = empty = False
        while True:
            skip()
            if position >= len(text):
                if listed:
                    raise fail("the list is not closed: the file is cut off")
                if not (number or empty):
                    raise fail("the file is empty")
                return
            if text[position] == "]" and listed:
                listed, empty, position, offset = False, True, position + 1, offset + 1
                continue
            if not listed and text[position] != "{":
                if text[position] != "[":
                    raise fail(f"expected '[' or an object, found {text[position : position + 20]!r}")
                listed, position, offset = True, position + 1, offset + 1
                continue
            while True:
                try:
                    value, end = scan(text, position)
                    break
                except json.JSONDecodeError as error:
                    cut = error.msg.startswith("Unterminated string") or error.pos >= len(text) - 16
                    if ended or not cut:
                        raise fail(f"{error.msg} (character {error.pos - position} of the entry)") from None
                    more()
                except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
                    raise fail(str(error).split(";")[0]) from None
            size = len(text[position:end].encode())
            yield offset, size, value
            position, offset, number = end, offset + size, number + 1
