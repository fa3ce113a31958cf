"""The hub's cache on disk: content in blobs/, named by its digest; a snapshot of relative links; refs/ name the commit."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

LARGE = (".safetensors", ".parquet")
"""Files that the hub keeps in LFS: their blobs are named by sha256, all others by git's sha1."""


def into_cache(hub: Path, kind: str, repo: str, commit: str, folder: Path) -> None:
    """Add a copy of `folder` to the cache as one commit of `repo`. kind: model or dataset."""
    home = hub / f"{kind}s--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        blob = home / "blobs" / blob_name(file)
        if not blob.exists():
            shutil.copy(file, blob)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


def blob_name(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix in LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
