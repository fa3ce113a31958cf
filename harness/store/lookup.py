"""Finds a job's folder by what a person writes: its name, its key, or the beginning of the key."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from harness.places import results_option
from harness.store.files import StoreError

SHORTEST = 4
"""Digits of a key that a person must write."""
_JOB = re.compile(r".+-[0-9a-f]{12}", re.DOTALL)
"""Name of a job's folder."""
LISTED = 5
"""Jobs that a message names; a store has thousands."""


def folder_named(root: Path, key: str, kind: str | None = None) -> Path:
    """By name, key, or a unique prefix of a key of `SHORTEST` digits or more. Raises StoreError that says what was found instead."""
    if not key.strip():
        raise StoreError(f"{root}: the job's key is empty; run.py status --all{results_option(root, 'DIR')} lists the jobs")
    homes = [root / kind] if kind else sorted(root.glob("[!.]*/"))
    entries = (entry for home in homes if home.is_dir() for entry in os.scandir(home))
    jobs = {entry.name: Path(entry.path) for entry in entries if _JOB.fullmatch(entry.name)}  # MLflow keeps folders there, too
    found = [path for name, path in jobs.items() if name.rpartition("-")[2].startswith(key[:12]) or name == key]
    if len(found) != 1 or len(key) < SHORTEST:
        if found:
            many = f"{len(found)} jobs have keys that begin so" if len(found) > 1 else "one job has a key that begins so"
            listed = _some(path.name for path in found)
            raise StoreError(f'{root}: "{key}": {many} ({listed}); write more of it, at least {SHORTEST} digits')
        if begun := [name for name in jobs if name.startswith(key)]:
            raise StoreError(f'{root}: "{key}" is no job\'s whole name; did you mean one of {_some(begun)}?')
        near = difflib.get_close_matches(key, [*jobs, *(name.rpartition("-")[2] for name in jobs)], n=1)
        remedy = f'did you mean "{near[0]}"?' if near else f"run.py status --all{results_option(root, 'DIR')} lists them"
        raise StoreError(f"{root}: {key}: no such job; {remedy}")
    return found[0]


def _some(names: Iterable[str]) -> str:
    """a, b, c, d, e and 12 more"""
    found = sorted(names)
    return ", ".join(found[:LISTED]) + (f" and {len(found) - LISTED} more" if len(found) > LISTED else "")
