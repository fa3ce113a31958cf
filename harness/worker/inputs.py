"""Data that a person brought: looked through before the first job runs, so that a wrong path costs seconds, not hours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.jobs import Job


def check_inputs(jobs: Iterable[Job]) -> list[str]:
    """Look at the external data that these jobs would read; returns a line for each set with rejected samples.

    Raises models.training.data.DataError naming file, entry, field and remedy.
    """
    notes = []
    for job in jobs:
        if job.payload.get("source") != "external":
            continue
        if job.kind == "data":
            notes += _training_set(job)
        elif job.kind == "mirror":
            _benchmark(job)
    return notes


def _training_set(job: Job) -> list[str]:
    from models.config import ExternalTraining
    from models.training.data import counted
    from models.training.external import check_training_set

    spec = ExternalTraining.model_validate(job.payload)
    found = check_training_set(spec)
    rejected = sum(found.rejected.values())
    if not rejected:
        return []
    share = f"{rejected} of {rejected + found.samples} samples rejected ({counted(found.rejected)})"
    return [f"{spec.meta}: {share}; the rest is used, and each rejected one is named in rejected.jsonl of {job.name}"]


def _benchmark(job: Job) -> None:
    from models.config import ExternalMirror
    from models.training.data import DataError

    spec = ExternalMirror.model_validate(job.payload)
    path = Path(spec.path).expanduser()
    if spec.path.startswith(("/", ".", "~")) and not path.is_dir():
        raise DataError(
            f"{spec.path}: no such folder; put the benchmark there, or write its folder or hub name as "
            f"benchmarks.{spec.benchmark}.path"
        )
