"""Rows of a data set as a task's code reads them: a picture is decoded when its column is read, and it is known which were read.

The function with which a task shows a row's pictures is pure: for two rows that agree in every column it read, it gives the same
pictures. HR-Bench asks four questions about a picture, in four rows with the same encoded bytes; what was found out about the first
row's picture therefore holds for the other three, whose pictures need not be decoded. Torch-free.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_SHOWN = 16
Decode = Callable[[Any], Any]
_splits: WeakKeyDictionary[Any, tuple[Any, dict[str, Decode]]] = WeakKeyDictionary()


class Document(dict[str, Any]):
    """One row.

    cells: its values; a picture as {"bytes", "path"}. decode: by column, what makes a picture of such a cell.
    """

    def __init__(self, cells: Mapping[str, Any], decode: Mapping[str, Decode], digests: dict[str, bytes | None] | None = None) -> None:
        super().__init__(cells)
        self._cells, self._decode = cells, decode
        self._digests = {} if digests is None else digests
        self.columns_read: set[str] = set()
        self.last_read = ""

    def unread(self) -> Document:
        """The same row, nothing of it read or decoded."""
        return Document(self._cells, self._decode, self._digests)

    def without_picture(self, why: Exception, where: str) -> str:
        """What to say where the column read last gave no picture. where: the row, in words."""
        cell = self._cells.get(self.last_read)
        form = "" if isinstance(cell, (bytes, str)) else ", where {bytes, path} of a picture file is expected"
        if isinstance(cell, Mapping) and cell.keys() == {"bytes", "path"}:
            cell, form = cell["path"] if cell["bytes"] is None else cell["bytes"], ""
        if isinstance(cell, bytes):
            held = f"{len(cell)} bytes that begin with {cell[:_SHOWN]!r}"
        else:
            held = "nothing" if cell is None else f"the {type(cell).__name__} {str(cell)[:_SHOWN]!r}"
        return f"{where}, column {self.last_read}: no readable picture in {held}{form}: {' '.join(str(why).split()) or type(why).__name__}"

    def digest(self, columns: Iterable[str]) -> bytes | None:
        """Of the encoded values of these columns; None where one of them has no encoding to compare."""
        own = [self._digest(column) for column in columns]
        return None if None in own else b"".join(one for one in own if one is not None)

    def _digest(self, column: str) -> bytes | None:
        if column not in self._digests:
            comparable = _comparable(self._cells.get(column))
            self._digests[column] = None if comparable is None else hashlib.blake2b(comparable, digest_size=16).digest()
        return self._digests[column]

    # Whatever reads a value comes through here, copying included: a dict with an __iter__ of its own is copied item by item.
    def __getitem__(self, column: str) -> Any:
        value = super().__getitem__(column)
        self.columns_read.add(column)
        self.last_read = column
        if column in self._decode and value is not None and value is self._cells.get(column):
            value = self._decode[column](value)
            self[column] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, column: str, default: Any = None) -> Any:
        try:
            return self[column]
        except KeyError:
            return default

    def values(self) -> Any:
        return [self[column] for column in self]

    def items(self) -> Any:
        return [(column, self[column]) for column in self]

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def pop(self, column: str, *default: Any) -> Any:
        value = self.get(column)
        super().pop(column, *default)
        return value


class Recollection(Generic[T]):
    """What a pure function of documents gave, found again for every document that agrees in what the function read."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], dict[bytes, T]] = {}

    def of(self, document: Document) -> T | None:
        for columns, kept in list(self._kept.items()):
            digest = document.digest(columns)
            if digest is not None and digest in kept:
                return kept[digest]
        return None

    def keep(self, read: Document, value: T) -> None:
        """read: the document as the function left it."""
        columns = tuple(sorted(read.columns_read))
        if (digest := read.digest(columns)) is not None:
            self._kept.setdefault(columns, {})[digest] = value


def encoded(rows: Any) -> tuple[Any, dict[str, Decode]]:
    """A split of `datasets` whose pictures are read as they lie in the file, and by column what decodes them."""
    from datasets import Image

    pictures = {name: one for name, one in rows.features.items() if isinstance(one, Image) and one.decode}
    if not pictures:
        return rows, {}
    if rows not in _splits:
        undecoded = rows
        for name in pictures:
            undecoded = undecoded.cast_column(name, Image(decode=False))
        _splits[rows] = undecoded, {name: one.decode_example for name, one in pictures.items()}
    return _splits[rows]


def _comparable(value: Any) -> bytes | None:
    """The bytes of a picture, a text, or whatever JSON can write; of a picture in a file of its own, what says that the file is
    the same. None for anything else."""
    if isinstance(value, str):
        return b"text " + value.encode("utf-8", "surrogatepass")
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
        if value["bytes"] is not None:
            return b"picture " + value["bytes"]
        try:
            stat = os.stat(value["path"])
        except (OSError, TypeError):
            return None
        return f"file {value['path']} {stat.st_size} {stat.st_mtime_ns}".encode()
    try:
        return b"value " + json.dumps(value).encode()
    except (TypeError, ValueError):
        return None
