"""DONE.json: what it must say, how it is sealed, and the one function that reads it.

Its checksum tells an edited record from the one that was written. Somebody who edits results, digests and checksum
alike cannot be told from the program; that is not what it is for.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.identity import digest
from harness.store import files

NAME = "DONE.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Damaged(files.StoreError):
    """A finished job's outputs have changed. The message says which file and what differs."""


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a checksum of everything else in it. Raises TypeError or ValueError for what JSON cannot hold."""
    plain = json.loads(files.dumps(record))
    return {**plain, "checksum": digest(plain)}


def read(home: Path | str, key: str) -> dict[str, Any] | None:
    """The record of the job `key` in its folder `home`, its checksum compared; None when the job is not done. Raises Damaged."""
    path = f"{home}/{NAME}"
    try:
        kind = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(kind):
        raise Damaged(f"{NAME} is {what(kind)}")
    try:
        record = json.loads(files.read_text(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{NAME} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        empty = not os.stat(path).st_size
        raise Damaged(f"{NAME} is {'empty' if empty else 'cut or no JSON text'}") from error
    if problem := _problem(record, key):
        raise Damaged(f"{NAME} {problem}")
    return record


def _problem(record: Any, key: str) -> str:
    """What is wrong with the content, or ""."""
    if not isinstance(record, dict):
        return "holds no record"
    attempt, outputs = record.get("attempt"), record.get("outputs")
    if not isinstance(attempt, int) or isinstance(attempt, bool) or not isinstance(outputs, dict):
        return "lacks its attempt or its outputs"
    if not all(isinstance(record.get(name), (int, float)) for name in ("seconds", "finished")):
        return "lacks its times"
    if not all(_is_entry(name, entry) for name, entry in {**outputs, **(record.get("curves") or {})}.items()):
        return "lists outputs without digests"
    if not str(record.get("key", key)).startswith(key):  # a `Known` may know the first digits alone
        return f"is that of another job ({str(record['key'])[:12]})"
    if not record.keys() >= {"key", "checksum"}:
        return "lacks its key or its checksum"
    try:
        found = digest({name: value for name, value in record.items() if name != "checksum"})
    except (TypeError, ValueError):
        found = ""
    return "" if found == record["checksum"] else "was edited: its checksum is another"


def _is_entry(name: str, entry: Any) -> bool:
    if not isinstance(entry, dict) or "/" in name.rstrip("/") or name.rstrip("/") in ("", ".", ".."):
        return False
    if "link" in entry:
        return isinstance(entry["link"], str)
    return bool(_SHA256.fullmatch(str(entry.get("sha256")))) and isinstance(entry.get("bytes"), int)


def what(mode: int) -> str:
    """What something of another kind than it should be is."""
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISREG(mode):
        return "a file"
    return "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "no regular file"
