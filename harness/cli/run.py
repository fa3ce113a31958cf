"""`run.py FILE…`: plan, run what is missing, mirror into MLflow, write the reports."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

from harness.cli.main import add_selection, plans
from harness.cli.stored import history, open_store
from harness.cli.words import plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="default: reports")
    parser.add_argument("--detach", action="store_true", help="return at once; the work goes on by itself")
    parser.add_argument(
        "--no-tracking", action="store_true", help="do not mirror into MLflow (files are kept as always)"
    )


def main(options: argparse.Namespace) -> int:
    from harness import dispatch
    from harness.plan import merged
    from harness.plan.cost import seconds_of

    made = plans(options)
    store, graph = open_store(options.results), merged(made)
    ensure_writable(options.reports)
    if not all(store.is_done(job) for job in graph):
        gc.enable()
        store.ensure_writable()
        if options.detach:
            return detach(options)
        known, profile = history(store), made[0].profile.value
        outcome = dispatch.run(
            graph,
            store,
            resources=profile.resources_of,
            slots=getattr(profile.dispatch, "slots", None),
            forecast=lambda job: seconds_of(job, known),
        )
        for line in (*outcome.notes, *map(str, outcome.problems)):
            print(line, file=sys.stderr)
        code = outcome.exit_code
    else:
        code = 0
    from harness.cli.report import write
    from harness.cli.tracking import tracker

    write(made, store, options.reports, tracker(store))
    return code


def ensure_writable(folder: Path) -> None:
    """Raises OSError, naming the folder, before compute is spent."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.write_text("")
    probe.unlink()


def detach(options: argparse.Namespace) -> int:
    """The same command in a session of its own, without --detach."""
    import subprocess
    import time

    log = options.results / ".drivers" / f"detached-{time.strftime('%Y%m%d-%H%M%S')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *sys.orig_argv[1:]]
    command.remove("--detach")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    print(f"working on {plural(len(options.files), 'file')} as process {process.pid}; its output goes to {log}")
    print("run.py status shows where it stands; the same command without --detach attaches to it")
    return 0
