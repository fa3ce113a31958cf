"""Where MLflow is: MLFLOW_TRACKING_URI, or a database inside the results folder."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.characters import named
from harness.outgoing import inert
from harness.store import files
from harness.tracking.address import problem as problem_of

if TYPE_CHECKING:
    from harness.store import Store

EXPERIMENT = "vreflection"
UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens by default: addresses of runs in a local database lead there."""


class TrackingError(OSError):
    """MLflow cannot be reached or refused. One line."""


def home(store: Store) -> Path:
    """Our own notes about what was copied to MLflow."""
    return store.root / ".tracking"


def database(store: Store) -> Path:
    return store.root / "mlflow.db"


def artifacts(store: Store) -> Path:
    return store.root / "mlartifacts"


def address(store: Store) -> str:
    """The tracking URI, with its password if it has one: for MLflow alone; people and files get `shown_address`."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{database(store)}"


def shown_address(store: Store) -> str:
    return inert(address(store))


def check(store: Store) -> None:
    """Raises TrackingError, in one line with the remedy, for an address that MLflow could never use."""
    uri = address(store)
    if is_own(store):
        if odd := next((named(c) for c in str(store.root) if c in "%?\n"), ""):
            raise TrackingError(
                f"{inert(str(store.root), keep='')}: holds {odd}, which the address of a database there cannot; choose another "
                "--results DIR, or set MLFLOW_TRACKING_URI"
            )
        return
    if problem := problem_of(uri):
        raise TrackingError(f"MLFLOW_TRACKING_URI: {inert(uri, keep='')} {inert(problem, keep='')}, or unset it: the results folder has its own")


def is_own(store: Store) -> bool:
    """Whether results are copied into the database inside the results folder."""
    return address(store) == f"sqlite:///{database(store)}"


def local_file(store: Store) -> Path | None:
    """The database file, when MLflow is a local sqlite file."""
    uri = address(store)
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def identity(store: Store, *, make: bool = False) -> str:
    """The store's name among those that share a server: kept when its folder is moved, another in a copy. "" when it has none
    and make is not asked for. Raises StoreError when it cannot be written down."""
    path, inode = home(store) / "store.json", store.root.stat().st_ino if store.root.exists() else 0
    noted = files.read_note(path)
    if noted.get("inode") == inode and isinstance(noted.get("id"), str):
        return noted["id"]
    if not make:
        return ""
    name = uuid.uuid4().hex
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"id": name, "inode": store.root.stat().st_ino})
    return name


def is_ours(store: Store, tags: Mapping[str, str]) -> bool:
    """Whether a run is the copy of a job of this store. A shared server may hold the runs of several; those from before stores had
    names are known by their path."""
    return "job_key" in tags and (is_own(store) or tags.get("mirror.store") in {identity(store), str(store.root)} - {""})


def run_link(store: Store, experiment_id: str, run_id: str) -> str:
    """A run's page: on the tracking server, or where `mlflow ui` shows a local database."""
    uri = address(store)
    base = re.sub(r"//[^/]*@", "//", uri).rstrip("/") if uri.startswith(("http://", "https://")) else UI
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}"


def quiet_environment() -> None:
    """MLflow sends no telemetry from here, and gives up on a server that does not answer within seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder is an address that many people have set
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
