"""`run.py retry [KEY…]`: run failed jobs again, and what they need; `--damaged`: set damaged ones aside."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli.main import add_results
from harness.cli.stored import damage, open_store, selected
from harness.cli.words import plural
from harness.jobs import Job, Known
from harness.spec.errors import SpecError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="these jobs (default: all that failed)")
    parser.add_argument("--profile", default="proxy", metavar="P", help="whose resources they get (default: proxy)")
    parser.add_argument("--damaged", action="store_true", help="set these damaged jobs aside (default: all), to be made anew")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    if options.damaged:
        return set_aside(options.results, options.keys)
    from harness.cli.run import work
    from harness.jobs import Graph
    from harness.spec.files import load_profile
    from harness.store.jobs import stored_jobs

    store, profile = open_store(options.results), load_profile(options.profile).value
    jobs = selected(store, options.keys) if options.keys else stored_jobs(store)
    if options.keys and (damaged := damage(store, jobs)):
        print("\n".join(damaged), file=sys.stderr)
        return 2
    statuses = store.statuses(jobs)
    unknown = [job for job in jobs if isinstance(job, Known)]
    again = [job for job in jobs if options.keys or (statuses[job.key].state == "failed" and job not in unknown)]
    for job in again:
        if job in unknown:
            raise SpecError(f"{job.kind} {job.name}: of another version of this program; run.py FILE computes it again")
    if not again:
        print("no job failed")
        return 0
    gc.enable()
    outcome = work(Graph(again), store, profile)
    print("run.py FILE continues with the jobs that depend on them")
    return outcome.exit_code


def set_aside(results: Path, keys: Sequence[str]) -> int:
    """Move the folders of damaged jobs to .damaged/; nothing is deleted and nothing run."""
    from harness.store.jobs import stored_jobs

    store = open_store(results)
    damaged = [job for job in stored_jobs(store) if store.damage(job)]
    chosen = [job for job in damaged if not keys or any(fits(job, key) for key in keys)]
    for key in keys:
        if not any(fits(job, key) for job in chosen):
            raise SpecError(f"{key}: no damaged job begins with it; run.py status shows which are damaged")
    for job in chosen:
        print(f"{job.kind} {job.name}: set aside in {store.set_aside(store.folder(job))}")
    print(f"{plural(len(chosen), 'damaged job')} set aside" + ("; run.py FILE computes them again" if chosen else ""))
    return 0


def fits(job: Job, key: str) -> bool:
    return len(key) >= 4 and (job.key.startswith(key[: len(job.key)]) or job.name == key)
