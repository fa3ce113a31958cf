"""Names that people give to jobs, with a note. A tagged job is never tidied away.

One file for each name, `.tags/NAME.json`; it is no part of any result, and losing it loses nothing but the name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.store.files import StoreError, read_note, write_json, writing

FOLDER = ".tags"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Tag:
    """keys: of the jobs that have it. note: a person's words, "" for none. time: Unix seconds of the last change."""

    name: str
    keys: tuple[str, ...]
    note: str
    time: float


def tags(root: Path) -> list[Tag]:
    """Those of a store, by name. What cannot be read is passed over."""
    found = []
    for path in sorted((root / FOLDER).glob("*.json")):
        note = read_note(path)
        if isinstance(note.get("keys"), list):
            found.append(Tag(path.stem, tuple(map(str, note["keys"])), str(note.get("note", "")), float(note.get("time", 0))))
    return found


def write(root: Path, name: str, keys: Iterable[str], note: str) -> Tag:
    """Give these jobs a name, beside those that have it; a new note replaces the old one. Raises StoreError."""
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r}: is no name for a tag; use up to 64 letters, digits, dots, dashes and underscores")
    before = next((tag for tag in tags(root) if tag.name == name), Tag(name, (), "", 0.0))
    tag = Tag(name, tuple(dict.fromkeys((*before.keys, *keys))), note or before.note, time.time())
    with writing(root / FOLDER):
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(root / FOLDER / f"{name}.json", {"keys": tag.keys, "note": tag.note, "time": tag.time})
    return tag


def remove(root: Path, name: str) -> None:
    """Raises StoreError when there is no such tag."""
    path = root / FOLDER / f"{name}.json"
    if name not in [tag.name for tag in tags(root)]:
        known = ", ".join(tag.name for tag in tags(root)) or "none"
        raise StoreError(f"{name}: no such tag; tags: {known}")
    with writing(path):
        path.unlink()
