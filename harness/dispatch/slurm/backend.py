"""Jobs on a SLURM cluster: the whole graph is submitted at once, then only watched; the driver may leave at any time.

Every job that the scheduler has is a lease in the store, owned by its scheduler id, so that any other driver (or verb)
finds it there and attaches instead of submitting it again. Status is read from disk; the scheduler is asked only
whether it still has a job, once per poll for all jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.dispatch.driver.backend import GraphRun
from harness.dispatch.driver.forecast import Forecast, group_of
from harness.dispatch.driver.loop import drive
from harness.dispatch.driver.outcome import Outcome
from harness.dispatch.driver.progress import Display, display_for
from harness.dispatch.slurm import watch
from harness.dispatch.slurm.limits import Backoff, later, limits_of, no_more, scale_of
from harness.dispatch.slurm.queue import SchedulerSilent, SlurmQueue
from harness.dispatch.slurm.request import (
    Limits,
    Scale,
    parameters,
    scaled_memory,
    scaled_minutes,
    setup_lines,
    stop_lead,
)
from harness.dispatch.slurm.submission import Submission, clear, own_environment
from harness.dispatch.slurm.task import Assignment, perform
from harness.dispatch.slurm.watch import Watch, submitted
from harness.jobs import Graph, Job
from harness.store import Owner, State, Status, Store, StoreError, files, leases
from harness.store.leases import Lease

if TYPE_CHECKING:
    from harness.spec.profile import Resources, SlurmDispatch

ARRAY_LARGEST = 1000
"""Elements of one array; SLURM's own default limit (MaxArraySize) is 1001."""
LOOK_SECONDS = 1.0
"""Poll interval of the store; the scheduler is asked less often."""
SILENCE_SECONDS = 10.0
"""A scheduler that is silent for less than this is not reported."""
LEAVING_SECONDS = 5.0
"""How long a driver waits for its last jobs to leave the queue before it removes their code."""


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
    display = display or display_for()

    def cluster(run: GraphRun) -> SlurmBackend:
        return SlurmBackend(run, dispatch, queue or SlurmQueue(), detach=detach)

    outcome = drive(graph, store, cluster, resources=resources, forecast=forecast, plugins=plugins, display=display)
    in_queue = sum(status.state.in_flight for status in outcome.statuses.values())
    problems = tuple(problem for problem in outcome.problems if not problem.state.in_flight)
    left = detach and not outcome.interrupted and not outcome.notes and in_queue > 0
    if in_queue and (left or outcome.interrupted):
        display.say(f"{in_queue} jobs stay in the queue; the same command attaches to them")
        problems = tuple(problem for problem in problems if problem.state is State.FAILED)
    return replace(outcome, problems=problems, detached=left)


Bundle = tuple[Job, ...]
"""Jobs that one scheduler job runs in turn."""


