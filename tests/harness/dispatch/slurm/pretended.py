"""A scheduler that only pretends, and jobs, leases and drivers for tests of the SLURM driver."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from submitit.core.utils import FailedJobError

from harness.dispatch.driver.backend import GraphRun
from harness.dispatch.slurm.backend import SlurmBackend
from harness.dispatch.slurm.queue import SchedulerSilent, SlurmQueue
from harness.jobs import Graph, Job
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import Owner, Store, leases
from tests.harness.dispatch import kinds  # noqa: F401 - its kinds have versions

NEEDS = Resources(memory_gb=4, minutes=60)
DEAD = replace(Owner.here(), start_time=1)
ELSEWHERE = Owner(host="login2", boot="other boot", pid=7, start_time=1)
PARTITIONS = (
    "PartitionName=short Default=NO MaxTime=01:30:00 MaxMemPerNode=UNLIMITED State=UP\n"
    "PartitionName=main Default=YES MaxTime=2-00:00:00 MaxMemPerNode=6144 State=UP\n"
    "PartitionName=free Default=NO MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP\n"
)
POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@dataclass
class Cluster:
    """lines: of squeue. refusal: what sbatch answers, if it refuses. requests: (keywords, environment, elements)."""

    lines: list[str] = field(default_factory=list)
    refusal: str = ""
    requests: list[tuple[dict[str, Any], dict[str, str], int]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def __call__(self, words: list[str]) -> str:
        if words[0] == "squeue":
            return "\n".join(self.lines)
        if words[0] == "sacct":
            raise SchedulerSilent("no accounting")
        self.commands.append(words)
        return PARTITIONS if words[:3] == ["scontrol", "show", "partition"] else ""

    def executor(self, folder: Path) -> Any:
        chosen: dict[str, Any] = {}

        def map_array(function: Any, tasks: list[Any]) -> list[Any]:
            self.requests.append((chosen, dict(os.environ), len(tasks)))
            if self.refusal:
                raise FailedJobError(f"sbatch: error: {self.refusal}")
            id_, paths = len(self.requests) * 10, SimpleNamespace(stdout=Path(folder) / "log")
            self.lines += [f"{id_}_{i}|PENDING|0|Priority|{chosen['job_name']}|" for i in range(len(tasks))]
            return [SimpleNamespace(job_id=f"{id_}_{i}", paths=paths) for i in range(len(tasks))]

        return SimpleNamespace(update_parameters=chosen.update, map_array=map_array)


def driver_of(cluster: Cluster, root: Path, *jobs: Job, needs: Resources = NEEDS, **options: Any) -> SlurmBackend:
    queue = SlurmQueue(cluster, poll_seconds=0.0, settle_seconds=0.0)
    dispatch = SlurmDispatch(**options)
    said: list[str] = []
    run = GraphRun(
        Graph(list(jobs)), Store(root), resources=lambda kind: needs, forecast=None, plugins=(), say=said.append
    )
    return SlurmBackend(run, dispatch, queue)


def said(backend: SlurmBackend) -> list[str]:
    """What the person was told."""
    return backend.run.say.__self__  # type: ignore[attr-defined]


def tend(driver: SlurmBackend) -> None:
    driver.begin(driver.look())


def job_of(name: str = "a") -> Job:
    return Job("count", {"steps": 1, "name": name}, slug=name)


def failed(store: Store, job: Job, cause: str, **resources: float) -> None:
    """An attempt that ran out of what it had."""
    store.ensure(job)
    store.begin_attempt(job, owner=DEAD, resources=resources).fail(cause, cause, f"no more {cause}")


def put(store: Store, job: Job, owner: Owner, plan: str = ".slurm/s", **facts: Any) -> leases.Lease:
    store.ensure(job)
    return leases.write(store, leases.Lease(f"s-{job.slug}", owner, None, plan, (job.key,), **facts))


def slurm_owner(id_: str, name: str = "vr-s-count") -> Owner:
    return Owner(scheduler="slurm", scheduler_id=id_, scheduler_name=name)
