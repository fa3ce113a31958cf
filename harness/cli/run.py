"""`run.py FILE…`: plan, run what is missing, copy results to MLflow, write the reports."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.main import add_selection, folder_name, plans
from harness.cli.names import check_names
from harness.cli.notice import VARIABLE, Notice
from harness.cli.report import REPORTS
from harness.cli.stored import damage, history, lost_link, open_store
from harness.cli.tracking import begin, tracker
from harness.cli.words import command, plural
from harness.jobs import Source
from harness.spec.errors import SpecError
from harness.tracking.where import check as check_address

if TYPE_CHECKING:
    from harness.dispatch import Outcome
    from harness.jobs import Graph
    from harness.plan import Plan
    from harness.spec.profile import Profile
    from harness.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--reports", type=folder_name, metavar="DIR", help=REPORTS)
    parser.add_argument("--detach", action="store_true", help="return at once; the work continues in the background")
    parser.add_argument(
        "--notify", metavar="COMMAND", default=os.environ.get(VARIABLE, ""),
        help=f"run this command at the end; its standard input is JSON that says how the run ended (docs/using.md; default: ${VARIABLE})",
    )  # fmt: skip


def main(options: argparse.Namespace) -> int:
    notice, code = Notice(options.notify), 1
    try:
        code = go(options, notice)
    except KeyboardInterrupt:
        code = 130
        raise
    except Exception as error:
        notice.error = str(error) or type(error).__name__
        raise
    finally:
        notice.send(code)
    return code


def go(options: argparse.Namespace, notice: Notice) -> int:
    """The exit code. notice: learns how it went."""
    from harness.cli.report import reports_folder, write
    from harness.plan import merged

    made = plans(options)
    store = open_store(options.results)
    everything = merged(made)
    reports = reports_folder(options)
    ensure_writable(reports)
    check_names(made, store, reports)
    profile = made[0].profile.value
    def show() -> int:
        """Draws the reports from the results there are. Returns 2 if any of them is damaged."""
        damaged = damage(store, everything)
        write(made, store, reports, tracker(store))
        notice.reports = reports
        print("\n".join(damaged), end="\n" * bool(damaged), file=sys.stderr)
        return 2 if damaged else 0

    with store.one_look():
        graph = needed(everything, store)
        if not ready(graph, store, profile):
            return 2
        if fetch_benchmarks(graph, store):
            made = plans(options)  # a hub branch's commit, and so the jobs' keys, are known only now
            everything = merged(made)
            graph = needed(everything, store)
        if all(store.is_done(job) or store.damage(job) for job in graph):
            if problem := begin(made, store, running=False).finish():
                print(problem, file=sys.stderr)
            return show()
        gc.enable()
        store.ensure_writable()
        check_address(store)
        for note in check_inputs(graph, store, profile):
            print(note, file=sys.stderr)
        register_all(made, store)
        if options.detach and profile.dispatch.kind == "local":
            return detach(options)
    notice.began, notice.tables = True, made
    follower = begin(made, store, running=True)
    notice.outcome = outcome = work(graph, store, profile, options.detach)
    if problem := follower.finish():
        print(problem, file=sys.stderr)
    if outcome.interrupted or outcome.detached:
        print(f"the same command continues from here; {command('status', results=store.root)} shows where it stands", file=sys.stderr)
        return outcome.exit_code
    with store.one_look():
        return show() or outcome.exit_code


def needed(graph: Graph, store: Store) -> Graph:
    """The jobs still needed. A damaged job is only recomputed on request."""
    return graph.needed(lambda job: store.is_done(job) or bool(store.damage(job)))


def register_all(made: list[Plan], store: Store) -> None:
    """Registers each table's rows, columns, seeds and claims before any result exists."""
    from harness.plan.registration import register
    from harness.worker.provenance import code

    for plan in made:
        register(plan, store, lambda: str(code()["commit"]))


def work(graph: Graph, store: Store, profile: Profile, detach: bool = False) -> Outcome:
    """Runs what is missing, and reports what did not get done. detach: return once everything is submitted to a
    cluster."""
    from harness.dispatch import run_profile
    from harness.plan.cost import seconds_of

    known: dict[str, float] = history(store)
    stated: dict[str, float] = dict(profile.seconds.items())
    outcome = run_profile(graph, store, profile, forecast=lambda job: seconds_of(job, known, stated), detach=detach)
    blocked = [problem for problem in outcome.problems if problem.state == "blocked"]
    said = [problem for problem in outcome.problems if problem.state not in ("blocked", "damaged")]
    for line in (*outcome.notes, *map(str, said)):
        print(line, file=sys.stderr)
    if blocked:
        print(f"{plural(len(blocked), 'job')} could not run for it: {command('status', results=store.root)} shows which", file=sys.stderr)
    return outcome


def fetch_benchmarks(graph: Graph, store: Store) -> bool:
    """Downloads missing data sets from the hub into the cache, since a cluster's nodes often cannot. Returns whether there were any."""
    from models import hub

    fetched = set()
    for job in graph:
        files = job.inputs.get("files")
        if job.kind == "mirror" and isinstance(files, Source) and files.location.startswith(hub.DATA_SET) and not store.is_done(job):
            repository, _, revision = files.location.removeprefix(hub.DATA_SET).rpartition("@")
            held = hub.cached_snapshot(repository, revision, "datasets")[0] or hub.prepared(repository, revision)[0]
            if held or (repository, revision) in fetched:
                continue
            from models.evaluation.external import fetch

            fetch(job.payload["benchmark"], repository, revision)
            fetched.add((repository, revision))
    return bool(fetched)


def ready(graph: Graph, store: Store, profile: Profile) -> bool:
    """Whether the machine, the cluster and the base model are fit for the jobs; prints errors and warnings."""
    todo = [job for job in graph if not (store.is_done(job) or store.damage(job))]
    if not todo:
        return True
    from harness.dispatch.preflight import look

    found = look(profile, todo, store.root)
    for one in found:
        if one.grade != "ok":
            print(f"{one.grade}: {one.name}: {one.text}", file=sys.stderr)
    return all(one.grade != "error" for one in found)


def check_inputs(graph: Graph, store: Store, profile: Profile) -> list[str]:
    """Checks external data first, wherever the jobs will run: a cluster's nodes see the files that this machine sees.
    Returns notes for the user."""
    todo = [job for job in graph if job.payload.get("source") == "external" and not store.is_done(job)]
    if not todo:
        return []
    from harness.worker.inputs import check_inputs as check

    return check(todo, (profile.data, profile.clips), store.root / ".digests.json", graph)


def ensure_writable(folder: Path) -> None:
    """Raises OSError or SpecError, naming the folder of reports, before compute is spent."""
    if broken := lost_link(folder, "--reports"):
        raise SpecError(broken)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.write_text("")
    probe.unlink(missing_ok=True)  # another run may check at the same moment


def detach(options: argparse.Namespace) -> int:
    """Starts the same command without --detach in its own session."""
    import subprocess
    import time

    from harness.store import trust

    log = trust.private(options.results, ".drivers") / f"detached-{time.strftime('%Y%m%d-%H%M%S')}.log"
    again = [sys.executable, *sys.orig_argv[1:]]
    again.remove("--detach")
    with log.open("w") as output:
        process = subprocess.Popen(
            again, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    print(f"working as process {process.pid}; its output goes to {log}")
    print(f"{command('status', results=options.results)} shows where it stands; the same command without --detach attaches to it")
    return 0
