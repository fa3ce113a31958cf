"""Progress display: a live table on a terminal, otherwise one line per change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from harness.durations import duration
from harness.jobs import Job
from harness.outgoing import inert
from harness.store import Attempt, State, Status


def told(line: Mapping[str, Any]) -> str:
    """One reported step, with whatever it has of loss, learning rate and pace: step 40/125  loss 1.82  lr 0.0006  2.1 s/step"""
    values = line["values"]
    found = [f"{name} {values[name]:.3g}" for name in ("loss", "lr") if name in values]
    if "seconds_per_step" in values:
        found.append(f"{values['seconds_per_step']:.2g} s/step")
    return "  ".join([f"step {line['step']}/{line['total']}", *found])


@dataclass(frozen=True)
class Running:
    """last: what the job reported last, as a line of metrics.jsonl. left: seconds."""

    job: Job
    last: Mapping[str, Any] | None
    left: float
    attempt: Attempt


@dataclass(frozen=True)
class Snapshot:
    """changed: jobs whose state is new since the last snapshot. left: seconds until all is done, forecast."""

    statuses: Mapping[str, Status]
    running: list[Running]
    changed: list[tuple[Job, Status]]
    left: float
    stopping: bool = False

    @property
    def done(self) -> int:
        return sum(status.state is State.DONE for status in self.statuses.values())

    def summary(self) -> str:
        """12 of 80 done · 2 running · about 9 min left"""
        counts = Counter(status.state for status in self.statuses.values())
        parts = [f"{counts[State.DONE]} of {len(self.statuses)} done"]
        parts += [
            f"{counts[state]} {state}" for state in State if counts[state] and state not in (State.DONE, State.MISSING)
        ]
        parts.append("stopping" if self.stopping else f"about {duration(self.left)} left")
        return " · ".join(parts)


def newly_blocked(snapshot: Snapshot) -> str:
    """One line for all of them: a failed training may block dozens."""
    blocked = [job for job, status in snapshot.changed if status.state is State.BLOCKED]
    culprits = {
        parent.name for job in blocked for parent in job.parents if snapshot.statuses[parent.key].state is State.FAILED
    }
    if not blocked:
        return ""
    return (
        f"{len(blocked)} job{'s' if len(blocked) > 1 else ''} cannot run now: blocked by {', '.join(sorted(culprits))}"
    )


class Display(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


def display_for(stream: TextIO | None = None) -> Display:
    """Live on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    terminal = getattr(stream, "underneath", stream)  # what is drawn moves the cursor; its texts are made inert one by one
    return LiveDisplay(terminal) if stream.isatty() else PlainDisplay(stream)


class Silent:
    def show(self, snapshot: Snapshot) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class PlainDisplay:
    """One line for each change, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, snapshot: Snapshot) -> None:
        for job, status in snapshot.changed:
            if status.state in (State.READY, State.MISSING, State.BLOCKED):
                continue
            wrong = status.state not in (State.RUNNING, State.SUBMITTED, State.DONE)
            log = f"  [log {status.attempt.log}]" if status.attempt and wrong else ""
            reason = f": {status.reason}" if status.reason and status.state not in (State.RUNNING, State.DONE) else ""
            far = f"  {snapshot.done} of {len(snapshot.statuses)} done, about {duration(snapshot.left)} left" if status.state is State.DONE else ""
            self.say(f"{status.state:<11} {job.kind} {job.name}{reason}{far}{log}")
        if blocked := newly_blocked(snapshot):
            self.say(blocked)

    def say(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), text, file=self.stream, flush=True)

    def close(self) -> None:
        pass


class LiveDisplay:
    """A few redrawn lines with the running jobs, their step, loss and time left; finished jobs scroll by above."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=stream)
        self.live: Any = Live(console=self.console, refresh_per_second=4, transient=True)
        self.live.start()

    def show(self, snapshot: Snapshot) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        for job, status in snapshot.changed:
            if status.state is State.DONE:
                self.say(f"done         {job.kind} {job.name}")
            elif status.state in (State.FAILED, State.INTERRUPTED):
                self.say(f"{status.state:<12} {job.kind} {job.name}: {status.reason}")
        if blocked := newly_blocked(snapshot):
            self.say(blocked)
        table = Table.grid(padding=(0, 2))
        for item in snapshot.running:
            far = told(item.last) if item.last else "starting"
            table.add_row(inert(f"{item.job.kind} {item.job.name}"), far, f"{duration(item.left)} left")
        self.live.update(Group(table, Text(snapshot.summary(), style="bold")))

    def say(self, text: str) -> None:
        from rich.text import Text

        self.console.print(Text(inert(text)), soft_wrap=True)

    def close(self) -> None:
        self.live.stop()
