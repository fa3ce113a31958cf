"""Which worker process has which jobs, and which slots of a host it occupies.

A lease saves duplicate work; it decides nothing about results: a job belongs to whoever owns its newest attempt. A lease
whose owner is gone counts for nothing, so nobody has to clean up after a kill.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store import files
from harness.store.owners import Owner, Scheduler

if TYPE_CHECKING:
    from harness.store.store import Store


@dataclass(frozen=True)
class Lease:
    """owner: the worker (until it reports, whoever launched it). driver: who steers it. plan: the driver's plan file.

    remaining: keys promised to it alone. current: the key it works on. shape: what kind of process it is, see Order.
    gpus: the devices it was given. code: the version it was started with. log: where its own output goes. last_sign: Unix
    seconds of its file's time, which its worker renews; None before it was written.
    """

    id: str
    owner: Owner
    driver: Owner | None
    plan: str
    remaining: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    current: str = ""
    shape: str = ""
    code: str = ""
    log: str = ""
    started: float = field(default_factory=time.time)
    last_sign: float | None = field(default=None, compare=False)

    def alive(self, schedulers: Mapping[str, Scheduler] | None = None) -> bool:
        """Whether its owner is there, as far as anybody can tell."""
        return self.owner.alive(schedulers, self.last_sign) is not False

    def record(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("id", "plan", "current", "shape", "code", "log", "started")},
            "remaining": list(self.remaining),
            "gpus": list(self.gpus),
            "owner": self.owner.record(),
            "driver": self.driver.record() if self.driver else None,
        }

    @classmethod
    def read(cls, path: Path) -> Lease | None:
        """None when there is none, or it cannot be read: then its jobs count as nobody's, and are taken once all the same."""
        record = files.read_note(path)
        try:
            return cls._of(record, path.stat().st_mtime)
        except (FileNotFoundError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def _of(cls, record: Mapping[str, Any], last_sign: float) -> Lease:
        driver = record["driver"]
        return cls(
            **{name: record[name] for name in ("id", "plan", "current", "shape", "code", "log", "started")},
            remaining=tuple(record["remaining"]),
            gpus=tuple(record["gpus"]),
            owner=Owner.read(record["owner"]),
            driver=Owner.read(driver) if driver else None,
            last_sign=last_sign,
        )


def home(store: Store) -> Path:
    return store.root / ".leases"


def path_of(store: Store, lease_id: str) -> Path:
    return home(store) / f"{lease_id}.json"


def leases(store: Store) -> list[Lease]:
    """All leases in the store, including those of dead owners."""
    found = map(Lease.read, sorted(home(store).glob("*.json")))
    return [lease for lease in found if lease is not None]


def read(store: Store, lease_id: str) -> Lease | None:
    return Lease.read(path_of(store, lease_id))


def write(store: Store, lease: Lease) -> Lease:
    """Write a lease that nobody else knows yet."""
    with files.writing(home(store)):
        home(store).mkdir(parents=True, exist_ok=True)
        files.write_json(path_of(store, lease.id), lease.record(), durable=False)
    return lease


def update(store: Store, lease_id: str, **changes: Any) -> Lease | None:
    """Change some fields; worker and driver may both do it. None when the lease is gone."""
    with store.lock("leases"):
        lease = read(store, lease_id)
        return write(store, replace(lease, **changes)) if lease is not None else None


def beat(store: Store, lease_id: str) -> None:
    """Heartbeat. Raises OSError if the lease is gone."""
    os.utime(path_of(store, lease_id))


def drop(store: Store, lease_id: str) -> None:
    path_of(store, lease_id).unlink(missing_ok=True)
