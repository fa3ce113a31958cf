"""Whether a finished job's outputs are unchanged.

The cheap check compares size, times and inode of each file with those at the last check by digest, which are remembered
under .checks/, and takes what DONE.json says from there. Where they differ, or nothing is remembered, the files themselves are
read and sha256 decides. A process that loads a job's outputs as its input asks for that once on each host: bits may rot without
any time changing.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.store import done, files, outputs
from harness.store.done import Damaged
from harness.store.records import Record

FEW_MEMBERS = 512
"""Of a folder with more files, only the directories are checked until a job loads it."""
WORTH_SAYING_BYTES = 2**30
ADDED = "was not there when the job was done"
WRITTEN, CHANGED = 1, 2
"""Where a stamp has the time of the last writing, and that of the last change, which no program can set back."""
COARSE_NS, HASTY_NS = 10**9, 2 * 10**9
"""Some file systems count times in whole seconds (Lustre among them), some in steps of two."""


@dataclass(frozen=True)
class Finding:
    """done: the record, when the job is done and whole. damage: one line, or "". neither: the job is not done."""

    done: dict[str, Any] | None = None
    damage: str = ""


NOT_DONE = Finding()


@dataclass
class Note:
    """What the last check by digest saw. stamps: by path below the job's folder. loaded: hosts that compared digests before
    loading. damage: what it found. record: DONE.json, as it was when its checksum was compared."""

    stamps: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    damage: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    written_ns: int = field(default=0, compare=False)
    """By the file system's clock."""

    @classmethod
    def read(cls, path: Path | str) -> Note:
        """An empty note for one that was not written by `write`, or has changed since. Notes of earlier versions have no record, and no
        seal, which guards it."""
        try:
            content, written_ns = files.read_bytes(path)
            noted = json.loads(content.decode())
            if (seal := noted.pop("seal", None)) is None:
                noted["record"] = {}
            elif seal != hashlib.sha256(content[_BODY:]).hexdigest():
                return cls()
        except (OSError, ValueError, RecursionError, AttributeError, TypeError):
            return cls()
        whole = noted.keys() == _TYPES.keys() and all(type(noted[name]) is kind for name, kind in _TYPES.items())
        return cls(**noted, written_ns=written_ns) if whole else cls()

    def write(self, path: Path | str) -> None:
        """A store that cannot be written is checked by digest each time."""
        content = json.dumps({name: getattr(self, name) for name in _TYPES}, ensure_ascii=False).encode()[1:]
        try:
            Path(path).parent.mkdir(exist_ok=True)
            files.replace_bytes(Path(path), _sealed(hashlib.sha256(content).hexdigest()) + content)
        except OSError:
            pass

    def proves(self, stamps: Mapping[str, Any]) -> bool:
        """Whether these files are as they were when it was written. Where times are whole seconds, a file may be changed twice in one
        second, so a note that is hardly younger than a file proves nothing about it."""
        return all(self.stamps.get(name) == value and not self.hasty(value) for name, value in stamps.items())

    def hasty(self, stamp: Any) -> bool:
        """Whether the file may have changed after the note was written and have the same stamp."""
        changed = stamp[CHANGED] if type(stamp) is list else stamp["changed"] if type(stamp) is dict else 1
        return not changed % COARSE_NS and changed + HASTY_NS > self.written_ns


_TYPES = {name: type(value) for name, value in vars(Note()).items() if name != "written_ns"}


def _sealed(digest: str) -> bytes:
    """How a note begins; its other fields follow."""
    return f'{{"seal": "{digest}", '.encode()


_BODY = len(_sealed("0" * 64))


def stamp(path: Path | str) -> list[int] | None:
    """Size, times of change (ns) and inode; None where nothing lies. Changes with the content, unless a disk errs."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, stat.S_IFMT(found.st_mode)]


def examine(
    home: Path | str, key: str, note_path: Path | str, stamps: Mapping[str, Any], *, reader: str = "", afresh: bool = False
) -> Finding:
    """Check the job `key` in `home`. stamps: of DONE.json and spec.json, taken just now. reader: the host whose job is about to load
    the outputs. afresh: by digest in any case."""
    note = Note.read(note_path)
    if stamps[done.NAME] is None:
        if stamps["spec.json"] is None:
            return NOT_DONE
        # A note belongs to a finished job; `Store.ensure` removes it when a folder starts afresh.
        return Finding(damage=f"{done.NAME} is missing" if note.stamps else unreadable_spec(home, key))
    deep = bool(reader)
    record, proven = note.record, str(note.record.get("key", "")).startswith(key) and note.proves(stamps)
    if not proven or deep or afresh:
        try:
            record = done.read(home, key) or {}
        except Damaged as error:
            return Finding(damage=str(error))
        if not record:
            return NOT_DONE
        if damage := unreadable_spec(home, key):
            return Finding(damage=damage)
    same = note.record in ({}, record) and all(note.stamps.get(name) == stamps[name] for name in stamps)
    members = stamps_of(home, record, deep=deep)
    shallow = stamps_of(home, record) if deep else members
    seen = note.members if deep else note.stamps
    fresh = same and all(seen.get(name) == value and not note.hasty(value) for name, value in members.items())
    if fresh and not afresh and (not reader or reader in note.loaded):
        if not proven:
            replace(note, record=record).write(note_path)
        return Finding(damage=note.damage) if note.damage else Finding(record)
    try:
        damage = compare(Path(home), record)
    except OSError as error:
        return Finding(damage=f"{shown(error.filename, home)} cannot be read ({error.strerror})")
    if stamps_of(home, record, deep=deep) == members:
        loaded = sorted({*(note.loaded if same else ()), *([reader] if reader else ())})
        Note({**shallow, **stamps}, members if deep else {}, loaded if not damage else [], damage, dict(record)).write(note_path)
    return Finding(damage=damage) if damage else Finding(record)


def remember(home: Path | str, record: Mapping[str, Any], note_path: Path | str) -> None:
    """Note that digests were computed just now, by whoever wrote the record."""
    stamps = stamps_of(home, record) | {name: stamp(f"{home}/{name}") for name in (done.NAME, "spec.json")}
    Note(stamps, record=dict(record)).write(note_path)


def unreadable_spec(home: Path | str, key: str) -> str:
    """Why spec.json is not the job's, or ""."""
    if not os.path.lexists(f"{home}/spec.json"):
        return "spec.json is missing"
    try:
        record = Record.read(Path(home))
    except files.StoreError as error:
        return str(error).removeprefix(f"{home}/").removeprefix(f"{home}: ")
    return "" if record.key == key else f"spec.json is that of another job ({record.key[:12]})"


def stamps_of(home: Path | str, record: Mapping[str, Any], *, deep: bool = False) -> dict[str, Any]:
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
    """One digest for all stamps below a folder, and the newest of their times where that is whole seconds; None where there is no
    folder."""
    if not folder.is_dir() or folder.is_symlink():
        return None
    seen, newest = hashlib.sha256(), 1
    for path, is_folder in _walk(folder):
        found = stamp(path) if members or is_folder else None
        seen.update(f"{path} {found or ''}\n".encode())
        newest = max(newest, found[CHANGED]) if found else newest
    digest = seen.hexdigest()
    return digest if newest % COARSE_NS else {"sha256": digest, "changed": newest}


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


def shown(path: str | Path, home: Path | str) -> str:
    """Below the job's folder."""
    text = str(path)
    return text.removeprefix(f"{home}/")
