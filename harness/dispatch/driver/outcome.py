"""How a run of a graph ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.jobs import Graph, Job
from harness.store import State, Status


@dataclass(frozen=True)
class Ended:
    """A job that did not get done. log and traceback: files, or None."""

    job: Job
    state: State
    reason: str
    log: Path | None = None
    traceback: Path | None = None

    def __str__(self) -> str:
        files = [f"{name} {path}" for name, path in (("log", self.log), ("traceback", self.traceback)) if path]
        said = [f"{self.job.kind} {self.job.name}", str(self.state), self.reason]  # nothing ails a job that only was not begun
        return ": ".join(filter(None, said)) + (f"  [{', '.join(files)}]" if files else "")


@dataclass(frozen=True)
class Outcome:
    """statuses: by key. problems: one line for each job that failed, was blocked or stays unfinished. ran: keys done now."""

    statuses: Mapping[str, Status]
    problems: tuple[Ended, ...] = ()
    ran: tuple[str, ...] = ()
    interrupted: bool = False
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    detached: bool = False
    """The driver left on purpose; a scheduler goes on."""

    @property
    def complete(self) -> bool:
        return all(status.state is State.DONE for status in self.statuses.values())

    @property
    def exit_code(self) -> int:
        """0 all done or handed over, 1 something failed, 130 stopped by Ctrl-C."""
        return 130 if self.interrupted else 0 if self.complete or (self.detached and not self.problems) else 1


def outcome_of(graph: Graph, statuses: Mapping[str, Status], **facts: object) -> Outcome:
    problems = []
    for job in graph:
        status = statuses[job.key]
        if status.state is State.DONE:
            continue
        attempt = status.attempt
        failure = attempt.failure if attempt else None
        log = attempt.log if attempt and attempt.log.exists() else None
        problems.append(Ended(job, status.state, status.reason, log, failure.traceback if failure else None))
    return Outcome(statuses, tuple(problems), **facts)  # type: ignore[arg-type]
