"""Finished jobs that nobody ran: what tests and benchmarks of reports fill a store with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.jobs import Job
from harness.store import Store

CODE = {"commit": "d9f20cf1c0ffee", "dirty": False}


def leave(store: Store, job: Job, write: Callable[[Path], None] | None = None, *, seconds: float = 1.0, versions: Mapping[str, str] | None = None) -> None:
    """Publish a result for the job. write: puts its outputs into a folder; left out, that of a kind which no report reads."""
    store.ensure(job)
    attempt = store.begin_attempt(job)
    attempt.log.write_text("it ran\n")
    if write is None:
        (attempt.out / "summary.json").write_text("{}")
    else:
        write(attempt.out)
    store.publish(attempt, seconds=seconds, versions=dict(versions or {}), code=CODE)
