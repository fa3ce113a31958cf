"""`run.py import BUNDLE.zip`: take a bundle's results into this store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli.main import add_results
from harness.cli.stored import open_store
from harness.cli.words import command, listed, plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="ZIP", help="what `run.py export` wrote")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.jobs import Known
    from harness.store import Damaged, Store, StoreError, bundle
    from harness.store.jobs import stored_jobs

    store = open_store(options.results)
    with bundle.opened(options.bundle) as (folder, manifest):
        store.ensure_writable()
        records = []
        for record, _, damage in bundle.check(folder):
            if damage:
                raise Damaged(f"{options.bundle}: {record.kind}/{record.name}: {damage}; nothing was imported")
            records.append(record)
        jobs = stored_jobs(Store(folder / "store"), records)
        for job in jobs:
            if isinstance(job, Known):
                raise StoreError(
                    f"{options.bundle}: {job.kind} {job.name} was made by another version of this program; nothing was imported"
                )
        taken = bundle.take(folder, zip(jobs, records, strict=True), store, options.bundle.name)
    print(f"{plural(len(taken.new), 'job')} imported, {len(taken.known)} already here")
    if taken.other:
        print(f"not imported, because this store has its own result, which differs, or is computing it: {listed(taken.other)}", file=sys.stderr)
    for name, profile in manifest.get("tables", ()):
        print(f"{name}: {command('report', 'FILE', profile=profile, results=options.results)} writes its report")
    return 1 if taken.other else 0
