"""Worker processes on this host, through submitit's local executor.

submitit starts and watches processes; it has no queue and cannot find a process again after its driver died. The queue
is the driver's, and processes are found again through their leases.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store import Owner, Store, files
from harness.store.leases import Lease
from harness.worker.environment import worker_environment

if TYPE_CHECKING:
    from submitit import Job as Submitted

TIMEOUT_MINUTES = 60 * 24 * 30
"""submitit's time limit for a worker process. It runs many jobs, so this limits none of them."""


def host_gpus() -> tuple[int, ...]:
    """Device numbers that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(int(name) for name in visible.split(",") if name.strip().isdigit())
    return tuple(range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))


@contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Processes started inside do not receive the terminal's Ctrl-C or hang-up; ours are delivered afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Processes:
    """folder: for submitit's files, a new subfolder per worker; only its owner may write it. plugins: modules that
    workers import."""

    store: Store
    folder: Path
    plugins: tuple[str, ...] = ()
    _jobs: dict[str, Submitted[Any]] = field(default_factory=dict)

    def launch(self, lease: Lease, *, threads: int) -> tuple[Owner, Path]:
        """Start the worker of `lease`; returns its owner record and its output file."""
        from submitit.local.local import LocalExecutor

        from harness.worker import work

        home = self.folder / lease.id
        with files.writing(home), _terminal_signals_blocked(), _environment(worker_environment(threads)):
            executor = LocalExecutor(home)
            executor.update_parameters(
                timeout_min=TIMEOUT_MINUTES,
                gpus_per_node=len(lease.gpus),
                visible_gpus=lease.gpus,
                stderr_to_stdout=True,
            )
            job = executor.submit(work, str(self.store.root), lease.id, self.plugins)
        self._jobs[lease.id] = job
        return job_owner(int(job.job_id)), job.paths.stdout

    def poll(self) -> dict[str, bool]:
        """By lease, for the workers started here: whether the process still runs. Also reaps ended ones."""
        return {lease_id: job.state == "RUNNING" for lease_id, job in self._jobs.items()}

    def left_well(self, lease_id: str) -> bool:
        """Whether an ended worker finished normally, rather than being killed or failing to start."""
        try:
            with self._jobs[lease_id].paths.result_pickle.open("rb") as file:
                return pickle.load(file)[0] == "success"
        except OSError:
            return False

    def log(self, lease_id: str) -> Path:
        return self._jobs[lease_id].paths.stdout

    def forget(self, lease_id: str) -> None:
        well = self.left_well(lease_id)
        del self._jobs[lease_id]
        if well:
            shutil.rmtree(self.folder / lease_id, ignore_errors=True)

    @staticmethod
    def ask_to_stop(lease: Lease) -> None:
        """Let the worker write a checkpoint and leave."""
        if lease.owner.alive():
            _send(lease.owner.pid, signal.SIGTERM)

    @staticmethod
    def kill(lease: Lease) -> None:
        """The worker and the processes it started, at once."""
        if lease.owner.alive():
            try:
                os.killpg(lease.owner.pid, signal.SIGKILL)  # a worker leads a group of its own
            except (ProcessLookupError, PermissionError):
                _send(lease.owner.pid, signal.SIGKILL)


def job_owner(pid: int) -> Owner:
    """Owner record of a process we just started, even if it has already exited."""
    try:
        return Owner.here(pid)
    except ProcessLookupError:
        return replace(Owner.here(), pid=pid, start_time=0)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
