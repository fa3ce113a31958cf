"""What may be tidied away: jobs that nothing asked for needs, and how they go.

Kept in any case: jobs that were adopted, imported or tagged, that somebody is at work on or waits for, and whatever these
were made from. A folder is moved to `.gc/` in one step before it is deleted, so nobody ever meets half a job.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from harness.jobs import Graph, Job
from harness.store.files import renamed, writing
from harness.store.states import State
from harness.store.store import Store
from harness.store.tags import tags

BUSY = (State.RUNNING, State.SUBMITTED, State.DAMAGED)
"""States in which a job is not touched: a damaged one is for a person to look at."""


@dataclass(frozen=True)
class Unneeded:
    """job: nothing asked for needs it. bytes: on the disk. seconds: what it took to make, None when it is not done."""

    job: Job
    bytes: int
    seconds: float | None


def unneeded(store: Store, jobs: Iterable[Job], wanted: Iterable[Job]) -> list[Unneeded]:
    """jobs: all of the store. wanted: what must stay, with its parents."""
    jobs = list(jobs)
    statuses = store.statuses(jobs)
    tagged = {key for tag in tags(store.root) for key in tag.keys}
    kept = Graph(wanted)
    for job in jobs:
        given = (store.done(job) or {}).keys() & {"adopted", "imported"}
        if given or job.key in tagged or statuses[job.key].state in BUSY:
            kept.add(job)
    found = []
    for job in jobs:
        if job not in kept:
            done = store.done(job)
            found.append(Unneeded(job, size(store, job), done["seconds"] if done else None))
    return found


def size(store: Store, job: Job) -> int:
    """Bytes that the job's folder takes; a link counts as itself."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(store.folder(job))
        for name in names
    )


def delete(store: Store, job: Job) -> bool:
    """Delete the job's folder; False when somebody has begun to work on it since. Raises StoreError."""
    with store.lock("folders"):
        if store.status(job).state in BUSY:
            return False
        home = store.root / ".gc"
        with writing(home):
            home.mkdir(exist_ok=True)
            gone = home / f"{job.kind}-{job.key12}-{os.getpid()}"
            renamed(store.folder(job), gone)
    shutil.rmtree(gone, ignore_errors=True)
    return True
