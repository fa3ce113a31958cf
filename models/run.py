"""What a long computation needs from whoever started it: a place to write, a way to report, a polite stop.

`models` functions take a `Run`; they know nothing about stores, schedulers or attempts. `LocalRun` is the plain
implementation for scripts and tests.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Interrupted(RuntimeError):
    """Raised after a stop request, once a checkpoint is written. The attempt ends cleanly and can be resumed."""


class Run(Protocol):
    """The interface; see `LocalRun` for the meaning of each member."""

    resume_from: Path | None
    threads: int
    device: str
    rank: int
    ranks: int

    @property
    def out(self) -> Path: ...

    @property
    def checkpoints(self) -> Path: ...

    def log(self, step: int, total: int, **values: float) -> None: ...

    def saved(self) -> None: ...

    def should_stop(self) -> bool: ...


@dataclass
class LocalRun:
    """A run in a plain folder.

    out: finished outputs. checkpoints: `checkpoint-<step>/` folders, complete once they hold `COMPLETE`.
    resume_from: such a folder, or None. threads: torch threads. device: "cpu" or "cuda". rank, ranks: which of how many
    processes that share this run; only rank 0 writes to `out`.
    """

    out: Path
    checkpoints: Path | None = None
    resume_from: Path | None = None
    threads: int = 1
    device: str = "cpu"
    rank: int = 0
    ranks: int = 1
    metrics: Path | None = None
    stop: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        self.checkpoints = self.checkpoints or self.out / "checkpoints"
        self.out.mkdir(parents=True, exist_ok=True)

    def log(self, step: int, total: int, **values: float) -> None:
        """Append one line {"time", "step", "total", "values"} to `metrics`, if there is one."""
        if self.metrics is not None:
            with self.metrics.open("a") as lines:
                lines.write(json.dumps({"time": time.time(), "step": step, "total": total, "values": values}) + "\n")

    def saved(self) -> None:
        """A newer checkpoint than `resume_from` is complete. What a caller of its own resumes from stays."""

    def should_stop(self) -> bool:
        return self.stop
