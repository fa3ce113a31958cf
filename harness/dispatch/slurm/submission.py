"""A submission: a folder with what one driver submitted, including the code that its jobs run.

A job may wait for days. It runs the code it was submitted with, even when the working tree has moved on, because the
packages are copied here and its Python path begins here. The folder is removed when none of its jobs is left.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from harness.store import Owner, Store, files, trust
from harness.store.leases import Lease

PACKAGES = ("harness", "models")
LARGEST_BYTES = 2**20
"""Larger files are data (weights), not code: jobs read them from their usual path, which is in their spec.json."""
KEPT = ("SLURM_CONF", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_CONSTRAINT", "SBATCH_RESERVATION")
"""Settings of a user or a site that apply to every request, also inside a job."""
YOUNG_SECONDS = 60.0
"""A submission this new may not have written its leases yet."""


def home(store: Store) -> Path:
    return store.root / ".slurm"


@dataclass(frozen=True)
class Submission:
    id: str
    folder: Path

    @property
    def code(self) -> Path:
        """The copied packages; first on the jobs' Python path."""
        return self.folder / "code"

    @property
    def submitit(self) -> Path:
        """submitit's own files; new for each submission, because scheduler ids may begin again."""
        return self.folder / "submitit"

    @classmethod
    def create(cls, store: Store, **facts: Any) -> Submission:
        """A new folder with a copy of the code. Raises StoreError when it cannot be written."""
        id_ = uuid.uuid4().hex[:8]
        submission = cls(id_, trust.private(store.root, home(store).name) / id_)
        with files.writing(submission.folder):
            submission.submitit.mkdir(parents=True)
            files.write_json(submission.folder / "submission.json", {"id": id_, "created": time.time(), **facts})
            copy_code(submission.code)
        return submission

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def copy_code(target: Path, source: Path | None = None) -> None:
    """Copy the packages: Python files, and the text files they read. source: the folder that holds them (default: of
    the running program)."""
    source = source or Path(__file__).resolve().parents[3]
    for package in PACKAGES:
        for path in sorted((source / package).rglob("*")):
            hidden = any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(source).parts)
            if hidden or not path.is_file() or path.stat().st_size > LARGEST_BYTES:
                continue
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            _copy_compiled(path, copy)


def _copy_compiled(path: Path, copy: Path) -> None:
    """Python's compiled form of a module, if there is one: otherwise each of the first jobs compiles all that it imports. It belongs to a
    source of the same time and size, which Python compares."""
    if path.suffix != ".py" or not os.path.exists(compiled := cache_from_source(path)):
        return
    found, target = path.stat(), cache_from_source(copy)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with suppress(FileNotFoundError):  # it was removed meanwhile; jobs do without
        shutil.copyfile(compiled, target)
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))


def clear(store: Store, leases: Iterable[Lease]) -> list[str]:
    """Remove the folders of submissions without any lease left, whose driver is gone; their ids."""
    held = {lease.plan for lease in leases}
    removed = []
    try:
        folders = list(home(store).iterdir())
    except FileNotFoundError:
        return []
    for folder in folders:
        if str(folder.relative_to(store.root)) in held:
            continue
        record = files.read_json(folder / "submission.json") or {}
        try:
            created = record.get("created") or folder.stat().st_mtime
        except FileNotFoundError:
            continue  # its driver removed it
        driver = record.get("driver")
        if driver is not None and Owner.read(driver).alive(store.schedulers) is not False:
            continue  # between two requests it holds no lease, and the next one runs this code
        if time.time() - created > YOUNG_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed


@contextmanager
def own_environment() -> Iterator[None]:
    """Hides the SLURM variables of the job that this driver may itself run in: sbatch would pass them on."""
    from submitit.helpers import clean_env

    if "SLURM_JOB_ID" not in os.environ:  # not inside a job: a user's SBATCH_ACCOUNT is intended
        yield
        return
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield
