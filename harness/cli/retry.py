"""`run.py retry [KEY…]`: run failed jobs again, and what they need."""

from __future__ import annotations

import argparse
import gc

from harness.cli.main import add_results
from harness.cli.stored import open_store, rebuilt, selected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="these jobs (default: all that failed)")
    parser.add_argument("--profile", default="proxy", metavar="P", help="whose resources they get (default: proxy)")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.cli.run import work
    from harness.jobs import Graph
    from harness.spec.files import load_profile

    store, profile = open_store(options.results), load_profile(options.profile).value
    jobs = selected(store, options.keys) if options.keys else rebuilt(store)
    statuses = store.statuses(jobs)
    again = [job for job in jobs if options.keys or statuses[job.key].state == "failed"]
    if not again:
        print("no job failed")
        return 0
    gc.enable()
    outcome = work(Graph(again), store, profile)
    print("run.py FILE goes on with what depends on them")
    return outcome.exit_code
