"""The Hugging Face hub's cache on this machine, read as files: which commit a name stands for, and whether it is here.

Planning and preflight look here. Nothing is imported, asked or fetched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def hub_cache(environment: Mapping[str, str] | None = None) -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    environment = os.environ if environment is None else environment
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    home = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def cached_snapshot(
    repository: str, revision: str, kind: str = "models", environment: Mapping[str, str] | None = None
) -> tuple[Path | None, str]:
    """(folder of the revision, None where the cache has none; the commit, or the revision as given if it is no known name).

    kind: models or datasets.
    """
    home = hub_cache(environment) / f"{kind}--{repository.replace('/', '--')}"
    try:
        commit = (home / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    snapshot = home / "snapshots" / commit
    return (snapshot if commit and snapshot.is_dir() else None), commit
