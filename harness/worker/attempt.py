"""One job in this process: from its claim to DONE.json or failure.json."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.kinds import kind_of
from harness.outgoing import redact
from harness.store import Attempt, Record, Store, files, leases
from harness.store.attempts import attempts_of
from harness.worker.causes import cause_of, one_line, remedied
from models.hub import DATA_SET
from models.run import Interrupted

HEARTBEAT_SECONDS = 15.0


@dataclass
class Stop:
    """Set by the process's signal handlers."""

    requested: bool = False
    signal: str = ""


@dataclass
class AttemptRun:
    """`models.run.Run` on an attempt's folder. rank, ranks: index and number of the processes that share the
    attempt."""

    attempt: Attempt
    resume_from: Path | None
    threads: int
    device: str
    stop: Stop
    rank: int = 0
    ranks: int = 1
    _unwritten: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.attempt.out

    @property
    def checkpoints(self) -> Path:
        return self.attempt.checkpoints

    def log(self, step: int, total: int, **values: float) -> None:
        """One line of metrics.jsonl. While the disk refuses, lines are kept and written with a later one."""
        row = {"time": time.time(), "step": int(step), "total": int(total), "values": values}
        self._unwritten.append(json.dumps(row, default=float) + "\n")
        try:
            files.append(self.attempt.metrics, "".join(self._unwritten))
            self._unwritten.clear()
        except OSError as error:
            print(f"{self.attempt.metrics}: {error}; the line is kept in memory", file=sys.stderr)

    def saved(self) -> None:
        """A newer checkpoint is complete: that of the earlier attempt goes, so that a disk has to hold two, however often a job is
        stopped. Unless a later attempt has begun, which may be reading it."""
        if self.resume_from is not None and attempts_of(self.attempt.job_folder)[-1].number == self.attempt.number:
            shutil.rmtree(self.resume_from, ignore_errors=True)

    def should_stop(self) -> bool:
        return self.stop.requested

    def progress(self, step: int, total: int) -> None:
        """For functions that only report progress: logs it, and ends them when a stop is asked for."""
        self.log(step, total)
        if self.stop.requested:
            raise Interrupted(f"stopped by {self.stop.signal}")


@dataclass
class Context:
    """What a kind's function receives. inputs: role -> folder. kept: survives between jobs of this process."""

    run: AttemptRun
    record: Record
    inputs: Mapping[str, Path]
    resources: Mapping[str, Any]
    kept: dict[str, Any]
    micro_batch: int | None = None

    @property
    def spec(self) -> Any:
        """The job's payload as its kind's schema."""
        return kind_of(self.record.kind).spec(self.record.payload)


@dataclass(frozen=True)
class Ending:
    """How one job ended in this process. outcome: done, twin (somebody else's result counts) or a failure's cause."""

    outcome: str
    message: str = ""

    @property
    def well(self) -> bool:
        return self.outcome in ("done", "twin")


def run_attempt(
    store: Store,
    record: Record,
    attempt: Attempt,
    *,
    resources: Mapping[str, Any],
    kept: dict[str, Any],
    stop: Stop,
    provenance: Mapping[str, Any],
    ranks: int = 1,
) -> Ending:
    """Run the job's function and publish its outputs, or record why not. Never raises for what the function did.

    ranks: processes that do the job together; this is the first of them.
    """
    started = time.monotonic()
    with _captured(attempt.log), _heartbeat(store, attempt):
        print(f"[{_clock()}] {record.kind} {record.name}, attempt {attempt.number}, {attempt.owner}", flush=True)
        micro_batch = attempt.claim.get("micro_batch")
        try:
            resume = store.resume_point(record)
            if resume is not None:
                print(f"[{_clock()}] resumes from {resume}", flush=True)
            store.keep_only(record, resume)
            run = AttemptRun(
                attempt,
                resume,
                int(resources.get("threads") or 1),
                str(resources.get("device") or "cpu"),
                stop,
                ranks=ranks,
            )
            inputs = resolve_inputs(store, record)
            kind_of(record.kind).run(Context(run, record, inputs, resources, kept, micro_batch))
            seconds = time.monotonic() - started
            won = store.publish(attempt, seconds=seconds, **provenance)
        except BaseException as error:  # noqa: BLE001 - every ending is recorded; signals only set a flag
            if store.superseded(attempt):
                print(
                    f"[{_clock()}] another attempt took over; this one's ending does not count: {error!r}", flush=True
                )
                return Ending("twin", one_line(error))
            cause, text = cause_of(error), "".join(traceback.format_exception(error))
            print(text, file=sys.stderr, flush=True)
            if cause != "code" and not os.path.lexists(attempt.job_folder / "DONE.json"):
                shutil.rmtree(attempt.out, ignore_errors=True)  # useless now, and the disk may need the space
            if (first := attempt.failure) is not None:  # another rank failed first; ours is a consequence
                return Ending(first.cause, first.message)
            line = remedied(cause, one_line(error), record.kind)
            words = (cause, type(error).__name__, line, text, micro_batch)
            files.patiently(lambda: attempt.fail(*words))
            return Ending(cause, line)
        print(
            f"[{_clock()}] {'done' if won else 'discarded: another attempt counts'} after {seconds:.1f} s", flush=True
        )
        return Ending("done" if won else "twin")


def resolve_inputs(store: Store, record: Record) -> dict[str, Path]:
    """Role -> the folder of a parent's outputs, or of a source; a server and a data set of the hub's have none. Raises
    StoreError when a parent's are not there, Damaged when they are not what it left, FileNotFoundError for a source."""
    found = {}
    for role, upstream in record.inputs.items():
        if upstream.kind:
            found[role] = store.outputs(store.record(upstream.key, upstream.kind), loading=True)
        elif upstream.location.startswith("hub:"):
            found[role] = _from_hub(*upstream.location.removeprefix("hub:").split("@"))
        elif Path(upstream.location).exists():
            found[role] = Path(upstream.location)
        elif not upstream.location.startswith(("endpoint:", DATA_SET)):
            raise FileNotFoundError(f"{upstream.location}: {role} is no longer there; put it back, or plan again")
    return found


def _from_hub(repository: str, revision: str) -> Path:
    """The local copy of a hub repository at a pinned revision; downloads it where the network is allowed."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=revision))


def _clock() -> str:
    return time.strftime("%H:%M:%S")


@contextmanager
def _captured(log: Path) -> Iterator[None]:
    """Redirects everything that this process and its children print to `log`. If the log cannot be opened, output stays
    where it was."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        descriptor = os.dup(1)
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                pass
        for target, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, target)
            os.close(descriptor)
        _scrub(log)


def _scrub(log: Path) -> None:
    """Removes secrets that a library printed, such as an endpoint's address with its password."""
    try:
        text = log.read_text(encoding="utf-8", errors="surrogateescape")
        if (clean := redact(text)) != text:
            log.write_text(clean, encoding="utf-8", errors="surrogateescape")
    except OSError:
        pass  # a log that cannot be written has no new content


@contextmanager
def _heartbeat(store: Store, attempt: Attempt) -> Iterator[None]:
    over, lease = threading.Event(), attempt.claim.get("lease")

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            try:
                attempt.beat()
                if lease:
                    leases.beat(store, lease)
            except OSError:
                pass  # a missed heartbeat; the process table still tells that we live

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
