"""Training data of others as a `Source`: known by their annotations and their pictures' names and sizes, not by where they lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness.jobs import Source
from harness.plan.sources import read_cache, write_cache
from models.config import ExternalTraining

UNKNOWN = "unknown:"
"""Begins the digest of training data that are not here or cannot be read; why is what follows."""


def training_set(spec: ExternalTraining, cache: Path | None = None) -> Source:
    """Training data of others. Of data that are not here any more the digest is the last known; where there is none, or
    they cannot be read, it says so (`UNKNOWN`): a plan can be shown, not run."""
    meta = Path(spec.meta).expanduser().absolute()
    known = looked_at(spec, cache)
    if "error" in known and not meta.exists():
        known = read_cache(cache).get(_name(spec), known)
    return Source(str(meta), known["digest"] if "digest" in known else f"{UNKNOWN}{known['error']}")


def looked_at(spec: ExternalTraining, cache: Path | None = None) -> dict[str, Any]:
    """What `models.training.external.look` finds, as plain data; or {"error": why it finds nothing}.

    A pass over all annotations takes seconds: its result is kept in `cache` and holds while the files that it read and
    the folders that it listed are unchanged.
    """
    name = _name(spec)
    entry = _looked.get(name) or read_cache(cache).get(name)
    if entry and entry["state"] == _state(entry["files"], entry["folders"]):
        return entry
    from dataclasses import asdict

    from models.training.data import DataError
    from models.training.external import look

    try:
        found = json.loads(json.dumps(asdict(look(spec))))
    except (DataError, OSError) as error:
        return {"error": str(error)}
    found["state"] = _state(found["files"], found["folders"])
    _looked[name] = found
    write_cache(cache, {**read_cache(cache), name: found})
    return found


def _name(spec: ExternalTraining) -> str:
    return f"{Path(spec.meta).expanduser().absolute()} {spec.revision} {spec.surplus_boxes} {spec.min_usable}"


_looked: dict[str, dict[str, Any]] = {}
"""What this process found, for the first command in a new results folder."""


def _state(files: list[str], folders: list[str]) -> list[Any]:
    """Changes when a file does, or when a name comes into a folder or leaves it."""
    found: list[Any] = []
    for path in (*files, *folders):
        try:
            at = os.stat(path)
            found.append([at.st_mtime_ns, at.st_ino, *([at.st_size] if path in files else [])])
        except OSError:
            found.append(None)
    return found
