"""Whether a finished job's outputs are unchanged.

The cheap check compares size, times and inode of each file with those at the last check by digest, which are remembered
under .checks/. Where they differ, or nothing is remembered, sha256 decides. A process that loads a job's outputs as its
input asks for digests once on each host: bits may rot without any time changing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.store import done, files, outputs
from harness.store.done import Damaged
from harness.store.records import Record

FEW_MEMBERS = 512
"""Of a folder with more files, only the directories are checked until a job loads it."""
WORTH_SAYING_BYTES = 2**30
ADDED = "was not there when the job was done"


@dataclass(frozen=True)
class Finding:
    """done: the record, when the job is done and whole. damage: one line, or "". neither: the job is not done."""

    done: dict[str, Any] | None = None
    damage: str = ""


NOT_DONE = Finding()


@dataclass
class Note:
    """What the last check by digest saw. stamps: by path below the job's folder. loaded: hosts that compared digests before
    loading. damage: what it found."""

    stamps: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    damage: str = ""

    @classmethod
    def read(cls, path: Path) -> Note:
        """An empty note for one that was not written by `write`."""
        noted, empty = files.read_note(path), cls()
        whole = noted.keys() == vars(empty).keys() and all(type(noted[name]) is type(value) for name, value in vars(empty).items())
        return cls(**noted) if whole else empty

    def write(self, path: Path) -> None:
        """A store that cannot be written is checked by digest each time."""
        try:
            path.parent.mkdir(exist_ok=True)
            files.write_json(path, vars(self), durable=False)
        except OSError:
            pass


def stamp(path: Path | str) -> list[int] | None:
    """Size, times of change (ns) and inode; None where nothing lies. Changes with the content, unless a disk errs."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, stat.S_IFMT(found.st_mode)]


def examine(home: Path, key: str, note_path: Path, *, reader: str = "", afresh: bool = False) -> Finding:
    """Check the job `key` in `home`. reader: the host whose job is about to load the outputs. afresh: by digest in any case."""
    note = Note.read(note_path)
    stamps = {name: stamp(f"{home}/{name}") for name in (done.NAME, "spec.json")}
    if stamps[done.NAME] is None:
        if stamps["spec.json"] is None:
            return NOT_DONE
        # A note belongs to a finished job; `Store.ensure` removes it when a folder starts afresh.
        return Finding(damage=f"{done.NAME} is missing" if note.stamps else unreadable_spec(home, key))
    known = {name: note.stamps.get(name) == stamps[name] for name in stamps}
    try:
        record = done.read(home, key, trusted=known[done.NAME])
    except Damaged as error:
        return Finding(damage=str(error))
    if record is None:
        return NOT_DONE
    if not known["spec.json"] and (damage := unreadable_spec(home, key)):
        return Finding(damage=damage)
    deep = bool(reader)
    members = stamps_of(home, record, deep=deep)
    seen = note.members if deep else note.stamps
    fresh = all(known.values()) and all(seen.get(name) == value for name, value in members.items())
    if fresh and not afresh and (not reader or reader in note.loaded):
        return Finding(damage=note.damage) if note.damage else Finding(record)
    try:
        damage = compare(home, record)
    except OSError as error:
        return Finding(damage=f"{shown(error.filename, home)} cannot be read ({error.strerror})")
    changed = stamps_of(home, record, deep=deep) != members
    if not changed:
        loaded = sorted({*(note.loaded if all(known.values()) else ()), *([reader] if reader else ())})
        remember(home, record, note_path, members if deep else None, loaded if not damage else [], damage)
    return Finding(damage=damage) if damage else Finding(record)


def remember(
    home: Path,
    record: Mapping[str, Any],
    note_path: Path,
    members: dict[str, Any] | None = None,
    loaded: list[str] | None = None,
    damage: str = "",
) -> None:
    """Note that digests were compared just now. members: deep stamps taken before that; None: they have not been taken."""
    stamps = stamps_of(home, record) | {name: stamp(home / name) for name in (done.NAME, "spec.json")}
    Note(stamps, members or {}, loaded or [], damage).write(note_path)


