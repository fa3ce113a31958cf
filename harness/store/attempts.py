"""One attempt at a job: a numbered folder that exactly one process ever owned.

The folder is created with its claim inside by a single rename, so an attempt number is taken once, whoever races for it,
and nobody sees an attempt without an owner. The newest attempt's claim is the job's claim.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.outgoing import inert, redact
from harness.store import files
from harness.store.owners import Owner, Scheduler

COMPLETE = "COMPLETE"
"""Written last into a checkpoint folder; without it the checkpoint is not read."""


@dataclass(frozen=True)
class Failure:
    """cause: code, oom (of a device), memory (of the host), timeout, interrupted, input or storage. message: one line. traceback: a file, or None."""

    cause: str
    type: str
    message: str
    traceback: Path | None = None
    micro_batch: int | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.type else self.message


@dataclass(frozen=True)
class Attempt:
    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def job_folder(self) -> Path:
        return self.path.parent.parent

    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @cached_property
    def claim(self) -> Mapping[str, Any]:
        """The claim as it was when first looked at. Its `owner` never changes. {} when it cannot be read: nobody's attempt."""
        claim = files.read_note(self.path / "claim.json")
        return claim if isinstance(claim.get("owner"), dict) else {}

    @property
    def owner(self) -> Owner:
        return Owner.read(self.claim["owner"])

    @property
    def failure(self) -> Failure | None:
        path = self.path / "failure.json"
        record = files.read_note(path)
        if not all(isinstance(record.get(name), str) for name in ("cause", "type", "message")):
            lost = "its failure.json cannot be read"
            return Failure("interrupted", "", lost) if os.path.lexists(path) else None
        name = record.get("traceback")
        return Failure(
            record["cause"],
            record["type"],
            record["message"],
            self.path / str(name) if name else None,
            record.get("micro_batch"),
        )

    @property
    def released(self) -> bool:
        """Whether a person declared its owner gone."""
        return (self.path / "released.json").exists()

    def alive(self, schedulers: Mapping[str, Scheduler] | None = None) -> bool | None:
        """Whether it is being worked on: False once it ended, was released, or its owner is gone; None if unknown."""
        if self.released or os.path.lexists(self.path / "failure.json"):
            return False
        try:
            return self.owner.alive(schedulers, self.last_beat) if "owner" in self.claim else False
        except FileNotFoundError:  # removed in the meantime
            return False

    def beat(self) -> None:
        """Heartbeat: sets the claim file's mtime."""
        os.utime(self.path / "claim.json")

    @property
    def last_beat(self) -> float:
        """Unix seconds."""
        return (self.path / "claim.json").stat().st_mtime

    def progress(self) -> dict[str, Any] | None:
        """The newest line of metrics.jsonl: {"time", "step", "total", "values"}."""
        return files.last_line(self.metrics)

    def fail(self, cause: str, kind: str, message: str, traceback: str = "", micro_batch: int | None = None) -> None:
        """Record how the attempt ended. Raises OSError when even that cannot be written."""
        if traceback:
            files.replace_bytes(self.path / "traceback.txt", redact(traceback).encode(errors="replace"))
        files.write_json(
            self.path / "failure.json",
            {
                "cause": cause,
                "type": kind,
                "message": inert(message),
                "traceback": "traceback.txt" if traceback else None,
                "micro_batch": micro_batch,
                "time": time.time(),
            },
        )

    def complete_checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder) of every complete checkpoint."""
        found = []
        try:
            entries = list(os.scandir(self.checkpoints))
        except OSError:
            return []
        for entry in entries:
            step = entry.name.rpartition("-")[2]
            if step.isdigit() and os.path.exists(os.path.join(entry.path, COMPLETE)):
                found.append((int(step), Path(entry.path)))
        return sorted(found)


def attempts_of(folder: Path) -> list[Attempt]:
    """Oldest first."""
    try:
        names = os.listdir(folder / "attempts")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        Attempt(folder / "attempts" / str(number)) for number in sorted(int(name) for name in names if name.isdigit())
    ]


def create_attempt(folder: Path, number: int, owner: Owner, **facts: Any) -> Attempt | None:
    """Attempt `number` with its claim, or None when somebody else took that number first."""
    home = folder / "attempts"
    home.mkdir(parents=True, exist_ok=True)
    new = home / f".new-{uuid.uuid4().hex[:8]}"
    (new / "out").mkdir(parents=True)
    (new / "checkpoints").mkdir()
    try:
        files.write_json(
            new / "claim.json", {"owner": owner.record(), "attempt": number, "started": time.time(), **facts}
        )
        files.renamed(new, home / str(number))
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if (home / str(number)).exists():
            return None
        raise
    return Attempt(home / str(number))
