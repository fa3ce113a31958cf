"""What an attempt left behind, as digests: one entry for each file or folder directly under out/."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.store.attempts import Attempt


def file_digest(path: Path, first: int | None = None) -> str:
    """first: of so many bytes only."""
    with path.open("rb") as file:
        if first is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(file.read(first)).hexdigest()


def describe(out: Path) -> dict[str, dict[str, Any]]:
    """{"name": {"sha256", "bytes"}} for files, {"name/": {"sha256", "bytes", "files"}} for folders, {"name": {"link"}}.

    A folder's sha256 is that of its sorted "relative path, digest" lines, so thousands of images are one entry. A linked file
    is not read: gigabytes of a benchmark lie elsewhere, and are known by the job's inputs.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in sorted(os.scandir(out), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_symlink():
            found[entry.name] = {"link": os.readlink(path)}
            continue
        if not entry.is_dir():
            found[entry.name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
            continue
        found[f"{entry.name}/"] = describe_folder(path)
    return found


def describe_curves(attempts: Iterable[Attempt]) -> dict[str, dict[str, Any]]:
    """{"attempt": {"sha256", "bytes"}} of each metrics.jsonl, as far as it is written; a late twin may append to its own."""
    found = {}
    for attempt in attempts:
        try:
            size = attempt.metrics.stat().st_size
            found[str(attempt.number)] = {"sha256": file_digest(attempt.metrics, size), "bytes": size}
        except FileNotFoundError:
            continue
    return found


def describe_folder(folder: Path) -> dict[str, Any]:
    """{"sha256", "bytes", "files"} over every file below it."""
    members = sorted(member for member in folder.rglob("*") if member.is_file())
    tree = hashlib.sha256()
    for member in members:
        content = "link" if member.is_symlink() else file_digest(member)
        tree.update(f"{member.relative_to(folder)} {content}\n".encode())
    return {
        "sha256": tree.hexdigest(),
        "bytes": sum(member.lstat().st_size for member in members),
        "files": len(members),
    }
