"""`run.py retry [KEY…]`: run failed jobs again, and what they need."""

from __future__ import annotations

import argparse
import gc
import sys

from harness.cli.main import add_results
from harness.cli.stored import history, open_store, rebuilt, selected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="these jobs (default: all that failed)")
    parser.add_argument("--profile", default="proxy", metavar="P", help="whose resources they get (default: proxy)")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness import dispatch
    from harness.jobs import Graph
    from harness.plan.cost import seconds_of
    from harness.spec.files import load_profile

    store, profile = open_store(options.results), load_profile(options.profile).value
    jobs = selected(store, options.keys) if options.keys else rebuilt(store)
    statuses = store.statuses(jobs)
    again = [job for job in jobs if options.keys or statuses[job.key].state == "failed"]
    if not again:
        print("no job failed")
        return 0
    gc.enable()
    known = history(store)
    outcome = dispatch.run_profile(Graph(again), store, profile, forecast=lambda job: seconds_of(job, known))
    for line in (*outcome.notes, *map(str, outcome.problems)):
        print(line, file=sys.stderr)
    print(f"{len(outcome.ran)} done now; run.py FILE goes on with what depends on them")
    return outcome.exit_code
