"""`run.py retry [KEY…]`: run failed jobs again, and the jobs they need; `--damaged`: set damaged jobs aside."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.main import add_results
from harness.cli.stored import damage, open_store, selected
from harness.cli.words import command, plural
from harness.jobs import Job, Known
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="only these jobs (default: all that failed)")
    parser.add_argument("--profile", metavar="P", help="run them under this profile (default: the one they ran under)")
    parser.add_argument("--detach", action="store_true", help="return at once; the work continues in the background")
    parser.add_argument("--damaged", action="store_true", help="set these damaged jobs aside (default: all), so that the next run recomputes them")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    if options.damaged:
        return set_aside(options.results, options.keys)
    from harness.store.jobs import stored_jobs

    store = open_store(options.results, reads=True)
    jobs = selected(store, options.keys) if options.keys else stored_jobs(store)
    if options.keys and (damaged := damage(store, jobs)):
        print("\n".join(damaged), file=sys.stderr)
        return 2
    statuses = store.statuses(jobs)
    unknown = [job for job in jobs if isinstance(job, Known)]
    again = [job for job in jobs if options.keys or (statuses[job.key].state == "failed" and job not in unknown)]
    for job in again:
        if job in unknown:
            raise SpecError(f"{job.kind} {job.name}: was made by another version of this program; run.py FILE computes it again")
    if not again:
        print("no job failed")
        return 0
    return run_again(options, store, again)


def run_again(options: argparse.Namespace, store: Store, again: list[Job]) -> int:
    """Runs each job where its profile says: here, or on the cluster."""
    from harness.cli.run import detach, work
    from harness.jobs import Graph
    from harness.spec.files import load_profile

    groups = by_profile(store, again, options.profile)
    if not options.profile:
        for name, jobs in groups.items():
            named_here(name, jobs[0], store)
    profiles = {name: load_profile(name).value for name in groups}
    if options.detach and any(profile.dispatch.kind == "local" for profile in profiles.values()):
        return detach(options)
    gc.enable()
    codes = []
    for name, jobs in groups.items():
        codes.append(work(Graph(jobs), store, profiles[name], options.detach).exit_code)
        if not codes[-1]:
            print(f"{command('FILE', profile=name, results=store.root)} continues with the jobs that depend on {plural(len(jobs), 'retried job')}")
    return max(codes)


def by_profile(store: Store, jobs: list[Job], named: str | None) -> dict[str, list[Job]]:
    """Profile -> the jobs to run under it: the one named, else that of the table that needed them. Raises SpecError where several did,
    or where none is known and the last attempt ran on a cluster: a 7B training is not begun on a login node."""
    from harness.tracking.labels import profiles_of

    known = profiles_of(store)
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        names = (named,) if named else known.get(job.key, ())
        attempt = next(reversed(store.attempts(job)), None)
        queued = attempt is not None and "owner" in attempt.claim and attempt.owner.scheduler == "slurm"
        if len(names) > 1 or (not names and queued):
            which = " and ".join(names) or "on a cluster, under a profile that is not known here"
            raise SpecError(f"{job.kind} {job.name}: was run for {which}; {command('retry', job.key12, '--profile', 'NAME', results=store.root)}")
        groups.setdefault(names[0] if names else "proxy", []).append(job)
    return groups


def named_here(name: str, job: Job, store: Store) -> None:
    """Raises SpecError for a profile that is known by name alone and is none of those here: a person's own file, which can be anywhere."""
    from harness.spec.files import find

    try:
        find(name, "profiles")
    except SpecError:
        asked = command("retry", job.key12, "--profile", "FILE", results=store.root)
        raise SpecError(f"{job.kind} {job.name}: ran under profile {name}, which is none of the project's; give its file: {asked}") from None


def set_aside(results: Path, keys: Sequence[str]) -> int:
    """Moves the folders of damaged jobs to .damaged/; nothing is deleted or run."""
    from harness.store.jobs import stored_jobs

    store = open_store(results, reads=True)
    damaged = [job for job in stored_jobs(store) if store.damage(job)]
    chosen = [job for job in damaged if not keys or any(fits(job, key) for key in keys)]
    for key in keys:
        if not any(fits(job, key) for job in chosen):
            raise SpecError(f"{key}: no damaged job has a key that begins like this; {command('status', results=store.root)} shows which are damaged")
    for job in chosen:
        print(f"{job.kind} {job.name}: set aside in {store.set_aside(store.folder(job))}")
    print(f"{plural(len(chosen), 'damaged job')} set aside" + ("; run.py FILE computes them again" if chosen else ""))
    return 0


def fits(job: Job, key: str) -> bool:
    return len(key) >= 4 and (job.key.startswith(key[: len(job.key)]) or job.name == key)
