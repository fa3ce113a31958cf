"""The driver on a SLURM cluster: hands over the whole graph at once, then only watches; it may leave at any time.

Every job that the scheduler has is a lease in the store, owned by its scheduler id, so that any other driver (or verb)
finds it there and attaches instead of submitting it again. What is done is read from the store alone; the scheduler is
asked only whether a job is still in its hands, once for all jobs a poll.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.dispatch import slurm_queue, slurm_submission
from harness.dispatch.driver import Driver
from harness.dispatch.forecast import Forecast
from harness.dispatch.outcome import Outcome, outcome_of
from harness.dispatch.progress import Display, display_for
from harness.dispatch.slurm_queue import Phase, SlurmQueue, Standing, last_words, why
from harness.dispatch.slurm_request import Scale, parameters, scaled_minutes, setup_lines, stop_lead
from harness.dispatch.slurm_submission import Submission
from harness.dispatch.slurm_task import Assignment, perform
from harness.jobs import Graph, Job
from harness.store import (
    AlreadyDone,
    Attempt,
    Failure,
    Held,
    Owner,
    Record,
    State,
    Status,
    Store,
    StoreError,
    files,
    leases,
)
from harness.store.leases import Lease
from harness.store.owners import Scheduler

if TYPE_CHECKING:
    from harness.spec.profile import Resources, SlurmDispatch

ARRAY_LARGEST = 1000
"""Elements of one array; SLURM's own default limit (MaxArraySize) is 1001."""
SILENCE_SECONDS = 10.0
"""A scheduler that is only slow is not worth a line."""
RELEASES = 3
"""How often a job that its node did not start is released: a node that is slow once is not broken."""
LEAVING_SECONDS = 5.0
"""How long a driver waits for its last jobs to have left the queue, before it removes their code."""
LATER = re.compile(
    r"unable to contact|timed out|connection refused|socket|temporar|try again|submit limit|busy|not respond",
    re.IGNORECASE,
)
"""What sbatch says when the same request may be accepted later."""


def available() -> bool:
    """Whether this machine can submit to a SLURM cluster."""
    return all(shutil.which(command) for command in ("sbatch", "srun", "squeue", "scancel"))


def schedulers(queue: SlurmQueue | None = None) -> dict[str, Scheduler]:
    """For `Store(root, schedulers())`: lets any verb see which jobs the scheduler still has."""
    return {"slurm": (queue or SlurmQueue()).alive} if available() else {}


def run(
    graph: Graph,
    store: Store,
    *,
    resources: Callable[[str], Resources],
    dispatch: SlurmDispatch,
    detach: bool = False,
    forecast: Forecast | None = None,
    plugins: Iterable[str] = (),
    display: Display | None = None,
    queue: SlurmQueue | None = None,
) -> Outcome:
    """Get every job of `graph` done on the cluster, or say why not; like `harness.dispatch.run`.

    dispatch: the profile's block. detach: return once everything that can be submitted is. Ctrl-C leaves as well: what
    was submitted stays in the queue, and the same command attaches to it. Raises StoreError when the store cannot be
    written.
    """
    statuses = store.statuses(graph)
    if all(status.state is State.DONE for status in statuses.values()):
        return outcome_of(graph, statuses)
    driver = SlurmDriver(
        graph,
        store,
        resources,
        dispatch,
        detach,
        forecast,
        tuple(plugins),
        display or display_for(),
        queue or SlurmQueue(),
    )
    return driver.go()


def cancel(store: Store, keys: Iterable[str]) -> list[str]:
    """Take these jobs out of the scheduler's queue, running ones after their checkpoint. The keys that it had.

    Their leases stay until a driver has read there that a person cancelled them. Raises SchedulerSilent.
    """
    wanted = set(keys)
    found = [
        lease for lease in leases.leases(store) if lease.owner.scheduler == "slurm" and wanted & set(lease.remaining)
    ]
    slurm_queue.cancel(lease.owner.scheduler_id for lease in found)
    return [key for lease in found for key in lease.remaining if key in wanted]


