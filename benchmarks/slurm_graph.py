"""A graph of no-op jobs through the driver, for `slurm_load`: prints seconds and counts as JSON.

In a process of its own, so that `slurm_load` can give it the code of another commit. The graph: ten jobs, and behind each of them a
tenth of the others.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import benchmarks.noop  # noqa: F401 - its kinds
from harness.dispatch.driver.progress import Silent
from harness.dispatch.slurm import backend as slurm
from harness.dispatch.slurm.queue import SlurmQueue
from harness.jobs import Graph, Job
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import Store


def graph_of(jobs: int) -> Graph:
    roots = [Job("noop", {"root": i}, slug=f"root{i}") for i in range(min(10, jobs))]
    leaves = [Job("evaluate", {"i": i}, {"checkpoint": roots[i % len(roots)]}, f"leaf{i}") for i in range(jobs - len(roots))]
    return Graph([*roots, *leaves])


def measured(jobs: int, bundle: int, root: Path) -> dict[str, float]:
    """submit, total: seconds by the clock. processor: seconds, memory: peak MiB, of the driver. The others: calls of the scheduler.

    Raises SystemExit when a job is not done.
    """
    graph, queue, store, sbatch = graph_of(jobs), SlurmQueue(), Store(root), 0
    original = subprocess.Popen.__init__

    def counting(self, words, *rest, **options):  # submitit calls sbatch itself
        nonlocal sbatch
        sbatch += isinstance(words, list) and words[0] == "sbatch"
        return original(self, words, *rest, **options)

    subprocess.Popen.__init__ = counting
    before = resource.getrusage(resource.RUSAGE_SELF)
    options = {
        "resources": lambda kind: Resources(memory_gb=0.1, minutes=10, bundle=bundle),
        "dispatch": SlurmDispatch(),
        "plugins": ["benchmarks.noop"],
        "display": Silent(),
        "queue": queue,
    }
    started = time.monotonic()
    slurm.run(graph, store, detach=True, **options)
    handed_over = time.monotonic()
    slurm.run(graph, store, **options)
    ended = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_SELF)
    if missing := sum(not store.is_done(job) for job in graph):
        raise SystemExit(f"{missing} jobs are not done: the figures would mean nothing")
    return {
        "submit": handed_over - started,
        "total": ended - started,
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": after.ru_maxrss / 1024,
        "sbatch": sbatch,
        "squeue": queue.calls.get("squeue", 0),
        "sacct": queue.calls.get("sacct", 0),
    }


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
