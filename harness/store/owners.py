"""Who holds something, and whether they are still there.

An owner is gone only when the process table (or the scheduler) of the place that it named says so. Where nobody here
can look, the answer is None: unknown, never gone. Two machines may have one host name (containers, golden images), so
another boot under our own name counts as this machine before it was restarted only once its heartbeat has ceased.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

Scheduler = Callable[["Owner"], bool | None]
"""Says whether a scheduler still knows an owner: True alive, False gone, None cannot tell now."""


FRESH_SECONDS = 300.0
"""A heartbeat younger than this may be that of another machine with our host name: twenty missed beats."""


@lru_cache(maxsize=1)
def host_name() -> str:
    return socket.gethostname()


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Of this boot, and of this process-id namespace: process ids of another container mean nothing here."""
    boot = _first_line(Path("/proc/sys/kernel/random/boot_id"))
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{boot} {namespace}".strip()


def _first_line(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return ""


def start_time(pid: int) -> int | None:
    """When process `pid` began, in clock ticks since boot; None when there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZXx" else int(fields[19])


@dataclass(frozen=True)
class Owner:
    """A process on a host, or a scheduler's job.

    start_time: clock ticks since boot; tells a recycled pid from the process that was meant.
    scheduler: "slurm" or "". scheduler_name: the job's name there; ids are used again after a cluster lost its state, an
    id with its name is not. restart: how often the scheduler started this job again. pid 0: the scheduler's job as such,
    whatever process it runs.
    """

    host: str = ""
    boot: str = ""
    pid: int = 0
    start_time: int = 0
    scheduler: str = ""
    scheduler_id: str = ""
    scheduler_name: str = ""
    restart: int = 0

    @classmethod
    def here(cls, pid: int | None = None) -> Owner:
        """This process, or another one of this host. Raises ProcessLookupError when it is gone."""
        pid = os.getpid() if pid is None else pid
        started = start_time(pid)
        if started is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(
            host_name(),
            boot_id(),
            pid,
            started,
            scheduler="slurm" if "SLURM_JOB_ID" in os.environ and pid == os.getpid() else "",
            scheduler_id=_slurm_id() if pid == os.getpid() else "",
            scheduler_name=os.environ.get("SLURM_JOB_NAME", "") if pid == os.getpid() else "",
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")) if pid == os.getpid() else 0,
        )

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Owner:
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})

    def record(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}

    def alive(
        self, schedulers: Mapping[str, Scheduler] | None = None, last_sign: float | None = None
    ) -> bool | None:
        """True or False where somebody knows, else None. last_sign: Unix seconds of its last heartbeat; None where it has none."""
        if self.host == host_name() and self.boot == boot_id():
            return start_time(self.pid) == self.start_time
        ask = (schedulers or {}).get(self.scheduler)
        if ask is not None:
            return ask(self)
        rebooted = self.host == host_name() and self.boot.split()[:1] != boot_id().split()[:1]
        silent = last_sign is not None and time.time() - last_sign > FRESH_SECONDS
        return False if rebooted and silent else None

    def __str__(self) -> str:
        if self.scheduler:
            return f"{self.scheduler} job {self.scheduler_id}" + (f" on {self.host}" if self.host else "")
        return f"process {self.pid} on {self.host}"


def _slurm_id() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
