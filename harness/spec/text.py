"""YAML text to plain data, with the line of every key and value kept, so that an error can say where.

Knows nothing about experiments. Scalars follow YAML 1.2's core schema: `on` and `no` are words, `1e-5` is a number.
Under a verbatim key (`reported`) scalars stay text: 72.0 and 72 are different things to a reader.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from harness.spec.errors import SpecError, dotted

VERBATIM = frozenset({"reported"})

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
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
    """A file that states only what it changes in another: its data over the other's, key by key."""

    under: Document = field(kw_only=True)

    def owner(self, *path: str | int) -> Document:
        below = self.under.owner(*path)
        return below if _depth(below, path) > _depth(self, path) else self


def layered(over: Document, under: Document) -> Layered:
    """`over` on top of `under`. Mappings are merged by key; a list or scalar replaces what it covers, and so does a mapping
    of another kind or source, whose fields would mean nothing beside the old ones."""
    return Layered(over.path, _merged(over.data, under.data), over.lines, under=under)


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
    try:
        return parse(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise SpecError(f"{shown(path)}: is not UTF-8 text (byte {error.start})") from None


def parse(text: str, path: Path) -> Document:
    """`read` for text already at hand."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{shown(path)}:{mark.line + 1}" if mark else shown(path)
        raise SpecError(f"{where}: YAML syntax: {_syntax(error, text)}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{shown(path)}: YAML syntax: {' '.join(str(error).split())}") from None
    if node is None:
        raise SpecError(f"{shown(path)}: is empty")
    lines: dict[tuple[str | int, ...], int] = {}
    data = _construct(node, (), lines, shown(path), verbatim=False)
    return Document(path, data, lines)


def scalar(text: str) -> Any:
    """A plain scalar's value: null, a boolean, an integer, a float, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _construct(node: yaml.Node, at: tuple, lines: dict, file: str, verbatim: bool) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        plain = not node.style and not verbatim  # libyaml writes "" where the Python parser writes None
        return scalar(node.value) if plain else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*at, i), lines, file, verbatim) for i, child in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise SpecError(f"{file}:{line}: a key must be a word, not a list or mapping")
        key = key_node.value
        if key in result:
            raise SpecError(f'{file}:{line}: "{key}" is given twice (first on line {lines[(*at, key)]}); keep one')
        lines[(*at, key)] = line
        result[key] = _construct(value_node, (*at, key), lines, file, verbatim or key in VERBATIM)
    return result


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """One line: what the parser met, with the offending line quoted and the usual causes named."""
    problem = " ".join(filter(None, [error.problem, error.context])).replace("\n", " ")
    mark = error.problem_mark or error.context_mark
    rows = text.splitlines()
    if mark is None or mark.line >= len(rows):
        return f"{problem} (is a bracket, brace or quote left open?)"
    row = rows[mark.line]
    if "\t" in row[: len(row) - len(row.lstrip())]:
        return "a tab in the indentation; use spaces"
    return f"{problem}, in `{row.strip()[:60]}` (a text that holds `: `, `#`, or begins with a bracket needs quotes)"
