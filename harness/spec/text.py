"""YAML text to plain data, with the line of every key and value kept, so that an error can say where.

Knows nothing about experiments. Scalars follow YAML 1.2's core schema: `on` and `no` are words, `1e-5` is a number. What
YAML's versions read differently is no number here: `010`, `1_000`, `0x10`, `1:30`, `.inf`, `.nan`. Under a verbatim key
(`reported`) scalars stay text: 72.0 and 72 are different things to a reader.

Data are built from the parser's events, never by recursion, and within limits: a file from elsewhere costs a line.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NoReturn

import yaml

from harness.characters import QUOTES, invisible, lookalike, named
from harness.spec.errors import SpecError, dotted

VERBATIM = frozenset({"reported"})
LARGEST_BYTES = 2**20
DEEPEST = 40
"""Lists and mappings inside one another."""
MOST_VALUES = 50_000
"""Keys and values of a file, each alias counted as all that it stands for."""
LONGEST_TEXT = 20_000
"""Characters of one value."""
MOST_DIGITS = 30
"""Of a number."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ZERO = re.compile(r"[-+]?[0.]+([eE].*)?")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class Document:
    """One file's data, and where each path in it stands (1-based lines)."""

    path: Path
    data: Any
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)

    @cached_property
    def name(self) -> str:
        """The file as a person would type it: relative when it lies below the working directory."""
        return shown(self.path)

    def line(self, *path: str | int) -> int:
        """The line of the path, or of its nearest ancestor that is written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def owner(self, *path: str | int) -> Document:
        """The file in which the path, or its nearest ancestor, is written."""
        return self

    def where(self, *path: str | int) -> str:
        """`file:line` of the path."""
        owner = self.owner(*path)
        return f"{owner.name}:{owner.line(*path)}"

    def place(self, path: tuple[str | int, ...], message: str = "") -> str:
        """`file:line: field`: how an error about the path begins."""
        return f"{self.where(*path)}: {dotted(path)}" if path else self.where()


TAGS = ("kind", "source")
"""Keys that say which schema a mapping's others belong to."""


@dataclass(frozen=True)
class Layered(Document):
    """A file that states only what it changes in another: its data over the other's, key by key. own: what it states itself."""

    under: Document = field(kw_only=True)
    own: Any = field(kw_only=True)

    def owner(self, *path: str | int) -> Document:
        below = self.under.owner(*path)
        return below if _depth(below, path) > _depth(self, path) else self


def layered(over: Document, under: Document) -> Layered:
    """`over` on top of `under`. Mappings are merged by key; a list or scalar replaces what it covers, and so does a mapping
    of another kind or source, whose fields would mean nothing beside the old ones."""
    return Layered(over.path, _merged(over.data, under.data), over.lines, under=under, own=over.data)


def layers(document: Document) -> list[tuple[Document, Any]]:
    """(document, what it states itself), the one under all others first."""
    if isinstance(document, Layered):
        return [*layers(document.under), (document, document.own)]
    return [(document, document.data)]


def mapping(data: Any, name: str) -> dict[str, Any]:
    """What a file states under this name, if it is a mapping."""
    return found if isinstance(found := data.get(name), dict) else {}


def _merged(over: Any, under: Any) -> Any:
    both = isinstance(over, dict) and isinstance(under, dict)
    if not both or any(tag in over and over[tag] != under.get(tag) for tag in TAGS):
        return over
    return under | {key: _merged(value, under[key]) if key in under else value for key, value in over.items()}


def _depth(document: Document, path: tuple[str | int, ...]) -> int:
    """How much of the path is written there."""
    return next((n for n in range(len(path), 0, -1) if path[:n] in document.lines), 0)


