"""The loop of one driver: poll, start jobs, show progress, until there is nothing left to wait for.

It does not know where jobs run: a backend does, for a host or a cluster.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from harness.dispatch.driver import forecast as forecasts
from harness.dispatch.driver.backend import Backend, GraphRun
from harness.dispatch.driver.outcome import Outcome, outcome_of
from harness.dispatch.driver.progress import Display, Running, Snapshot, display_for
from harness.jobs import Graph, Job
from harness.store import State, Status, Store, StoreError

if TYPE_CHECKING:
    from harness.spec.profile import Resources

LOOK_SHARE, LONGEST_PAUSE_SECONDS = 0.04, 2.0
"""At most 4 % of the time is spent polling, so large graphs are polled less often, but never less than every 2 s."""
SHOW_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""How long a full or read-only store is waited for."""


def drive(
    graph: Graph,
    store: Store,
    backend: Callable[[GraphRun], Backend],
    *,
    resources: Callable[[str], Resources],
    forecast: forecasts.Forecast | None = None,
    plugins: Iterable[str] = (),
    display: Display | None = None,
) -> Outcome:
    """Get every job of `graph` done, or say why not; returns at once if all are done. backend: called only if it is
    needed."""
    started = time.monotonic()
    statuses = store.statuses(graph)
    if all(status.state is State.DONE for status in statuses.values()):
        return outcome_of(graph, statuses)
    display = display or display_for()
    run = GraphRun(graph, store, resources=resources, forecast=forecast, plugins=plugins, say=display.say)
    driver = Driver(run, backend(run), display)
    with _Listening(driver):
        return driver.drive(started)


class Driver:
    def __init__(self, run: GraphRun, backend: Backend, display: Display) -> None:
        self.run, self.backend, self.display = run, backend, display
        self.stops = 0
        self.refused_since: float | None = None
        self.pace = forecasts.Pace()
        self.first: dict[Path, forecasts.Progress] = {}
        """By attempt: the first progress that was seen of it."""

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler of Ctrl-C."""
        self.stops += 1

    def drive(self, started: float) -> Outcome:
        asked, shown, began = 0, 0.0, time.monotonic()
        statuses = self.backend.look()
        first = before = statuses
        try:
            while True:
                if self.stops > asked:
                    asked = self.stops
                    self.backend.stop(hard=asked > 1)
                if self.stops and self.backend.stopped():
                    break
                if not self.stops:
                    self._begin_patiently(statuses)
                    if self.run.problem or self._over(statuses):
                        break
                    if self.backend.may_leave:
                        statuses = self.backend.look()  # with what was begun just now
                        break
                changed = self._changed(before, statuses)
                if changed or time.monotonic() - shown > SHOW_SECONDS:
                    self.display.show(self.snapshot(statuses, changed))
                    shown, before = time.monotonic(), statuses
                busy = time.monotonic() - began
                time.sleep(min(max(self.backend.look_seconds, busy / LOOK_SHARE), LONGEST_PAUSE_SECONDS))
                began = time.monotonic()
                statuses = self.backend.look()
            self.display.show(self.snapshot(statuses, self._changed(before, statuses)))
        finally:
            self.backend.leave()
            self.display.close()
        return outcome_of(
            self.run.graph,
            {key: self.final(key, status) for key, status in statuses.items()},
            ran=tuple(key for key in statuses if statuses[key].state is State.DONE is not first[key].state),
            interrupted=bool(self.stops),
            seconds=time.monotonic() - started,
            notes=(self.run.problem,) if self.run.problem else (),
        )

    def _begin_patiently(self, statuses: Mapping[str, Status]) -> None:
        """Waits a while for a store that cannot be written: running jobs may be about to free space."""
        try:
            self.backend.begin(statuses)
            self.refused_since = None
        except StoreError as error:
            if self.refused_since is None:
                self.refused_since = time.monotonic()
                self.display.say(f"{error}; waiting up to {PATIENCE_SECONDS:.0f} s")
            elif time.monotonic() - self.refused_since > PATIENCE_SECONDS:
                raise

    def _over(self, statuses: Mapping[str, Status]) -> bool:
        """Whether nothing is running that is worth waiting for, and nothing may be started."""
        for job in self.run.graph:
            status = statuses[job.key]
            if status.state in (State.READY, State.INTERRUPTED, State.FAILED) and not self.run.retries.given_up(job):
                return False
            if status.state.in_flight and not self.run.unseen(status):
                return False
        return True

    def final(self, key: str, status: Status) -> Status:
        """The status for the outcome, with the reason why a job is not started again."""
        reason = self.run.retries.given_up(self.run.graph[key])
        if status.state in (State.READY, State.INTERRUPTED) and reason:
            return Status(State.FAILED, reason, status.attempt)
        if status.state is State.FAILED and reason not in status.reason:
            return Status(State.FAILED, f"{status.reason}; {reason}", status.attempt)
        if status.state is State.READY and self.run.problem:
            return Status(State.READY, self.run.problem)
        if status.state is State.MISSING and not self.stops:
            return Status(State.BLOCKED, status.reason, status.attempt)
        return status

    def _changed(self, before: Mapping[str, Status], statuses: Mapping[str, Status]) -> list[Job]:
        return [job for job in self.run.graph if statuses[job.key].state is not before[job.key].state]

    def snapshot(self, statuses: Mapping[str, Status], changed: list[Job]) -> Snapshot:
        self._learn(statuses, changed)
        pace, begun = self.pace.copy(), {}
        for job in self.run.order:
            attempt = statuses[job.key].attempt
            if statuses[job.key].state is State.RUNNING and attempt is not None:
                progress, started = attempt.progress(), float(attempt.claim.get("started", time.time()))
                first = self.first.setdefault(attempt.path, progress) if progress else None
                begun[job.key] = attempt, first, progress, started
                if attempt.number == 1 and forecasts.tells(first, progress):
                    whole = time.time() - started + forecasts.left_of_running(first, progress, started, 0.0)
                    pace.saw(job.kind, whole, self.run.seconds[job.key])
        running, remaining = [], {}
        for job in self.run.order:
            if statuses[job.key].state in (State.DONE, State.DAMAGED, State.FAILED, State.BLOCKED):
                continue
            remaining[job.key] = self.run.seconds[job.key] * pace.of(job.kind)
            if job.key in begun:
                attempt, first, progress, started = begun[job.key]
                remaining[job.key] = left = forecasts.left_of_running(first, progress, started, remaining[job.key])
                running.append(Running(job, progress, left, attempt))
        left = forecasts.left_of_all(self.run.order, remaining, {item.job.key for item in running}, self.backend.slots)
        return Snapshot(
            statuses, running, [(job, statuses[job.key]) for job in changed], left, stopping=bool(self.stops)
        )

    def _learn(self, statuses: Mapping[str, Status], changed: list[Job]) -> None:
        """The pace of jobs that have ended since the last snapshot. A later attempt may have done only part of the work."""
        for job in changed:
            done = self.run.store.done(job) if statuses[job.key].state is State.DONE else None
            if done and done["attempt"] == 1:
                self.pace.saw(job.kind, done["seconds"], self.run.seconds[job.key])


class _Listening:
    """Routes Ctrl-C to the driver, if this is the main thread."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.main = threading.current_thread() is threading.main_thread()
        self.before: Any = None

    def __enter__(self) -> None:
        if self.main:
            self.before = signal.signal(signal.SIGINT, self.driver.interrupt)

    def __exit__(self, *error: object) -> None:
        if self.main:
            signal.signal(signal.SIGINT, self.before)
