"""What a job costs on a SLURM cluster: a graph of no-op jobs through the driver, against one plain submitit array of as many.

    eval "$(python3 tests/cluster/cluster.py up --nodes 4 --cpus 2)"
    python -m benchmarks.slurm_load            # minutes; --write: into benchmarks/slurm_load.md; --against COMMIT: beside its code
    python3 tests/cluster/cluster.py down

Both start a Python process for each job, and both are timed from the first request until the queue is empty. A job of ours also
claims its folder, records code and versions, and leaves a DONE.json that survives a power cut. Ten jobs come first,
and each of the others waits for one of them; evaluations of one checkpoint may share a process, and how many do is the profile's `bundle`.

All ways take turns on one machine, so that whatever else it does slows them alike; the median of the rounds' ratios is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.page import REPOSITORY, about, checked_out, commit, cores, positive, show
from harness.spec.files import load_profile

FILE = Path(__file__).with_suffix(".md")
GOAL = 1.3
Figures = dict[str, float]


def do_nothing(number: int) -> int:
    return number


def plain_submitit(jobs: int, folder: Path) -> Figures:
    """One submitit array of a function that does nothing, until squeue has none left."""
    from submitit.slurm.slurm import SlurmExecutor

    started = time.monotonic()
    executor = SlurmExecutor(folder)
    executor.update_parameters(time=10, mem="100MB", array_parallelism=jobs)
    main_id = executor.map_array(do_nothing, range(jobs))[0].job_id.partition("_")[0]
    while subprocess.run(["squeue", "-h", "-j", main_id, "-t", "PD,R,CG"], check=False, capture_output=True).stdout.strip():
        time.sleep(0.5)
    return {"total": time.monotonic() - started}


def ours(jobs: int, folder: Path, bundle: int, repository: Path) -> Figures:
    """The graph through the driver of this code or another's. Raises SystemExit when it fails."""
    words = [sys.executable, "-P", str(Path(__file__).with_name("slurm_graph.py")), str(jobs), str(bundle), str(folder)]
    process = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{repository}: {process.stderr.strip()[-500:]}")
    return json.loads(process.stdout.splitlines()[-1])


def take_turns(ways: dict[str, Callable[[Path], Figures]], rounds: int) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {what: [] for what in ways}
    for number in range(rounds):
        for what, way in ways.items():
            with tempfile.TemporaryDirectory(prefix="slurm-load-") as folder:
                found[what].append(way(Path(folder) / "made"))
            print(f"round {number + 1}: {what}: {found[what][-1]['total']:.1f} s", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[Figures]], jobs: int, plain: str) -> list[str]:
    lines = ["| Way | ms a job, of each round | Against a submitit array, of each round | Median |", "| :-- | :-- | :-- | --: |"]
    for what, figures in found.items():
        ratios = [one["total"] / other["total"] for one, other in zip(figures, found[plain], strict=True)]
        cells = [", ".join(f"{1000 * one['total'] / jobs:.0f}" for one in figures), ", ".join(f"{ratio:.2f}" for ratio in ratios)]
        lines.append(f"| {what} | {cells[0]} | {cells[1] if what != plain else ''} | {statistics.median(ratios):.2f} |")
    return lines


def conclusion(alone: list[Figures], plain: list[Figures], jobs: int) -> str:
    ratio, last = statistics.median(one["total"] / other["total"] for one, other in zip(alone, plain, strict=True)), alone[-1]
    return (
        f"The goal, at most {GOAL} times a submitit array, is {'reached' if ratio <= GOAL else '**not reached**'} with one job a process. "
        f"There, in the last round, the driver handed {jobs} jobs over after {last['submit']:.1f} s; in all it called sbatch "
        f"{last['sbatch']:.0f}, squeue {last['squeue']:.0f} and sacct {last['sacct']:.0f} times, took {last['processor']:.1f} s of processor, "
        f"and {last['memory']:.0f} MiB at most."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--jobs", type=positive, default=200, help="default: 200")
    parser.add_argument("--rounds", type=positive, default=3, help="default: 3")
    parser.add_argument("--against", type=commit, metavar="COMMIT", help="measure this commit's code, too, with one job a process")
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    options = parser.parse_args(arguments)
    if not shutil.which("sbatch"):
        parser.error("no SLURM here; tests/cluster/cluster.py up starts one")
    bundle = load_profile("proxy-slurm").value.resources_of("evaluate").bundle
    plain, alone, shared = "submitit array", "here, one job a process", f"here, {bundle} evaluations a process, as profile proxy-slurm says"
    begun = f"{cores()}; the load average was {os.getloadavg()[0]:.1f} at the beginning, before any job."
    ways: dict[str, Callable[[Path], Figures]] = {plain: partial(plain_submitit, options.jobs)}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        if options.against:
            old = stack.enter_context(checked_out(options.against, Path(name) / "old"))
            ways[f"{options.against}, one job a process"] = partial(ours, options.jobs, bundle=1, repository=old)
        ways |= {what: partial(ours, options.jobs, bundle=many, repository=REPOSITORY) for what, many in ((alone, 1), (shared, bundle))}
        found = take_turns(ways, options.rounds)
    command = f"--jobs {options.jobs} --rounds {options.rounds}{f' --against {options.against}' if options.against else ''} --write"
    lines = [
        "# What a job costs on a SLURM cluster",
        f"Made by `python -m benchmarks.slurm_load {command}`.",
        ABOUT,
        begun,
        "\n".join(table(found, options.jobs, plain)),
        conclusion(found[alone], found[plain], options.jobs),
    ]
    page = "\n\n".join(lines) + "\n"
    show(page, FILE if options.write else None)
    return 0


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
