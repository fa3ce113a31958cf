"""`run.py gc FILE…`: show what no named table needs; `--delete` deletes it."""

from __future__ import annotations

import argparse
from collections import defaultdict

from harness.cli.main import add_json, add_selection, plans
from harness.cli.stored import open_store
from harness.cli.words import as_json, columns, command, plural
from harness.durations import duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--also", nargs="+", action="extend", default=[], metavar="P", help="also keep what they need under these profiles")
    parser.add_argument("--delete", action="store_true", help="delete these jobs; without this option they are only listed")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from harness.jobs import Known
    from harness.plan import merged
    from harness.store.jobs import stored_jobs
    from harness.store.unneeded import delete, unneeded

    store, made = open_store(options.results, reads=True), []
    for profile in dict.fromkeys([options.profile, *options.also]):
        made += plans(argparse.Namespace(**{**vars(options), "profile": profile}))
    found = unneeded(store, (job for job in stored_jobs(store) if not isinstance(job, Known)), merged(made))
    if options.json:
        deleted = {one.job.key for one in found if options.delete and delete(store, one.job)}
        print(as_json([
            {"key": one.job.key, "kind": one.job.kind, "name": one.job.name, "bytes": one.bytes, "seconds": one.seconds, "deleted": one.job.key in deleted}
            for one in found
        ]))  # fmt: skip
        return 0
    if not found:
        print(f"{options.results}: everything in it is needed")
        return 0
    groups = defaultdict(list)
    for one in found:
        groups[one.job.kind].append(one)
    rows = [("", "jobs", "MB", "took")]
    for kind, members in groups.items():
        took = sum(one.seconds or 0.0 for one in members)
        rows.append((kind, str(len(members)), f"{sum(one.bytes for one in members) / 1e6:.1f}", duration(took)))
    what = ", ".join(f"{plan.name} ({plan.profile.name})" for plan in made)
    print(f"not needed by {what}:\n" + columns(rows))
    if not options.delete:
        keep = command("tag", "NAME", "KEY…", results=options.results)
        print(f"nothing was deleted; jobs of tables and profiles that you did not name count as not needed: --delete deletes them, {keep} keeps them")
        return 0
    gone = [one for one in found if delete(store, one.job)]
    print(f"{plural(len(gone), 'job')} deleted, {sum(one.bytes for one in gone) / 1e6:.1f} MB")
    if len(gone) < len(found):
        print(f"{plural(len(found) - len(gone), 'job')} kept, because they have started since")
    return 0