def shown(path: Path) -> str:
    """The path relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def read(path: Path) -> Document:
    """The file's data with lines. Raises SpecError for a missing file, YAML syntax, duplicate keys."""
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise SpecError(f"{shown(path)}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=256)
def _read(path: Path, mtime_ns: int, size: int) -> Document:
    """Once for each state of a file: several experiments share recipe, profile and benchmarks."""
    if not path.is_file():
        raise SpecError(f"{shown(path)}: is not a regular file; name a YAML file")
    if size > LARGEST_BYTES:
        raise SpecError(f"{shown(path)}: has {size} bytes; a file of this kind has at most {LARGEST_BYTES}")
    try:
        return parse(path.read_text(encoding="utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise SpecError(f"{shown(path)}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def parse(text: str, path: Path) -> Document:
    """`read` for text already at hand. Raises SpecError, one line that names file and line."""
    for number, row in enumerate(text.split("\n"), start=1):
        if bad := next((c for c in row if c < " " and c not in "\t\r"), ""):
            raise SpecError(f"{shown(path)}:{number}: holds {named(bad)}; remove it")
    builder = _Builder(shown(path))
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{shown(path)}:{mark.line + 1}" if mark else shown(path)
        raise SpecError(f"{where}: YAML syntax: {_syntax(error, text)}") from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise SpecError(f"{shown(path)}: YAML syntax: {' '.join(str(error).split())}") from None
    if not builder.documents or builder.empty:
        raise SpecError(f"{shown(path)}: is empty")
    return Document(path, builder.root, builder.lines)


def scalar(text: str) -> Any:
    """A plain scalar's value: null, a boolean, an integer, a float, or the text itself.

    ValueError for a number with too many digits, or one too large or too small for a float.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    whole = _INTEGER.fullmatch(text)
    if not whole and not _FLOAT.fullmatch(text):
        return text
    if (digits := sum(c.isdigit() for c in text)) > MOST_DIGITS:
        raise ValueError(f"a number of {digits} digits; write at most {MOST_DIGITS}")
    value = int(text) if whole else float(text)
    if whole and abs(value) > 2**53:
        raise ValueError(f"{text} is too large; a whole number here is at most 2^53")
    if math.isinf(value) or (not value and not _ZERO.fullmatch(text)):
        raise ValueError(f"{text} is too {'large' if value else 'small'} for a number here (1e-308 to 1e308)")
    return value


@dataclass
class _Open:
    """A list or mapping whose end has not come. size: values in it so far, itself included."""

    value: list[Any] | dict[str, Any]
    at: tuple[str | int, ...]
    anchor: str | None
    verbatim: bool
    key: str | None = None
    size: int = 1


class _Builder:
    """Plain data from events. `lines`: path → 1-based line of its key, or of the value in a list."""

    def __init__(self, file: str) -> None:
        self.file, self.root, self.documents, self.empty = file, None, 0, False
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.values = 0

    def fail(self, event: yaml.Event, message: str) -> NoReturn:
        raise SpecError(f"{self.file}:{event.start_mark.line + 1}: {message}")

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.fail(event, "a second document begins (---); keep one in a file")
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self.open.pop()
            if self.open:
                self.open[-1].size += done.size - 1
            if done.anchor:
                self.anchors[done.anchor] = (done.value, done.size)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if any(one.anchor == event.anchor for one in self.open):
            self.fail(event, f"*{event.anchor} refers to a value that contains it (&{event.anchor}); write the value out")
        if event.anchor not in self.anchors:
            self.fail(event, f"*{event.anchor}: no &{event.anchor} above it (a text that begins with * needs quotes)")
        value, size = self.anchors[event.anchor]
        if self._is_key():
            if not isinstance(value, str):
                self.fail(event, "a key must be a word, not a list or mapping")
            self._key(value, event)
        else:
            self._count(event, size)
            self._put(value, event)
            if self.open:
                self.open[-1].size += size - 1

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._tag(event)
        text: str = event.value
        if len(text) > LONGEST_TEXT:
            self.fail(event, f"a value of {len(text)} characters; write at most {LONGEST_TEXT}")
        if bad := invisible(text):
            self.fail(event, f"holds {bad}, which is invisible; replace it by the character you meant (a space?)")
        if not event.style and len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES:
            self.fail(event, f"stands in {named(text[0])}, which is not a quotation mark in YAML; use \" or '")
        if self._is_key():
            self._key(text, event)
            value: Any = text
        else:
            if not self.open and not text and not event.style:
                self.empty = True
            verbatim = bool(self.open) and (self.open[-1].verbatim or self.open[-1].key in VERBATIM)
            try:
                value = text if event.style or verbatim else scalar(text)  # libyaml writes "" for a plain style
            except ValueError as error:
                self.fail(event, str(error))
            self._count(event, 1)
            self._put(value, event)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        self._tag(event)
        if self._is_key():
            self.fail(event, "a key must be a word, not a list or mapping")
        if len(self.open) >= DEEPEST:
            self.fail(event, f"more than {DEEPEST} lists and mappings inside one another")
        self._count(event, 1)
        value: list[Any] | dict[str, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        parent = self.open[-1] if self.open else None
        verbatim = parent is not None and (parent.verbatim or parent.key in VERBATIM)
        at = self._put(value, event)
        self.open.append(_Open(value, at, event.anchor, verbatim))

    def _is_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None

    def _key(self, key: str, event: yaml.Event) -> None:
        here, line = self.open[-1], event.start_mark.line + 1
        assert isinstance(here.value, dict)
        if key in here.value:
            self.fail(event, f'"{key}" is given twice (first on line {self.lines[(*here.at, key)]}); keep one')
        self.lines[(*here.at, key)] = line
        here.key = key

    def _put(self, value: Any, event: yaml.Event) -> tuple[str | int, ...]:
        """Into what is open; the path where it stands."""
        at: tuple[str | int, ...] = ()
        if not self.open:
            self.root = value
        else:
            here = self.open[-1]
            here.size += 1
            if isinstance(here.value, list):
                at = (*here.at, len(here.value))
                here.value.append(value)
            else:
                assert here.key is not None
                at = (*here.at, here.key)
                here.value[here.key], here.key = value, None
        self.lines.setdefault(at, event.start_mark.line + 1)
        return at

    def _count(self, event: yaml.Event, values: int) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            self.fail(event, f"more than {MOST_VALUES} values, aliases written out; no experiment needs as many")

    def _tag(self, event: Any) -> None:
        if event.tag:
            self.fail(
                event, f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')[:40]} is not read here; leave it out"
            )


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """One line: what the parser met, with the offending line quoted and the usual causes named."""
    problem = " ".join(filter(None, [error.problem, error.context])).replace("\n", " ")
    mark = error.problem_mark or error.context_mark
    rows = text.splitlines()
    if mark is None or mark.line >= len(rows):
        return f"{problem} (is a bracket, brace or quote left open?)"
    row = rows[mark.line]
    if odd := lookalike(row.partition(" #")[0]):
        return f"{problem}; the line holds {odd}, which only looks like YAML syntax"
    if "\t" in row[: len(row) - len(row.lstrip())]:
        return "a tab in the indentation; use spaces"
    return f"{problem}, in `{row.strip()[:60]}` (a text that holds `: `, `#`, or begins with a bracket needs quotes)"
