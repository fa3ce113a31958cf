"""A training set that exists already: found, checked against its pinned identity, validated, and referred to in place."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.config import ExternalTraining
from models.training.data import DataError, Summary, meta_file, read_samples, read_sources

_SHA256 = re.compile(r"[0-9a-f]{64}")


def manifest_digest(meta: Path) -> str:
    """sha256 over the meta file's data set names and the content of their annotation files, as 64 hex digits.

    Paths and image folders are left out: the same data in another place is the same data.
    """
    total = hashlib.sha256()
    for source in read_sources(meta):
        total.update(f"{source.name}\0{source.kind}\0".encode())
        with source.annotations.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def link_training_set(out: Path, spec: ExternalTraining) -> dict[str, Any]:
    """Write out/meta.json with absolute paths after one validating pass; returns the pass's counts.

    A revision of 64 hex digits must be the data's `manifest_digest`; any other text is taken as a name and recorded
    beside the digest. Raises DataError naming the file and the remedy.
    """
    meta, digest = _pinned(spec)
    sources = [
        {"ds_name": s.name, "data_path": str(s.annotations), "image_folder": str(s.images), "ds_type": s.kind}
        for s in read_sources(meta)
    ]
    (out / "meta.json").write_text(json.dumps(sources, indent=1) + "\n")
    summary = asdict(read_samples(out, report=out).summary) | {"manifest_sha256": digest, "revision": spec.revision}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def check_training_set(spec: ExternalTraining) -> Summary:
    """What a job would find, before any job runs: one validating pass. Raises DataError, one line about the user's own file."""
    return read_samples(_pinned(spec)[0]).summary


def _pinned(spec: ExternalTraining) -> tuple[Path, str]:
    """The meta file and its digest. Raises DataError when it is not there or is not what the profile pins."""
    meta = meta_file(Path(spec.meta).expanduser().absolute())
    digest = manifest_digest(meta)
    if _SHA256.fullmatch(spec.revision) and digest != spec.revision:
        raise DataError(
            f"{meta}: its content has sha256 {digest}, the profile pins {spec.revision}; "
            "restore that data, or write the new digest as data.revision"
        )
    return meta, digest