class SlurmBackend:
    """`harness.dispatch.driver.backend.Backend` over a cluster's scheduler."""

    free_seconds = 20.0
    """How long a job may wait for its parents' scheduler jobs once their results are there."""
    parent_seconds = 30.0
    """How long a job waits for its parents' results to become visible on its node."""

    def __init__(self, run: GraphRun, dispatch: SlurmDispatch, queue: SlurmQueue, *, detach: bool = False) -> None:
        """dispatch: the profile's block. detach: the driver may leave once everything that can be submitted is."""
        self.run, self.store, self.me = run, run.store, run.me
        self.slots = dispatch.throttle or ARRAY_LARGEST
        self.look_seconds = min(LOOK_SECONDS, queue.poll_seconds)
        self.dispatch, self.detach, self.queue = dispatch, detach, queue
        self.store.schedulers["slurm"] = queue.alive
        self.jobs = {job.key: job for job in run.graph}
        self.awaited = {parent.key for job in run.graph for parent in job.parents}
        self.submission: Submission | None = None
        self.submitted = 0
        self.unsubmitted = 0
        self.complained = ""
        self.limits: Limits | None = None
        self.backoff = Backoff()
        self.watch = Watch(self.store, self.jobs, queue, run.retries, self.me, self._say_once, self.free_seconds)

    # Backend

    @property
    def may_leave(self) -> bool:
        return self.detach and not self.unsubmitted

    def look(self) -> dict[str, Status]:
        self.queue.look()
        self._tell_silence()
        try:
            self.watch.look()
        except (OSError, StoreError) as error:
            self._say_once(f"{error}; trying again")
        statuses = self.store.statuses(self.run.graph)
        reasons = watch.stuck(self.store, self.queue)
        self.watch.tell_stuck(reasons)
        for key, reason in reasons.items():
            if key in statuses and statuses[key].state is State.SUBMITTED:
                statuses[key] = replace(statuses[key], reason=f"{statuses[key].reason}: {reason}")
        return statuses

    def begin(self, statuses: Mapping[str, Status]) -> None:
        """Submit all jobs that nobody has submitted yet, depending on those already in the queue."""
        if not self._lacking(statuses):
            self.unsubmitted = 0
            return
        if self.queue.silent_since is not None or self.backoff.waiting:
            self.unsubmitted = 1
            return
        with self.store.lock("slurm"):  # one driver at a time, or two would both find a job missing
            statuses = self.store.statuses(self.run.graph)
            in_queue = {
                key: lease.owner.scheduler_id
                for lease in leases.leases(self.store)
                if submitted(lease) and lease.alive(self.store.schedulers)
                for key in lease.remaining
            }
            missing = self._lacking(statuses)
            self.unsubmitted = len(missing)
            while missing and not self.run.problem:
                wave = [job for job in missing if self._parents_known(job, statuses, in_queue) and self._can_grow(job)]
                if not wave:
                    break
                for bundles in self._groups(wave, statuses, in_queue):
                    ids = self._submit(bundles, statuses, in_queue)
                    if ids is None:
                        return
                    in_queue.update(ids)
                missing = [job for job in missing if job.key not in in_queue and not self.run.retries.given_up(job)]
            self.unsubmitted = len(missing)

    def stop(self, hard: bool) -> None:
        """The scheduler keeps what it has; `run.py cancel` takes it out."""

    def stopped(self) -> bool:
        return True

    def leave(self) -> None:
        """Remove copied code that no job runs any more: of earlier submissions, and of ours once it is done."""
        clear(self.store, leases.leases(self.store))
        give_up = time.monotonic() + LEAVING_SECONDS
        while self.submission and all(self.store.is_done(self.jobs[key]) for key in self._held()):
            if not self._held() and not self.queue.busy(f"vr-{self.submission.id}-"):
                self.submission.remove()
                break
            if time.monotonic() > give_up:
                break
            time.sleep(0.2)

    def _held(self) -> list[str]:
        """Keys that jobs of our submission still hold."""
        mine = f"{self.submission.id}-" if self.submission else ""
        return [key for lease in leases.leases(self.store) if lease.id.startswith(mine) for key in lease.remaining]

    # Choosing

    def _lacking(self, statuses: Mapping[str, Status]) -> list[Job]:
        """Jobs that nobody has submitted and that may run, now or after parents that are queued or in this list."""
        grants = {job.key: self.run.retries.grant(job, statuses[job.key]) for job in self.run.graph}
        found: dict[str, Job] = {}
        for job in self.run.graph:
            state = statuses[job.key].state
            if state is State.DONE or state.in_flight or not grants[job.key]:
                continue
            if all(
                statuses[parent.key].state is State.DONE or self._queued(statuses[parent.key]) or parent.key in found
                for parent in job.parents
            ):
                found[job.key] = job
        return [job for job in self.run.order if job.key in found]

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
        needs = self.run.resources[group[0].kind]
        shared: dict[str, list[Job]] = {}
        for job in group:
            alone = needs.bundle == 1 or needs.processes > 1 or job.key in self.awaited or not group_of(job)
            shared.setdefault(job.key if alone else group_of(job), []).append(job)
        for jobs in shared.values():
            for start in range(0, len(jobs), needs.bundle):
                yield tuple(jobs[start : start + needs.bundle])

    @staticmethod
    def _needed(job: Job, statuses: Mapping[str, Status], in_queue: Mapping[str, str]) -> tuple[str, ...]:
        waits = [parent for parent in job.parents if statuses[parent.key].state is not State.DONE]
        return tuple(sorted({in_queue[parent.key] for parent in waits}))

    def scale(self, job: Job) -> Scale:
        return scale_of(self.store.attempts(job))

    def _can_grow(self, job: Job) -> bool:
        """Gives up a job that already used as much as its partition allows."""
        attempts = self.store.attempts(job)
        scale = scale_of(attempts)
        if scale != Scale() and (reason := no_more(attempts, self.run.resources[job.kind], self._limits(scale))):
            self.run.retries.give_up(job, reason)
        return not self.run.retries.given_up(job)

    def _limits(self, scale: Scale) -> Limits:
        """The partition's limits; queried once, and only for a request larger than the profile's."""
        if scale == Scale():
            return Limits()
        if self.limits is None:
            try:
                text = self.queue.command(["scontrol", "show", "partition", "--oneliner"])
            except SchedulerSilent:
                return Limits()  # sbatch will say what it does not take
            self.limits = limits_of(text, self.dispatch)
        return self.limits

    # Submitting

    def _submit(
        self, bundles: list[Bundle], statuses: Mapping[str, Status], in_queue: Mapping[str, str]
    ) -> dict[str, str] | None:
        """Submit one array: key → scheduler id, without jobs that were given up instead. None if it was refused;
        `problem` is set if it always will be."""
        from submitit.core.utils import FailedJobError
        from submitit.slurm.slurm import SlurmExecutor

        submission, first = self._submission(), bundles[0][0]
        kind, scale, longest = first.kind, self.scale(first), max(map(len, bundles))
        needs, name = self.run.resources[kind], f"vr-{submission.id}-{kind}"
        limits, parents = self._limits(scale), self._needed(first, statuses, in_queue)
        chosen = parameters(needs, self.dispatch, name, scale, longest, limits, parents)
        mine = [self._lease(bundle, submission) for bundle in bundles]
        for lease in mine:  # before the jobs begin, which look for them
            self.watch.seen.add(leases.write(self.store, lease).id)
        minutes = scaled_minutes(needs, scale, longest, limits)
        given = {"minutes": minutes, "memory_gb": scaled_memory(needs, scale, limits)}
        settings = {**self.run.settings(kind), **given, "stop_lead": stop_lead(self.dispatch, minutes)}
        assignments = [
            Assignment(
                root=str(self.store.root),
                folders=tuple(self.run.folders[job.key] for job in bundle),
                lease=lease.id,
                submission=submission.id,
                settings=settings,
                plugins=self.run.plugins,
                code=self.provenance,
                processes=needs.processes,
                parent_seconds=self.parent_seconds,
            )
            for bundle, lease in zip(bundles, mine, strict=True)
        ]
        try:
            with own_environment():
                executor = SlurmExecutor(submission.submitit)
                executor._throttling = 0  # submitit waits 0.2 s between requests by default
                executor.update_parameters(**chosen, setup=setup_lines(self.dispatch, submission.code, needs.cpus))
                jobs = executor.map_array(perform, assignments)
        except (FailedJobError, RuntimeError, ValueError) as error:
            for lease in mine:
                leases.drop(self.store, lease.id)
            return self._refused(bundles, scale, str(error))
        except OSError as error:
            raise StoreError(files.explain(error, submission.folder)) from error
        self.backoff.accepted()
        found = {}
        for bundle, lease, request in zip(bundles, mine, jobs, strict=True):
            owner = Owner(scheduler="slurm", scheduler_id=request.job_id, scheduler_name=name)
            leases.update(self.store, lease.id, owner=owner, log=str(request.paths.stdout))
            found.update({job.key: request.job_id for job in bundle})
        return found

    def _submission(self) -> Submission:
        """This driver's, with the code as it is at its first request."""
        if self.submission is None or not self.submission.code.is_dir():
            from harness.worker.provenance import code

            code.cache_clear()  # it was asked when the driver began, and files may have changed since
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
            shape=self.run.shape(bundle[0].kind),
            code=self.run.code,
        )

    def _refused(self, bundles: list[Bundle], scale: Scale, text: str) -> dict[str, str] | None:
        """What `_submit` returns then. A request that we made larger ourselves costs its own jobs, not the run."""
        kind = bundles[0][0].kind
        lines = [line.strip() for line in text.splitlines() if "error" in line.lower()] or [text.strip()[-300:]]
        message = f"sbatch refuses a {kind} job: {lines[0]}"
        if later(text):
            self.backoff.refused()
            self._say_once(f"{message}; trying again")
            return None
        if scale == Scale():
            self.run.problem = f"{message}; see the profile's `dispatch` and `resources.{kind}`"
            return None
        what = " and ".join(word for word, by in (("memory", scale.memory), ("minutes", scale.minutes)) if by > 1)
        for job in (job for bundle in bundles for job in bundle):
            self.run.retries.give_up(job, f"it ran out of its {what}, and the request for more was refused: {lines[0]}")
        return {}

    def _say_once(self, text: str) -> None:
        if text != self.complained:
            self.complained = text
            self.run.say(text)

    def _tell_silence(self) -> None:
        if self.queue.silent_since is not None:
            if time.time() - self.queue.silent_since > SILENCE_SECONDS:
                self._say_once("the scheduler does not answer; jobs keep running, and their status is read from disk")
        elif self.complained.startswith("the scheduler does not"):
            self._say_once("the scheduler answers again")
