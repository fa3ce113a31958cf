"""A checkpoint from elsewhere as the result of a training job: looked through first, then published as any result."""

from __future__ import annotations

import getpass
import socket
import time
from pathlib import Path
from typing import Any

from harness.jobs import Graph, Job
from harness.store import Store
from harness.worker.causes import cause_of, one_line


def adopt(store: Store, job: Job, folder: Path, *, base: Path | None, origin: str, note: str) -> dict[str, Any]:
    """Register `folder` as the result of `job`; returns the provenance that DONE.json and vreflection.json hold.

    Raises models.adopt.Unfit before anything is written; AlreadyDone or Held when the job has a result or an
    owner; StoreError when the store cannot be written.
    """
    from models.adopt import copy, fit
    from models.config import TrainSpec

    fitting = fit(folder, TrainSpec.model_validate(job.payload), base)
    facts = {
        "from": origin or str(folder.absolute()),
        "by": f"{_user()}@{socket.gethostname()}",
        "note": note,
        "sha256": fitting.digest(),
        "tensors": fitting.tensors,
        "time": time.time(),
    }
    store.ensure_all(Graph([job]))
    attempt = store.begin_attempt(job)
    try:
        copy(fitting, attempt.out, facts)
        from harness.worker.provenance import code, versions

        store.publish(attempt, seconds=0.0, code=code(), versions=versions(), adopted=facts)
    except BaseException as error:
        attempt.fail(cause_of(error), type(error).__name__, one_line(error))
        raise
    return facts


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
