"""The states of a job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.store.attempts import Attempt


class State(StrEnum):
    MISSING = "missing"
    """Nothing there yet; its parents come first."""
    BLOCKED = "blocked"
    """A parent failed, so it cannot run."""
    READY = "ready"
    SUBMITTED = "submitted"
    """Handed to a worker or a scheduler, not started."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Stopped or killed; another attempt resumes from the newest checkpoint."""
    FAILED = "failed"
    DONE = "done"
    DAMAGED = "damaged"
    """It was done, but its outputs have changed. Nothing is recomputed until a person asks for it."""
    SPARED = "not needed"
    """Not done, and no unfinished job waits for it. Set by callers that know the graph, not by the store."""

    @property
    def in_flight(self) -> bool:
        return self in (State.SUBMITTED, State.RUNNING)


@dataclass(frozen=True)
class Status:
    """reason: one line for people. attempt: the newest one, or the one that won. stale: code changed since (advice)."""

    state: State
    reason: str = ""
    attempt: Attempt | None = None

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else str(self.state)