def unreadable_spec(home: Path, key: str) -> str:
    """Why spec.json is not the job's, or ""."""
    if not os.path.lexists(home / "spec.json"):
        return "spec.json is missing"
    try:
        record = Record.read(home)
    except files.StoreError as error:
        return str(error).removeprefix(f"{home}/").removeprefix(f"{home}: ")
    return "" if record.key == key else f"spec.json is that of another job ({record.key[:12]})"


def stamps_of(home: Path, record: Mapping[str, Any], *, deep: bool = False) -> dict[str, Any]:
    """By path below `home`, for everything that the record names. deep: the members of large folders too."""
    out = f"attempts/{record['attempt']}/out"
    found: dict[str, Any] = {out: stamp(f"{home}/{out}")}
    for name, entry in record["outputs"].items():
        many = entry.get("files", 0) > FEW_MEMBERS
        whole = f"{home}/{out}/{name}"
        found[f"{out}/{name}"] = _of_folder(Path(whole), deep or not many) if name.endswith("/") else stamp(whole)
    for number in record.get("curves", {}):
        name = f"attempts/{number}/metrics.jsonl"
        found[name] = stamp(f"{home}/{name}")
    return found


def _of_folder(folder: Path, members: bool) -> Any:
    """One digest for all stamps below a folder; None where there is no folder."""
    if not folder.is_dir() or folder.is_symlink():
        return None
    seen = hashlib.sha256()
    for path, is_folder in _walk(folder):
        seen.update(f"{path} {stamp(Path(path)) if members or is_folder else ''}\n".encode())
    return seen.hexdigest()


def _walk(folder: Path) -> Iterator[tuple[str, bool]]:
    yield str(folder), True
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield entry.path, False


def compare(home: Path, record: Mapping[str, Any]) -> str:
    """The first difference between the record and the files, by digest, or "". Raises OSError for what cannot be read."""
    out = home / "attempts" / str(record["attempt"]) / "out"
    kind = _mode(out)
    if kind is None or not stat.S_ISDIR(kind):
        return f"{shown(out, home)} is {f'{done.what(kind)} instead of a folder' if kind else 'missing'}"
    size = sum(entry.get("bytes", 0) for entry in record["outputs"].values())
    if size > WORTH_SAYING_BYTES:
        print(f"comparing {size / 2**30:.1f} GiB of {home.name} with their digests", file=sys.stderr, flush=True)
    for name, entry in record["outputs"].items():
        if differs := _differs(out / name.rstrip("/"), name, entry):
            return f"{shown(out / name.rstrip('/'), home)} {differs}"
    for found in sorted(os.listdir(out)):
        if not found.startswith(".") and found not in record["outputs"] and f"{found}/" not in record["outputs"]:
            return f"{shown(out / found, home)} {ADDED}"
    for number, entry in record.get("curves", {}).items():
        path = home / "attempts" / number / "metrics.jsonl"
        if differs := _differs(path, path.name, entry, growing=True):
            return f"{shown(path, home)} {differs}"
    return ""


def _differs(path: Path, name: str, entry: Mapping[str, Any], growing: bool = False) -> str:
    """How a file, link or folder differs from its entry, in words. growing: more may have been appended since."""
    mode = _mode(path)
    if mode is None:
        return "is missing"
    if "link" in entry:
        same = stat.S_ISLNK(mode) and os.readlink(path) == entry["link"]
        return "" if same else f"is no longer the link to {entry['link']}"
    if name.endswith("/"):
        if not stat.S_ISDIR(mode):
            return f"is {done.what(mode)} instead of a folder"
        now = outputs.describe_folder(path)
        if now["files"] != entry["files"]:
            return f"holds {now['files']} files, {entry['files']} were written"
        return "" if now["sha256"] == entry["sha256"] else "differs from what was written (sha256 of the folder)"
    if not stat.S_ISREG(mode):
        return f"is {done.what(mode)} instead of a file"
    size = path.stat().st_size
    if size < entry["bytes"] or (size > entry["bytes"] and not growing):
        return f"is empty, {entry['bytes']} bytes were written" if not size else f"has {size} bytes, {entry['bytes']} were written"
    digest = outputs.file_digest(path, entry["bytes"] if growing else None)
    return "" if digest == entry["sha256"] else "differs from what was written (sha256)"


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def shown(path: str | Path, home: Path) -> str:
    """Below the job's folder."""
    text = str(path)
    return text.removeprefix(f"{home}/")
