"""The Hugging Face hub's cache on this machine, read as files: which commit a name stands for, and whether it is here.

Planning and preflight look here, so nothing heavy is imported and nothing is asked or fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

DATA_SET = "datasets:"
"""Begins a location REPOSITORY@COMMIT that is a data set of the hub's; without it a location is a folder."""
FILMS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg")
"""Ends of the names of video files."""


def home(environment: Mapping[str, str] | None = None) -> Path:
    """HF_HOME, or where it is if nothing says so."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface").expanduser()


def hub_cache(environment: Mapping[str, str] | None = None) -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    environment = os.environ if environment is None else environment
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    return home(environment) / "hub"


def cached_snapshot(
    repository: str, revision: str, kind: str = "models", environment: Mapping[str, str] | None = None
) -> tuple[Path | None, str]:
    """(folder of the revision, None where the cache has none; the commit, or the revision as given if it is no known name).

    kind: models or datasets.
    """
    kept = hub_cache(environment) / f"{kind}--{repository.replace('/', '--')}"
    try:
        commit = (kept / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    snapshot = kept / "snapshots" / commit
    return (snapshot if commit and snapshot.is_dir() else None), commit


def datasets_cache(environment: Mapping[str, str] | None = None) -> Path:
    """Where `datasets.load_dataset` keeps the Arrow files that it has prepared."""
    environment = os.environ if environment is None else environment
    if environment.get("HF_DATASETS_CACHE"):
        return Path(environment["HF_DATASETS_CACHE"]).expanduser()
    return home(environment) / "datasets"


def prepared(repository: str, revision: str, environment: Mapping[str, str] | None = None) -> tuple[dict[str, Path], str]:
    """(configuration -> folder of its Arrow files, commit) as `load_dataset` left them; ({}, revision) where there are none.

    A branch name stands for the only commit that was prepared; where there are several, the hub's cache has to say which.
    """
    namespace, _, name = repository.rpartition("/")
    snake = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)).lower()
    kept = datasets_cache(environment) / (f"{namespace}___{snake}" if namespace else snake)
    found: dict[str, dict[str, Path]] = {}
    for info in sorted(kept.glob("*/*/*/dataset_info.json")):
        found.setdefault(info.parent.name, {})[info.parent.parent.parent.name] = info.parent
    if revision not in found and not is_commit(revision) and len(found) == 1:
        revision = next(iter(found))
    return found.get(revision, {}), revision


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder, links followed, by path; hidden files and folders (.git, .cache) left out, and clips that are
    links to nothing: they are missing, as if there were no link."""
    found: list[Path] = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.suffix.lower() not in FILMS or file.is_file())


def is_commit(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None
