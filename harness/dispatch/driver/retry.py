"""Which jobs may be retried, and how often. Pure bookkeeping over what the store says.

An interruption (killed, preempted, stopped) costs no retry as long as the job made progress. A job whose code raised is
never retried in the same run; one that ran out of memory is retried with half the micro-batch; one that the disk
refused, a few times.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from harness.jobs import Job
from harness.store import Attempt, State, Status, Store

FRUITLESS_INTERRUPTIONS = 3
"""Interruptions in a row, without a new checkpoint, after which a job is given up."""
TRIES = {"oom": 4, "storage": 5, "timeout": 1, "memory": 1, "code": 0, "input": 0}
"""How often a job is begun again in one run after a failure of each cause."""
STORAGE_PAUSE_SECONDS = 5.0


@dataclass
class History:
    """One job in one run. seen: attempts that are accounted for."""

    seen: int = 0
    furthest: int = -1
    fruitless: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    not_before: float = 0.0
    given_up: str = ""


class Retries:
    """Grants attempt numbers. Jobs that failed before this run are retried: the user asked for it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._histories: dict[str, History] = {}

    def grant(self, job: Job, status: Status) -> int:
        """The number of the attempt that may be begun now; 0 for none."""
        state, newest = status.state, status.attempt.number if status.attempt else 0
        if state in (State.DONE, State.DAMAGED):
            return 0
        history = self._histories.get(job.key)
        if history is None:
            history = self._histories[job.key] = self._begin(job, state, newest)
        if state.in_flight:
            return 0
        if newest > history.seen:
            for attempt in self.store.attempts(job):  # other drivers may have begun some between two polls
                if history.seen < attempt.number <= newest:
                    history.seen = attempt.number
                    self._account(job, attempt, status, history)
        if history.given_up or time.monotonic() < history.not_before:
            return 0
        return newest + 1

    def _begin(self, job: Job, state: State, newest: int) -> History:
        """At the first poll, ended attempts belong to an earlier run."""
        if not newest and state in (State.MISSING, State.SUBMITTED):  # their status need not name an attempt
            newest = max((attempt.number for attempt in self.store.attempts(job)), default=0)
        if state.in_flight:
            return History(seen=newest - 1 if state is State.RUNNING else newest)
        return History(seen=newest, furthest=self._furthest(job, newest) if newest else -1)

    def give_up(self, job: Job, reason: str) -> None:
        """Not again in this run."""
        self._histories.setdefault(job.key, History()).given_up = reason

    def given_up(self, job: Job) -> str:
        """Why the job is not retried in this run; "" if it may be."""
        history = self._histories.get(job.key)
        return history.given_up if history else ""

    def _account(self, job: Job, attempt: Attempt, status: Status, history: History) -> None:
        failure = attempt.failure
        if failure is None or failure.cause == "interrupted":
            furthest = self._furthest(job, attempt.number)
            history.fruitless = 0 if furthest > history.furthest else history.fruitless + 1
            history.furthest = max(furthest, history.furthest)
            if history.fruitless >= FRUITLESS_INTERRUPTIONS:
                reason = (
                    f"interrupted {history.fruitless} times without progress: {status.reason}; where the system kills for "
                    "memory, run fewer jobs at once (dispatch.slots in the profile)"
                )
                history.given_up = history.given_up or reason
            return
        history.tries[failure.cause] = tried = history.tries.get(failure.cause, 0) + 1
        if tried > TRIES.get(failure.cause, 0) or (failure.cause == "oom" and (failure.micro_batch or 1) <= 1):
            history.given_up = history.given_up or str(failure)
        elif failure.cause == "storage":
            history.not_before = time.monotonic() + STORAGE_PAUSE_SECONDS

    def _furthest(self, job: Job, newest: int) -> int:
        """The step of the furthest complete checkpoint of attempts up to this one, or -1."""
        return max(
            (
                step
                for attempt in self.store.attempts(job)
                if attempt.number <= newest
                for step, _ in attempt.complete_checkpoints()
            ),
            default=-1,
        )
