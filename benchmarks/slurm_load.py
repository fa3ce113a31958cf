"""Load on a SLURM cluster: a graph of no-op jobs through the driver, against bare sbatch and plain submitit arrays.

    eval "$(python3 tests/cluster/cluster.py up --nodes 4 --cpus 2)"
    python benchmarks/slurm_load.py --jobs 1000
    python3 tests/cluster/cluster.py down

Prints seconds, ratios, the number of scheduler calls and the driver's memory, all of one run on one machine. The graph:
ten jobs, and behind each of them a tenth of the others.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import benchmarks.noop  # noqa: F401 - its kinds
from harness.dispatch.driver.progress import Silent
from harness.dispatch.slurm import backend as slurm
from harness.dispatch.slurm.queue import SlurmQueue
from harness.jobs import Graph, Job
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import Store


def do_nothing(number: int) -> int:
    return number


def graph_of(jobs: int) -> Graph:
    roots = [Job("noop", {"root": i}, slug=f"root{i}") for i in range(min(10, jobs))]
    leaves = [
        Job("evaluate", {"i": i}, {"checkpoint": roots[i % len(roots)]}, f"leaf{i}") for i in range(jobs - len(roots))
    ]
    return Graph([*roots, *leaves])


def timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def bare(jobs: int) -> float:
    """One array of `true`, until the last has ended."""
    words = ["sbatch", "--wait", f"--array=0-{jobs - 1}", "--mem=100MB", "--output=/dev/null", "--wrap=true"]
    return timed(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))


def plain_submitit(jobs: int, folder: Path) -> float:
    """One submitit array of a function that does nothing, until squeue has none left."""
    from submitit.slurm.slurm import SlurmExecutor

    def run() -> None:
        executor = SlurmExecutor(folder)
        executor.update_parameters(time=10, mem="100MB", array_parallelism=jobs)
        main_id = executor.map_array(do_nothing, range(jobs))[0].job_id.partition("_")[0]
        while subprocess.run(
            ["squeue", "-h", "-j", main_id, "-t", "PD,R,CG"], check=False, capture_output=True
        ).stdout.strip():
            time.sleep(0.5)

    return timed(run)


def through_harness(jobs: int, bundle: int, root: Path) -> dict[str, float]:
    graph, queue, sbatch = graph_of(jobs), SlurmQueue(), [0]
    original = subprocess.Popen.__init__

    def counting(self, words, *rest, **options):  # submitit calls sbatch itself
        sbatch[0] += isinstance(words, list) and words[0] == "sbatch"
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
    submitting = timed(lambda: slurm.run(graph, Store(root), detach=True, **options))
    waiting = timed(lambda: slurm.run(graph, Store(root), **options))
    after = resource.getrusage(resource.RUSAGE_SELF)
    subprocess.Popen.__init__ = original
    store = Store(root)
    if missing := sum(not store.is_done(job) for job in graph):
        raise SystemExit(f"{missing} jobs are not done: the figures would mean nothing")
    return {
        "submit": submitting,
        "total": submitting + waiting,
        "sbatch": sbatch[0],
        "squeue": queue.calls.get("squeue", 0),
        "sacct": queue.calls.get("sacct", 0),
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": after.ru_maxrss / 1024,
        "grown": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument(
        "--bundle", type=int, default=1, help="jobs behind one parent that share a process (default: 1)"
    )
    parser.add_argument("--without-peers", action="store_true", help="only the harness")
    options = parser.parse_args()
    if not shutil.which("sbatch"):
        parser.error("no SLURM here; tests/cluster/cluster.py up starts one")
    folder = Path(tempfile.mkdtemp(prefix="slurm-load-"))
    try:
        peers = {}
        if not options.without_peers:
            peers = {
                "bare sbatch array": bare(options.jobs),
                "plain submitit array": plain_submitit(options.jobs, folder / "submitit"),
            }
        ours = through_harness(options.jobs, options.bundle, folder / "results")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.jobs} no-op jobs, {options.bundle} a process")
    for name, seconds in peers.items():
        print(f"  {name:22} {seconds:7.1f} s   {1000 * seconds / options.jobs:7.1f} ms/job")
    print(
        f"  {'harness':22} {ours['total']:7.1f} s   {1000 * ours['total'] / options.jobs:7.1f} ms/job"
        f"   (handed over after {ours['submit']:.1f} s)"
    )
    for name, seconds in peers.items():
        print(f"  harness / {name}: {ours['total'] / seconds:.2f}")
    print(f"  scheduler calls: {ours['sbatch']:.0f} sbatch, {ours['squeue']:.0f} squeue, {ours['sacct']:.0f} sacct")
    print(f"  driver: {ours['processor']:.1f} s of processor, {ours['memory']:.0f} MiB (+{ours['grown']:.0f})")


if __name__ == "__main__":
    main()
