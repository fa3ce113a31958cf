"""The SLURM request for a kind of job: a profile's resources and dispatch block as sbatch options.

Pure: nothing is submitted here, so that `plan` can show the requests of a cluster that this machine does not have.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.worker.environment import worker_environment

if TYPE_CHECKING:
    from harness.spec.profile import Resources, SlurmDispatch

SRUN_OPTIONS = ("--kill-on-bad-exit=1",)
"""A failing rank ends the others, which would otherwise wait for it until the time limit."""


@dataclass(frozen=True)
class Scale:
    """Factors on a profile's request, after a job ran out of memory or time."""

    memory: float = 1.0
    minutes: float = 1.0


@dataclass(frozen=True)
class Limits:
    """The most a partition allows one job; None if unlimited."""

    memory_gb: float | None = None
    minutes: int | None = None


def signal_seconds(minutes: float) -> int:
    """How long before the time limit a job is told to write its checkpoint: 5 % of it, between 30 s and 10 min."""
    return int(min(600, max(30, 0.05 * minutes * 60)))


def stop_lead(dispatch: SlurmDispatch, minutes: float) -> int:
    """Seconds between the order to stop and the time limit, with the profile's own `signal` option if it has one."""
    own = str(dispatch.sbatch.get("signal", "")).rpartition("@")[2]
    return int(own) if own.isdigit() else signal_seconds(minutes)


def scaled_minutes(resources: Resources, scale: Scale, bundle: int = 1, limits: Limits = Limits()) -> int:
    """Time limit of a scheduler job that runs this many jobs in turn."""
    own = resources.minutes * bundle
    return max(1, round(_within(limits.minutes, own * scale.minutes, own)))


def scaled_memory(resources: Resources, scale: Scale, limits: Limits = Limits()) -> float:
    """GiB of all processes together."""
    return _within(limits.memory_gb, resources.memory_gb * scale.memory, resources.memory_gb)


def _within(limit: float | None, wanted: float, own: float) -> float:
    """own: the profile's request. It is never reduced, so that the user learns when it is refused."""
    return wanted if limit is None else max(own, min(wanted, limit))


def memory(gib: float) -> str:
    """SLURM's units are powers of two: its GB is a GiB."""
    return f"{round(gib)}GB" if gib == round(gib) else f"{max(1, round(gib * 1024))}MB"


def parameters(
    resources: Resources,
    dispatch: SlurmDispatch,
    name: str,
    scale: Scale = Scale(),
    bundle: int = 1,
    limits: Limits = Limits(),
    parents: Sequence[str] = (),
) -> dict[str, Any]:
    """Keyword arguments of submitit's `SlurmExecutor.update_parameters`, environment left out.

    One node with a task for each process. parents: scheduler ids that have to end well first. `dispatch.sbatch` is laid
    over everything else, but its dependency is one more.
    """
    minutes = scaled_minutes(resources, scale, bundle, limits)
    extra: dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True, "exclusive": resources.alone}
    extra.update({option.lstrip("-").replace("_", "-"): value for option, value in dispatch.sbatch.items()})
    waits = [extra.pop("dependency", None), "afterok:" + ":".join(parents) if parents else None]
    chosen: dict[str, Any] = {
        "job_name": name,
        "time": minutes,
        "nodes": 1,
        "ntasks_per_node": resources.processes,
        "cpus_per_task": resources.cpus,
        "mem": memory(scaled_memory(resources, scale, limits)),
        "gpus_per_node": resources.gpus or None,
        "partition": dispatch.partition,
        "account": dispatch.account,
        "qos": dispatch.qos,
        "constraint": dispatch.constraint,
        "dependency": ",".join(str(words) for words in waits if words) or None,
        "array_parallelism": dispatch.throttle or 10_000,
        "signal_delay_s": signal_seconds(minutes),
        "stderr_to_stdout": True,
        "srun_args": [*SRUN_OPTIONS, f"--cpus-per-task={resources.cpus}"],
        "additional_parameters": {option: value for option, value in extra.items() if value is not False},
    }
    return {option: value for option, value in chosen.items() if value is not None}


def sbatch_words(resources: Resources, dispatch: SlurmDispatch, name: str = "", scale: Scale = Scale()) -> list[str]:
    """The request as sbatch options, for people: ["--partition=a800", "--gpus-per-node=8", ...]."""
    chosen = parameters(resources, dispatch, name, scale, resources.bundle)
    extra = chosen.pop("additional_parameters")
    shown = {
        "partition": chosen.get("partition"),
        "account": chosen.get("account"),
        "qos": chosen.get("qos"),
        "constraint": chosen.get("constraint"),
        "dependency": chosen.get("dependency"),
        "nodes": chosen["nodes"],
        "ntasks-per-node": chosen["ntasks_per_node"],
        "gpus-per-node": chosen.get("gpus_per_node"),
        "cpus-per-task": chosen["cpus_per_task"],
        "mem": chosen["mem"],
        "time": chosen["time"],
        "signal": f"USR2@{chosen['signal_delay_s']}",
        **extra,
    }
    words = [
        f"--{option}" if value is True else f"--{option}={shlex.quote(str(value))}"
        for option, value in shown.items()
        if value is not None
    ]
    return [f"--job-name={name}", *words] if name else words


def setup_lines(
    dispatch: SlurmDispatch, code: Path, cpus: int, inherited: Mapping[str, str] | None = None
) -> list[str]:
    """Shell lines before Python starts: the profile's own, then where our packages lie and how many threads to use.

    code: a folder with the packages; it comes before everything else that Python would find them in.
    """
    inherited = os.environ if inherited is None else inherited
    own = Path(__file__).resolve().parents[3]
    paths = [str(code), *[path for path in inherited.get("PYTHONPATH", "").split(os.pathsep) if path], str(own)]
    wanted = worker_environment(cpus) | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONSAFEPATH": "1",  # otherwise the folder in which sbatch was called comes first
    }
    return [*dispatch.setup, *(f"export {name}={shlex.quote(value)}" for name, value in wanted.items())]
