"""Data that others made, given by name and pinned revision: put in place as links, never copied."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from models.config import ExternalMirror, ExternalTraining

SHA256 = re.compile(r"[0-9a-f]{64}")


def link_training_set(out: Path, spec: ExternalTraining) -> dict[str, Any]:
    """out/meta.json: the named meta file with absolute paths. Raises FileNotFoundError or ValueError (DataError), one line each.

    A `revision` of 64 hexadecimal digits is the sha256 of the meta file, and is checked.
    """
    meta = Path(spec.meta)
    if not meta.is_file():
        raise FileNotFoundError(f"{meta}: no such meta file; the profile's `data` names it (from {Path.cwd()})")
    text = meta.read_bytes()
    found = hashlib.sha256(text).hexdigest()
    if SHA256.fullmatch(spec.revision) and found != spec.revision:
        raise ValueError(f"{meta}: has sha256 {found}, the profile's `data.revision` says {spec.revision}")
    from models.training.data import read_sources

    entries = [
        {
            "ds_name": source.name,
            "data_path": str(source.annotations),
            "image_folder": str(source.images),
            "ds_type": source.kind,
        }
        for source in read_sources(meta)
    ]
    (out / "meta.json").write_text(json.dumps(entries, indent=1))
    summary = {"meta": str(meta.resolve()), "meta_sha256": found, "revision": spec.revision, "sources": len(entries)}
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    return summary


def link_mirror(out: Path, spec: ExternalMirror) -> dict[str, Any]:
    """out/ holds links to everything in the data set's folder: a local one, or a hub snapshot at the revision."""
    folder = Path(spec.path)
    if not folder.is_dir():
        if spec.path.startswith((".", "/")) or spec.path.count("/") != 1:
            raise FileNotFoundError(f"{folder}: no such folder, and not the name of a data set on the hub")
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(spec.path, repo_type="dataset", revision=spec.revision))
    for entry in sorted(folder.iterdir()):
        (out / entry.name).symlink_to(entry.resolve())
    return {"path": spec.path, "revision": spec.revision, "entries": len(list(out.iterdir()))}
