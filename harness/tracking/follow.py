"""A child process that copies results to MLflow while jobs run. It keeps out of their way: niced, and the only one that imports MLflow.

It lives as long as its parent holds the other end of its standard input; then it copies once more and leaves.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.store import Store, files
from harness.tracking import where
from harness.tracking.fingerprint import up_to_date

COPY_EVERY_SECONDS = 5.0
NICENESS = 5
"""While jobs run. With two busy cores, MLflow's start still gets a quarter of a core."""
TRIES = 20
"""Retries, with growing pauses, for a server that is restarted or a database that is locked."""
LAST_WORDS_SECONDS = 120.0


@dataclass
class Follower:
    """process: the child, or None where there was nothing to do."""

    store: Store
    process: subprocess.Popen[bytes] | None
    log: Path

    def finish(self, seconds: float = LAST_WORDS_SECONDS) -> str:
        """Wait until all is copied. "" or one line that says why it is not."""
        if self.process is None:
            return ""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"MLflow is still being written after {seconds:.0f} s, in the background [log {self.log}]"
        lines = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        if code == 0:
            return ""
        return (lines[-1] if lines else f"copying to MLflow ended with code {code}") + f"  [log {self.log}]"


def start(store: Store, *, running: bool = True) -> Follower:
    """Begin to copy in the background. running: whether jobs will run meanwhile; if not, and nothing is new, no process is
    started. Raises StoreError when notes cannot be written.
    """
    log = where.home(store) / "log"
    if not running and up_to_date(store):
        return Follower(store, None, log)
    with files.writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("w")
    packages = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    with output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.tracking", str(store.root), str(NICENESS if running else 0)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    return Follower(store, process, log)


def follow(root: str, niceness: int = 0) -> int:
    """The child's main loop. Returns its exit code."""
    os.nice(niceness)
    store = Store(root)
    from harness.tracking.sync import Syncer, writer

    last, give_up, failures = False, 0.0, 0
    while True:
        with writer(store) as alone:
            if alone:
                try:
                    syncer = Syncer(store)
                    while not last:
                        syncer.copy()
                        last = _parent_left(COPY_EVERY_SECONDS)
                    syncer.copy()
                except where.TrackingError as error:
                    print(error, flush=True)
                    failures += 1
                    if failures > TRIES or last:
                        return 1  # the next command copies what is missing
                    last = _parent_left(COPY_EVERY_SECONDS * failures)
                    continue
                return 0
        if last and up_to_date(store):
            return 0  # another process copied everything
        if last and time.monotonic() > give_up:
            print("another process has been writing to MLflow for long; it will copy the rest", flush=True)
            return 0
        if not last and _parent_left(1.0):
            last, give_up = True, time.monotonic() + LAST_WORDS_SECONDS / 2
        elif last:
            time.sleep(0.5)


def _parent_left(seconds: float) -> bool:
    """Whether standard input ended within `seconds`."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)