def stuck(store: Store, queue: SlurmQueue) -> dict[str, str]:
    """Key → why its job in the queue will not begin by waiting, in words."""
    found: dict[str, str] = {}
    for lease in leases.leases(store):
        if lease.owner.scheduler == "slurm" and lease.remaining:
            standing = queue.standing(lease.owner.scheduler_id, lease.owner.scheduler_name, lease.started)
            if standing.phase is Phase.WAITING and standing.reason:
                found.update(dict.fromkeys(lease.remaining, standing.reason))
    return found


Bundle = tuple[Job, ...]
"""What one job of the scheduler does in turn."""


class SlurmDriver(Driver):
    free_seconds = 20.0
    """How long after its parents' results a job may go on waiting for their scheduler jobs."""
    parent_seconds = 30.0
    """How long a job waits for its parents' results to become visible on its node."""

    def __init__(
        self,
        graph: Graph,
        store: Store,
        resources: Callable[[str], Resources],
        dispatch: SlurmDispatch,
        detach: bool,
        forecast: Forecast | None,
        plugins: tuple[str, ...],
        display: Display,
        queue: SlurmQueue,
    ) -> None:
        super().__init__(graph, store, resources, dispatch.throttle or ARRAY_LARGEST, forecast, plugins, display)
        self.look_seconds = queue.poll_seconds
        self.dispatch, self.detach, self.queue = dispatch, detach, queue
        store.schedulers["slurm"] = queue.alive
        self.jobs = {job.key: job for job in graph}
        self.awaited = {parent.key for job in graph for parent in job.parents}
        self.submission: Submission | None = None
        self.submitted = 0
        self.unsubmitted = 0
        self.complained = ""
        self.waiting_for_nothing: dict[str, float] = {}
        self.released: dict[str, int] = {}
        self.watched: set[str] = set()
        """Leases whose jobs were not over yet when this driver came: what is cancelled among them is not begun again."""

    def go(self) -> Outcome:
        with self.listening():
            outcome = self.drive(time.monotonic())
        in_queue = sum(status.state.in_flight for status in outcome.statuses.values())
        problems = tuple(problem for problem in outcome.problems if not problem.state.in_flight)
        left = self.detach and not outcome.interrupted and not self.problem and in_queue > 0
        if in_queue and (left or outcome.interrupted):
            self.display.say(f"{in_queue} jobs stay in the queue; the same command attaches to them")
            problems = tuple(problem for problem in problems if problem.state is State.FAILED)
        return replace(outcome, problems=problems, detached=left)

    # What the loop of Driver asks

    def look(self) -> dict[str, Status]:
        self.queue.look()
        self._tell_silence()
        try:
            self._bury_all()
        except (OSError, StoreError) as error:
            self._say_once(f"{error}; it is tried again")
        statuses = super().look()
        for key, reason in stuck(self.store, self.queue).items():
            if key in statuses and statuses[key].state is State.SUBMITTED:
                statuses[key] = replace(statuses[key], reason=f"{statuses[key].reason}: {reason}")
        return statuses

    def _over(self, statuses: Mapping[str, Status]) -> bool:
        if self.detach and not self.unsubmitted:
            return True
        return super()._over(statuses)

    def _mine(self) -> list[Lease]:
        return []  # nothing to wait for: the scheduler keeps what it has

    def _stop_workers(self, hard: bool) -> None:
        pass

    def _leave(self) -> None:
        """Remove the code that nobody runs any more: of earlier submissions, and of ours when all of it is done."""
        slurm_submission.clear(self.store, leases.leases(self.store))
        give_up = time.monotonic() + LEAVING_SECONDS
        while self.submission and all(self.store.is_done(self.jobs[key]) for key in self._held()):
            if not self._held() and not self.queue.busy(f"vr-{self.submission.id}-"):
                self.submission.remove()
                break
            if time.monotonic() > give_up:
                break
            time.sleep(0.2)
        shutil.rmtree(self.home, ignore_errors=True)

    def _held(self) -> list[str]:
        """Keys that jobs of our submission still hold."""
        mine = f"{self.submission.id}-" if self.submission else ""
        return [key for lease in leases.leases(self.store) if lease.id.startswith(mine) for key in lease.remaining]

    def _tend(self, statuses: Mapping[str, Status]) -> None:
        """Submit whatever nobody has yet, with dependencies on what is in the queue already."""
        grants = {job.key: self.retries.grant(job, statuses[job.key]) for job in self.graph}
        if not self._lacking(statuses, grants):
            self.unsubmitted = 0
            return
        if self.queue.silent_since is not None:
            self.unsubmitted = 1
            return
        with self.store.lock("slurm"):  # one driver at a time, or two would both find a job missing
            statuses = self.store.statuses(self.graph)
            in_queue = {
                key: lease.owner.scheduler_id
                for lease in leases.leases(self.store)
                if lease.owner.scheduler == "slurm" and lease.alive(self.store.schedulers)
                for key in lease.remaining
            }
            missing = self._lacking(statuses, grants)
            self.unsubmitted = len(missing)
            while missing and not self.problem:
                wave = [job for job in missing if self._parents_known(job, statuses, in_queue)]
                if not wave:
                    break
                for bundles in self._groups(wave, statuses, in_queue):
                    ids = self._submit(bundles, statuses, in_queue)
                    if ids is None:
                        return
                    in_queue.update(ids)
                missing = [job for job in missing if job.key not in in_queue]

    # Choosing

    def _lacking(self, statuses: Mapping[str, Status], grants: Mapping[str, int]) -> list[Job]:
        """Jobs that nobody has and that may be begun, now or after parents that are in the queue or in this list."""
        found: dict[str, Job] = {}
        for job in self.graph:
            state = statuses[job.key].state
            if state is State.DONE or state.in_flight or not grants[job.key]:
                continue
            if all(
                statuses[parent.key].state is State.DONE or self._queued(statuses[parent.key]) or parent.key in found
                for parent in job.parents
            ):
                found[job.key] = job
        return [job for job in self.order if job.key in found]

    @staticmethod
    def _queued(status: Status) -> bool:
        return status.state.in_flight and (
            status.state is State.SUBMITTED or bool(status.attempt and status.attempt.owner.scheduler)
        )

    @staticmethod
    def _parents_known(job: Job, statuses: Mapping[str, Status], in_queue: Mapping[str, str]) -> bool:
        return all(statuses[parent.key].state is State.DONE or parent.key in in_queue for parent in job.parents)

    def _groups(
        self, wave: list[Job], statuses: Mapping[str, Status], in_queue: Mapping[str, str]
    ) -> Iterable[list[Bundle]]:
        """Jobs of the same shape behind the same parents: one array, or several when it would be too long. An element
        is a bundle of jobs that one process does in turn."""
        groups: dict[Any, list[Job]] = {}
        for job in wave:
            groups.setdefault((job.kind, self._needed(job, statuses, in_queue), self.scale(job)), []).append(job)
        for group in groups.values():
            bundles = list(self._bundles(group))
            for start in range(0, len(bundles), ARRAY_LARGEST):
                yield bundles[start : start + ARRAY_LARGEST]

    def _bundles(self, group: list[Job]) -> Iterable[Bundle]:
        """Only jobs that nothing waits for are bundled: a failure among them must not hold up anybody's children."""
        needs = self.resources[group[0].kind]
        shared: dict[str, list[Job]] = {}
        for job in group:
            alone = needs.bundle == 1 or needs.processes > 1 or job.key in self.awaited or not self.group(job)
            shared.setdefault(job.key if alone else self.group(job), []).append(job)
        for jobs in shared.values():
            for start in range(0, len(jobs), needs.bundle):
                yield tuple(jobs[start : start + needs.bundle])

    @staticmethod
    def _needed(job: Job, statuses: Mapping[str, Status], in_queue: Mapping[str, str]) -> tuple[str, ...]:
        waits = [parent for parent in job.parents if statuses[parent.key].state is not State.DONE]
        return tuple(sorted({in_queue[parent.key] for parent in waits}))

    def scale(self, job: Job) -> Scale:
        """Twice what the last request was for each time the job ran out of it."""
        causes = [attempt.failure.cause for attempt in self.store.attempts(job) if attempt.failure]
        return Scale(2.0 ** min(2, causes.count("memory")), 2.0 ** min(2, causes.count("timeout")))

    # Submitting

    def _submit(
        self, bundles: list[Bundle], statuses: Mapping[str, Status], in_queue: Mapping[str, str]
    ) -> dict[str, str] | None:
        """Hand one array to the scheduler: key → scheduler id. None when it refused; `problem` says so if for good."""
        from submitit.core.utils import FailedJobError
        from submitit.slurm.slurm import SlurmExecutor

        submission, first = self._submission(), bundles[0][0]
        kind, scale, longest = first.kind, self.scale(first), max(map(len, bundles))
        needs, name = self.resources[kind], f"vr-{submission.id}-{kind}"
        chosen = parameters(needs, self.dispatch, name, scale, longest)
        if ids := self._needed(first, statuses, in_queue):
            chosen["dependency"] = "afterok:" + ":".join(ids)
        mine = [self._lease(bundle, submission) for bundle in bundles]
        for lease in mine:  # before the jobs begin, which look for them
            self.watched.add(leases.write(self.store, lease).id)
        minutes = scaled_minutes(needs, scale, longest)
        settings = {**self._settings(kind), "minutes": minutes, "stop_lead": stop_lead(self.dispatch, minutes)}
        assignments = [
            Assignment(
                root=str(self.store.root),
                folders=tuple(self.folders[job.key] for job in bundle),
                lease=lease.id,
                submission=submission.id,
                settings=settings,
                plugins=self.plugins,
                code=self.provenance,
                processes=needs.processes,
                parent_seconds=self.parent_seconds,
            )
            for bundle, lease in zip(bundles, mine, strict=True)
        ]
        try:
            executor = SlurmExecutor(submission.submitit)
            executor._throttling = 0  # submitit waits 0.2 s between requests by default
            executor.update_parameters(**chosen, setup=setup_lines(self.dispatch, submission.code, needs.cpus))
            jobs = executor.map_array(perform, assignments)
        except (FailedJobError, RuntimeError, ValueError) as error:
            for lease in mine:
                leases.drop(self.store, lease.id)
            self._refused(kind, str(error))
            return None
        except OSError as error:
            raise StoreError(files.explain(error, submission.folder)) from error
        found = {}
        for bundle, lease, submitted in zip(bundles, mine, jobs, strict=True):
            owner = Owner(scheduler="slurm", scheduler_id=submitted.job_id, scheduler_name=name)
            leases.update(self.store, lease.id, owner=owner, log=str(submitted.paths.stdout))
            found.update({job.key: submitted.job_id for job in bundle})
        return found

    def _submission(self) -> Submission:
        """This driver's, with the code as it is at its first request."""
        if self.submission is None:
            from harness.worker.provenance import code

            self.provenance = code()
            self.submission = Submission.create(self.store, driver=self.me.record(), code=self.provenance)
        return self.submission

    def _lease(self, bundle: Bundle, submission: Submission) -> Lease:
        self.submitted += 1
        return Lease(
            f"{submission.id}-{self.submitted}",
            owner=self.me,
            driver=None,
            plan=str(submission.folder.relative_to(self.store.root)),
            remaining=tuple(job.key for job in bundle),
            shape=self.shape(bundle[0].kind),
            code=self.code,
        )

    def _refused(self, kind: str, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if "error" in line.lower()] or [text.strip()[-300:]]
        message = f"sbatch refuses a {kind} job: {lines[0]}"
        if LATER.search(text):
            self._say_once(f"{message}; it is tried again")
        else:
            self.problem = f"{message}; see the profile's `dispatch` and `resources.{kind}`"

    def _say_once(self, text: str) -> None:
        if text != self.complained:
            self.complained = text
            self.display.say(text)

    def _tell_silence(self) -> None:
        if self.queue.silent_since is not None:
            if time.time() - self.queue.silent_since > SILENCE_SECONDS:
                self._say_once("the scheduler does not answer; jobs go on without it, and files say what is done")
        elif self.complained.startswith("the scheduler does not"):
            self._say_once("the scheduler answers again")

    # Jobs that the scheduler has ended

    def _bury_all(self) -> None:
        """What the store cannot know by itself: that a job was killed for its memory or its time, or never began."""
        if self.queue.silent_since is not None:
            return
        for lease in leases.leases(self.store):
            if not lease.remaining or not lease.plan.startswith(".slurm/"):
                continue
            if lease.owner.scheduler != "slurm":
                if lease.owner == self.me or lease.owner.alive() is False:  # written, but never submitted
                    leases.drop(self.store, lease.id)
                continue
            standing = self.queue.standing(lease.owner.scheduler_id, lease.owner.scheduler_name, lease.started)
            if standing.state and standing.state not in slurm_queue.ENDED:
                self.watched.add(lease.id)
            self._free(lease, standing)
            if standing.launch_failed:
                self._release(lease, standing)
            if standing.phase.over:
                with self.store.lock("slurm"):
                    if leases.read(self.store, lease.id) is not None:
                        self._bury_one(lease, standing)

    def _free(self, lease: Lease, standing: Standing) -> None:
        """A job that waits for parents whose results are there waits for nothing: a controller that crashed may have
        restored a parent that had ended, and hold it."""
        known = [self.jobs[key] for key in lease.remaining if key in self.jobs]
        parents = [parent for job in known for parent in job.parents]
        if not (standing.for_parents and known and all(self.store.is_done(parent) for parent in parents)):
            self.waiting_for_nothing.pop(lease.id, None)
            return
        since = self.waiting_for_nothing.setdefault(lease.id, time.time())
        if time.time() - since > self.free_seconds:
            self.waiting_for_nothing[lease.id] = time.time()
            try:
                self.queue.command(["scontrol", "update", f"JobId={lease.owner.scheduler_id}", "Dependency="])
            except slurm_queue.SchedulerSilent as error:
                self._say_once(f"job {lease.owner.scheduler_id} waits for jobs that are done: {error}")

    def _release(self, lease: Lease, standing: Standing) -> None:
        """Give a job that its node did not start another chance; SLURM itself holds it for ever."""
        before = self.released.get(lease.id, 0)
        if before > min(RELEASES - 1, standing.restarts):
            return  # still the hold that was released already, or once too often
        self.released[lease.id] = before + 1
        try:
            self.queue.command(["scontrol", "release", lease.owner.scheduler_id])
        except slurm_queue.SchedulerSilent as error:
            self._say_once(f"job {lease.owner.scheduler_id} is held because its node did not start it: {error}")

    def _bury_one(self, lease: Lease, standing: Standing) -> None:
        last = last_words(Path(lease.log))
        for key in lease.remaining:
            try:
                record = self.store.record(key)
            except StoreError:
                continue  # its folder was removed
            if self.store.is_done(record):
                continue
            newest = next(reversed(self.store.attempts(record)), None)
            begun = newest is not None and newest.claim.get("lease") == lease.id
            if standing.phase is Phase.ENDED and not (begun and newest.failure):
                cause, kind, message = why(standing.state, last, begun=begun, any_begun=bool(lease.current))
                if cause == "timeout" and begun and newest.complete_checkpoints():
                    cause = ""  # it got further: it is resumed as after any interruption
                if cause:
                    self._fail(record, newest if begun else None, lease, Failure(cause, kind, message))
            if key in self.jobs and lease.id in self.watched and self._cancelled_by_hand(key, standing):
                self.retries.give_up(self.jobs[key], f"cancelled in the scheduler (job {lease.owner.scheduler_id})")
        leases.drop(self.store, lease.id)

    def _fail(self, record: Record, attempt: Attempt | None, lease: Lease, failure: Failure) -> None:
        """Write down how the job ended, in an attempt of our own where it had none."""
        try:
            attempt = attempt or self.store.begin_attempt(record, lease=lease.id)
        except (Held, AlreadyDone):
            return  # somebody else has it by now
        attempt.fail(failure.cause, failure.type, failure.message)

    def _cancelled_by_hand(self, key: str, standing: Standing) -> bool:
        by_dependency = standing.reason == "DependencyNeverSatisfied" or self._parent_failed(key)
        return standing.state == "CANCELLED" and not by_dependency

    def _parent_failed(self, key: str) -> bool:
        statuses = self.store.statuses(self.jobs[key].parents)
        return any(
            status.state in (State.FAILED, State.BLOCKED, State.INTERRUPTED, State.READY, State.MISSING)
            for status in statuses.values()
        )
