"""Queries of the store that several verbs share: states of planned jobs, costs of finished ones, jobs by key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs import Graph, Job
from harness.kinds import KINDS
from harness.places import RESULTS
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.dispatch.slurm.queue import SlurmQueue
    from harness.plan.cost import Finished
    from harness.store import Owner, Status, Store


def open_store(results: Path, *, one_look: bool = False, reads: bool = False) -> Store:
    """The store of a results folder, whether or not it exists yet. Raises SpecError for a file or a broken link. one_look: for a verb that reads the state once and ends.
    reads: for a verb that only reads results; then a folder that was named must exist, and be empty or hold what a run leaves there."""
    from harness.store import Store

    if broken := lost_link(results, "--results"):
        raise SpecError(broken)
    if results.exists() and not results.is_dir():
        raise SpecError(f"{results}: is a file, not a results folder; choose another: --results DIR")
    if reads and results != RESULTS and not results.is_dir():
        raise SpecError(f"{results}: no such results folder; name one that exists: --results DIR")
    if results.is_dir() and not os.access(results, os.R_OK | os.X_OK):  # its jobs would silently not be found
        raise SpecError(f"{results}: cannot be read (Permission denied); ask its owner, or choose another: --results DIR")
    store = Store(results, {"slurm": partial(_slurm_has, one_look)})
    if reads and results != RESULTS and not _of_runs(store):
        raise SpecError(f"{results}: is not a results folder: no run has left anything there; name another: --results DIR")
    return store


def lost_link(folder: Path, flag: str) -> str | None:
    """One line if the folder, or one above it, is a symbolic link to nothing (a disk that is not mounted, say), else None. flag: names another."""
    own = folder.absolute()
    found = next((place for place in (own, *own.parents) if place.is_symlink() and not place.exists()), None)
    if found is None:
        return None
    place = folder if found == own else found
    return f"{place}: is a symbolic link to {os.readlink(found)}, which does not exist; create that folder, or choose another: {flag} DIR"


def _of_runs(store: Store) -> bool:
    """Whether the folder is empty or holds files that a run leaves."""
    names = set(os.listdir(store.root)) - {"README.md"}
    return not names or not names.isdisjoint(_LEFT) or next(store.job_names(), None) is not None


_LEFT = {".locks", ".checks", ".registered", ".tracking", ".drivers", ".digests.json"}
"""The first one exists as soon as any job does."""


@lru_cache(maxsize=2)
def _slurm_queue(one_look: bool) -> SlurmQueue:
    """One-shot commands skip grace periods: at a first poll every ended job is new, so none would ever count as ended.

    Without it, a job that squeue does not list is gone: squeue knows a job as soon as sbatch has returned, and only then
    is its id in the store. NODE_FAIL and PREEMPTED still count as alive, since such a job may come back.
    """
    from harness.dispatch.slurm.queue import SlurmQueue

    return SlurmQueue(settle_seconds=0.0, lost_seconds=0.0) if one_look else SlurmQueue()


def _slurm_has(one_look: bool, owner: Owner) -> bool | None:
    """Whether the cluster's scheduler still has a job; asked only when the store holds one."""
    return _slurm_queue(one_look).alive(owner)


def standing(store: Store, graph: Graph) -> dict[str, Status]:
    """Status of every job of the graph, by key; jobs that nothing waits for are "not needed"."""
    from harness.store import State, Status

    statuses = store.statuses(graph)
    if any(status.state is State.SUBMITTED and status.reason.startswith("slurm") for status in statuses.values()):
        from harness.dispatch.slurm.watch import stuck

        for key, reason in stuck(store, _slurm_queue(True)).items():
            if key in statuses and statuses[key].state is State.SUBMITTED:
                statuses[key] = Status(State.SUBMITTED, f"{statuses[key].reason}: {reason}", statuses[key].attempt)
    needed = graph.needed(lambda job: statuses[job.key].state in (State.DONE, State.DAMAGED))
    idle = (State.MISSING, State.READY, State.BLOCKED)
    spared = (job for job in graph if job not in needed and statuses[job.key].state in idle)
    return statuses | {job.key: Status(State.SPARED) for job in spared}


def history(store: Store) -> dict[str, float]:
    """Seconds per unit of work by job shape, from every job that finished here."""
    from harness.plan.cost import learn

    return learn(finished(store))


def finished(store: Store) -> list[Finished]:
    """Jobs that finished here in a single attempt. A later attempt of a resumable kind may have done only part of the work,
    and which part is unknown: its checkpoints are gone once the job is done."""
    from harness.plan.cost import Finished

    found = []
    for record in store.records():
        done = store.done(record)
        if done is None or done.keys() & {"adopted", "imported"}:
            continue
        kind = KINDS.get(record.kind)
        if done["attempt"] == 1 or not (kind and kind.resumable):
            inputs = {role: upstream.key for role, upstream in record.inputs.items()}
            found.append(Finished(record.key, record.kind, record.payload, inputs, done["seconds"], done["finished"]))
    return found


def damage(store: Store, jobs: Iterable[Job]) -> list[str]:
    """A line for each job that is damaged."""
    return [f"damaged: {line}" for job in jobs if (line := store.damage(job))]


def selected(store: Store, keys: Iterable[str]) -> list[Job]:
    """Jobs by key or beginning of a key. Raises StoreError when there is none or several."""
    from harness.store.jobs import stored_jobs

    return stored_jobs(store, [store.record(key) for key in keys])
