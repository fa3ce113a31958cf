"""Watches one driver's jobs in the scheduler: ended, killed, stuck, held, or never submitted.

The store cannot know that a job was killed for its memory or its time, or never started: that is recorded here, in the
job's folder, before its lease is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.dispatch.driver.retry import Retries
from harness.dispatch.slurm import queue as slurm_queue
from harness.dispatch.slurm.limits import scale_of
from harness.dispatch.slurm.queue import (
    ENDED,
    Phase,
    SchedulerSilent,
    SlurmQueue,
    Standing,
    killed_for_memory,
    last_words,
    why,
)
from harness.dispatch.slurm.request import Scale
from harness.jobs import Job
from harness.store import (
    AlreadyDone,
    Attempt,
    Damaged,
    Failure,
    Held,
    Owner,
    Record,
    State,
    Store,
    StoreError,
    files,
    leases,
)
from harness.store.leases import Lease

RELEASES = 3
"""How often a job is released again after its node failed to start it: a node that is slow once is not broken."""
UNSUBMITTED_SECONDS = 600.0
"""A lease this old whose driver cannot be checked from here was never submitted: no request takes this long."""
STUCK_SECONDS = 10.0
"""A job stuck for less than this, as between two passes of the scheduler, is not reported."""


def submitted(lease: Lease) -> bool:
    """Whether the scheduler has the lease's job. The owner of one that it does not have yet is a process: its driver,
    which may itself run inside a job."""
    return lease.owner.scheduler == "slurm" and not lease.owner.pid


def stuck(store: Store, queue: SlurmQueue) -> dict[str, str]:
    """Key → why its job in the queue will not begin by waiting, in words."""
    reasons: dict[str, str] = {}
    for lease in leases.leases(store):
        if submitted(lease) and lease.remaining:
            standing = queue.standing(lease.owner.scheduler_id, lease.owner.scheduler_name, lease.started)
            if standing.phase is Phase.WAITING and standing.reason:
                reasons.update(dict.fromkeys(lease.remaining, standing.reason))
    return reasons


def cancel(store: Store, keys: Iterable[str]) -> list[str]:
    """Take these jobs out of the scheduler's queue, running ones after their checkpoint. The keys that it had.

    Their leases stay until a driver has read there that a person cancelled them. Raises SchedulerSilent.
    """
    wanted = set(keys)
    found = [lease for lease in leases.leases(store) if submitted(lease) and wanted & set(lease.remaining)]
    slurm_queue.cancel(lease.owner.scheduler_id for lease in found)
    return [key for lease in found for key in lease.remaining if key in wanted]


@dataclass
class Watch:
    """jobs: of the driver's graph, by key. say: one line to the person, not twice in a row. free_seconds: how long after
    its parents' results a job may go on waiting for their scheduler jobs."""

    store: Store
    jobs: Mapping[str, Job]
    queue: SlurmQueue
    retries: Retries
    me: Owner
    say: Callable[[str], None]
    free_seconds: float
    stuck_seconds: float = STUCK_SECONDS
    seen: set[str] = field(default_factory=set)
    """Leases whose jobs were not over yet when this driver came: what is cancelled among them is not begun again."""
    _waiting_for_nothing: dict[str, float] = field(default_factory=dict)
    _released: dict[str, int] = field(default_factory=dict)
    _stuck: dict[tuple[str, str], float] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)

    def look(self) -> None:
        """Deal with every lease of the store. Raises OSError or StoreError while the store refuses."""
        if self.queue.silent_since is not None:
            return
        unsubmitted = []
        for lease in leases.leases(self.store):
            if not lease.plan.startswith(".slurm/"):
                continue
            if not submitted(lease):
                if self._abandoned(lease):
                    unsubmitted.append(lease)
                continue
            standing = self.queue.standing(lease.owner.scheduler_id, lease.owner.scheduler_name, lease.started)
            if standing.state and standing.state not in ENDED:
                self.seen.add(lease.id)
            self._free(lease, standing)
            if standing.launch_failed:
                self._release(lease, standing)
            if standing.too_much:
                self._withdraw(lease, standing)
            if standing.phase.over:
                with self.store.lock("slurm"):
                    if leases.read(self.store, lease.id) is not None:
                        self._bury(lease, standing)
        if unsubmitted:
            with self.store.lock("slurm"):  # whoever submits just now has it
                self._drop_unsubmitted(unsubmitted)

    def tell_stuck(self, reasons: Mapping[str, str]) -> None:
        """Say once of each job why it will not begin, those with one reason in one line."""
        now = time.monotonic()
        current = {(key, reason) for key, reason in reasons.items() if key in self.jobs}
        self._stuck = {item: self._stuck.get(item, now) for item in current}
        news: dict[str, list[str]] = {}
        for key, reason in sorted(current - self._told):
            if now - self._stuck[key, reason] >= self.stuck_seconds:
                news.setdefault(reason, []).append(key)
        for reason, keys in news.items():
            self._told.update((key, reason) for key in keys)
            others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            self.say(f"stuck in the queue: {self.jobs[keys[0]].name}{others}: {reason}")

    # Written down, but not known to the scheduler

    def _abandoned(self, lease: Lease) -> bool:
        """Whether no driver will submit it any more."""
        alive = lease.owner.alive(self.store.schedulers)
        old = time.time() - lease.started > UNSUBMITTED_SECONDS
        return lease.owner == self.me or alive is False or (alive is None and not lease.owner.scheduler and old)

    def _drop_unsubmitted(self, found: Iterable[Lease]) -> None:
        """Their driver may have died just after sbatch accepted the request; then the job waits in the queue
        unclaimed."""
        known = {lease.id: lease for lease in leases.leases(self.store)}
        dead = [known[lease.id] for lease in found if lease.id in known and not submitted(known[lease.id])]
        theirs = {lease.owner.scheduler_id for lease in known.values() if submitted(lease)}
        for plan in {lease.plan for lease in dead}:
            waiting = self.queue.waiting(f"vr-{Path(plan).name}-")
            if waiting is None:
                return  # the scheduler went silent; at a later look
            if orphans := [id_ for id_ in waiting if id_ not in theirs]:
                try:
                    slurm_queue.cancel(orphans, self.queue.command, only_waiting=True)
                except SchedulerSilent as error:
                    self.say(f"requests of a driver that died stay in the queue: {error}")
                    return
            for lease in dead:
                if lease.plan == plan:
                    leases.drop(self.store, lease.id)

    # Waiting for nothing

    def _free(self, lease: Lease, standing: Standing) -> None:
        """Frees a job that waits for parents whose results exist: a crashed controller may have restored a parent that
        had ended, and hold it."""
        known = [self.jobs[key] for key in lease.remaining if key in self.jobs]
        parents = [parent for job in known for parent in job.parents]
        if not (standing.for_parents and parents and all(self.store.is_done(parent) for parent in parents)):
            self._waiting_for_nothing.pop(lease.id, None)
            return
        since = self._waiting_for_nothing.setdefault(lease.id, time.time())
        if time.time() - since > self.free_seconds:
            self._waiting_for_nothing[lease.id] = time.time()
            try:
                self.queue.command(["scontrol", "update", f"JobId={lease.owner.scheduler_id}", "Dependency="])
            except SchedulerSilent as error:
                self.say(f"job {lease.owner.scheduler_id} waits for jobs that are done: {error}")

    def _release(self, lease: Lease, standing: Standing) -> None:
        """Release a job that its node failed to start; SLURM would hold it for ever."""
        before = self._released.get(lease.id, 0)
        if before > min(RELEASES - 1, standing.restarts):
            return  # still the hold that was released already, or once too often
        self._released[lease.id] = before + 1
        try:
            self.queue.command(["scontrol", "release", lease.owner.scheduler_id])
        except SchedulerSilent as error:
            self.say(f"job {lease.owner.scheduler_id} is held because its node did not start it: {error}")

    def _withdraw(self, lease: Lease, standing: Standing) -> None:
        """Cancel a request that we made larger than the profile's and that is not allowed: it would wait for ever."""
        mine = [self.jobs[key] for key in lease.remaining if key in self.jobs]
        larger = [job for job in mine if scale_of(self.store.attempts(job)) != Scale()]
        if not larger or len(larger) < len(lease.remaining):
            return
        try:
            slurm_queue.cancel([lease.owner.scheduler_id], self.queue.command)
        except SchedulerSilent as error:
            self.say(f"job {lease.owner.scheduler_id} {standing.reason}: {error}")
            return
        for job in larger:
            self.retries.give_up(job, f"it ran out of what it had, and its larger request {standing.reason}")
        leases.drop(self.store, lease.id)

    # Ended

    def _bury(self, lease: Lease, standing: Standing) -> None:
        last = last_words(Path(lease.log)) if lease.log else ""
        for key in lease.remaining:
            try:
                record = self.store.record(key)
            except StoreError:
                continue  # its folder was removed
            if self.store.is_done(record):
                continue
            newest = next(reversed(self.store.attempts(record)), None)
            begun = newest if newest is not None and newest.claim.get("lease") == lease.id else None
            if standing.phase is Phase.ENDED and begun and (failure := begun.failure):
                if failure.cause == "code" and killed_for_memory(standing.state, last):
                    self._believe_the_kill(begun, failure, standing.state, last)
            elif standing.phase is Phase.ENDED:
                cause, kind, message = why(standing.state, last, begun=bool(begun), any_begun=bool(lease.current))
                if cause == "timeout" and begun and begun.complete_checkpoints():
                    cause = kind = ""  # it got further: it is resumed as after any interruption
                if kind:
                    self._fail(record, begun, lease, Failure(cause or "interrupted", kind, message), last)
            if key in self.jobs and lease.id in self.seen and self._cancelled_by_hand(key, standing):
                self.retries.give_up(self.jobs[key], f"cancelled in the scheduler (job {lease.owner.scheduler_id})")
        leases.drop(self.store, lease.id)

    @staticmethod
    def _believe_the_kill(attempt: Attempt, failure: Failure, state: str, last: str) -> None:
        """The kernel killed one process for its memory, and another, which lost its connection to it, wrote down an error first."""
        cause, kind, message = why(state, last, begun=True, any_begun=True)
        traceback = ""
        with suppress(OSError):
            traceback = failure.traceback.read_text() if failure.traceback else ""
        attempt.fail(cause, kind, f"{message} (another process first said: {failure})", traceback, failure.micro_batch)

    def _fail(self, record: Record, attempt: Attempt | None, lease: Lease, failure: Failure, last: str) -> None:
        """Write down how the job ended, in an attempt of our own where it had none; the scheduler's log, whose end it
        gets, goes with the submission."""
        try:
            begun = attempt or self.store.begin_attempt(record, lease=lease.id)
        except (Held, AlreadyDone, Damaged):
            return  # somebody else has it by now, or finished it
        begun.fail(failure.cause, failure.type, failure.message)
        if attempt is None:
            with suppress(OSError):  # the reason is written down all the same
                files.replace_bytes(begun.log, last.encode())

    def _cancelled_by_hand(self, key: str, standing: Standing) -> bool:
        by_dependency = standing.reason == "DependencyNeverSatisfied" or self._parent_failed(key)
        return standing.state == "CANCELLED" and not by_dependency

    def _parent_failed(self, key: str) -> bool:
        statuses = self.store.statuses(self.jobs[key].parents)
        return any(
            status.state in (State.FAILED, State.BLOCKED, State.DAMAGED, State.INTERRUPTED, State.READY, State.MISSING)
            for status in statuses.values()
        )
