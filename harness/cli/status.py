"""`run.py status [FILE…]`: the state of jobs: counts, progress of running jobs, and why others failed."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.cli.main import add_json, add_selection, plans
from harness.cli.stored import finished, open_store, standing
from harness.cli.words import as_json, columns, plural
from harness.durations import duration
from harness.jobs import Graph, Job
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.store import Attempt, Status, Store

WATCH_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser, files="*")
    parser.add_argument("--all", action="store_true", help="list every job, including done and waiting ones")
    parser.add_argument("--watch", action="store_true", help="refresh every two seconds, until Ctrl-C")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    if options.watch and options.json:
        raise SpecError("--watch: cannot be combined with --json; use one of them")
    while options.watch:
        if sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        show(options)
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)
    return show(options)


def show(options: argparse.Namespace) -> int:
    """One look."""
    from harness.plan import merged
    from harness.store.jobs import stored_jobs

    store = open_store(options.results, one_look=True, reads=True)
    made = plans(options) if options.files else []
    jobs = merged(made) if made else Graph(stored_jobs(store))
    statuses = standing(store, jobs)
    if not jobs:
        print(as_json([]) if options.json else f"{options.results}: no jobs yet")
        return 0
    if options.json:
        print(as_json([record(job, statuses[job.key]) for job in jobs]))
        return code(Counter(str(statuses[job.key].state) for job in jobs))
    counts = Counter(str(statuses[job.key].state) for job in jobs)
    print(f"{plural(len(jobs), 'job')}: " + ", ".join(f"{n} {state}" for state, n in counts.most_common()))
    quiet = () if options.all else ("done", "missing", "ready", "not needed")
    rows = [line(job, statuses[job.key]) for job in jobs if str(statuses[job.key].state) not in quiet]
    if rows:
        print(columns(rows))
    if told := forecasts(store, jobs, made):
        print(told)
    if advice := other_code(store, jobs, statuses):
        print(advice)
    return code(counts)


def code(counts: Mapping[str, int]) -> int:
    """The exit code: 2 when something is damaged, 1 when something failed."""
    return 2 if counts.get("damaged") else 1 if counts.get("failed") else 0


def record(job: Job, status: Status) -> dict[str, object]:
    """A job as JSON. step, total: of the attempt's last report, None before the first."""
    attempt = status.attempt
    last = attempt.progress() if attempt is not None else None
    return {
        "key": job.key,
        "kind": job.kind,
        "name": job.name,
        "state": str(status.state),
        "reason": status.reason,
        "attempt": attempt.number if attempt is not None else None,
        "step": last["step"] if last else None,
        "total": last["total"] if last else None,
        "log": str(attempt.log) if attempt is not None and attempt.log.exists() else None,
    }


def line(job: Job, status: Status) -> list[str]:
    """State, name, progress or reason, log."""
    attempt = status.attempt
    detail = progress(attempt) if attempt is not None and status.state == "running" else status.reason
    log = str(attempt.log) if attempt is not None and attempt.log.exists() else ""
    return [str(status.state), f"{job.kind} {job.name}", detail, log]


def progress(attempt: Attempt) -> str:
    """120/200, about 40 s left; attempt 2"""
    last = attempt.progress()
    number = f"attempt {attempt.number}" if attempt.number > 1 else ""
    if not last or not last["step"]:
        return "; ".join(filter(None, ["starting", number]))
    begun = attempt.claim.get("started", last["time"])
    pace = (last["time"] - begun) / last["step"]
    left = max(0.0, pace * (last["total"] - last["step"]) - (time.time() - last["time"]))
    return "; ".join(filter(None, [f"{last['step']}/{last['total']}, about {duration(left)} left", number]))


def forecasts(store: Store, jobs: Iterable[Job], made: Sequence[Plan]) -> str:
    """How long finished jobs took, against the forecast when they began: by kind, then by table."""
    from harness.plan.cost import hindsight

    kinds = {job.key: job.kind for job in jobs}
    stated: dict[str, float] = dict(made[0].profile.value.seconds.items()) if made else {}
    pairs = hindsight(finished(store), kinds, stated)
    groups: dict[str, list[tuple[float, float]]] = {}
    for key, kind in kinds.items():
        if key in pairs:
            groups.setdefault(kind, []).append(pairs[key])
    for plan in made:
        name = f"{plan.experiment.value.kind} {plan.experiment.value.name}"
        groups[name] = [pairs[job.key] for job in plan.graph if job.key in pairs]
    rows = [compared(name, group) for name, group in groups.items() if group]
    if not rows:
        return ""
    head = ["", "jobs", "forecast", "actual", "ratio", "middle half of the jobs' ratios"]
    return "forecast and actual time of jobs that had a forecast when they began:\n" + columns([head, *rows])


def compared(name: str, pairs: Sequence[tuple[float, float]]) -> list[str]:
    """A line of the table: the pairs' sums and their ratio, and where the middle half of the single ratios lies."""
    from statistics import quantiles

    said, took = (sum(column) for column in zip(*pairs, strict=True))
    ratios = [actual / forecast for forecast, actual in pairs if forecast]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (0.0, 0.0, 0.0)
    spread = f"{low:.2f} to {high:.2f}" if len(ratios) > 1 else ""
    ratio = f"{took / said:.2f}" if said else ""
    return [name, str(len(pairs)), duration(said), duration(took), ratio, spread]


def other_code(store: Store, jobs: Iterable[Job], statuses: Mapping[str, Status]) -> str:
    """Advice when finished jobs ran another version of the code than is checked out now."""
    from harness.worker.provenance import code

    now = code().get("commit")
    done = [store.done(job) for job in jobs if statuses[job.key].state == "done"]
    other = Counter(
        str((d.get("code") or {}).get("commit"))[:12] for d in done if d and (d.get("code") or {}).get("commit") != now
    )
    if not now or not other:
        return ""
    listed = ", ".join(f"{n} at {commit}" for commit, n in other.most_common(3))
    return f"code changed since: {plural(sum(other.values()), 'job')} ran other commits ({listed}); their results still count"
