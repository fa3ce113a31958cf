"""What a driver tells its workers: which jobs, in which order, how, and which attempt of each may be begun.

Written by the driver, replaced whenever it changes, read by workers between jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.store import Owner, files


@dataclass(frozen=True)
class Order:
    """One job. grant: the attempt number that may be begun, 0 for none. group: jobs that share what a process loads.

    folder: of the job, from the store's root. parents: folders that must hold a DONE.json first. shape: which workers may
    take it. seconds: forecast.
    """

    key: str
    kind: str
    folder: str
    grant: int
    group: str = ""
    parents: tuple[str, ...] = ()
    shape: str = ""
    resources: Mapping[str, Any] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Orders:
    """driver: whose they are. jobs: most urgent first. finished: nothing more will come.

    No module's name stands here: what a worker imports comes with the call that started it.
    """

    driver: Owner | None
    jobs: tuple[Order, ...]
    finished: bool = False

    def write(self, path: Path) -> None:
        record = {
            "driver": self.driver.record() if self.driver else None,
            "finished": self.finished,
            "jobs": [asdict(order) for order in self.jobs],
        }
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, record, durable=False)

    @classmethod
    def read(cls, path: Path) -> Orders | None:
        record = files.read_json(path)
        if record is None:
            return None
        jobs = tuple(Order(**{**order, "parents": tuple(order["parents"])}) for order in record["jobs"])
        driver = Owner.read(record["driver"]) if record["driver"] else None
        return cls(driver, jobs, record["finished"])
