"""`run.py verify [FILE…]`: compare the files of every finished job with the digests in its DONE.json, or those of a bundle with its own digests."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.main import add_json, add_selection, plans
from harness.cli.stored import open_store
from harness.cli.words import as_json, plural
from harness.jobs import Graph
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.store import Store

SAY_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser, files="*")
    parser.epilog = "FILE may also be a bundle that `run.py export` wrote (*.zip)."
    parser.add_argument("--all", action="store_true", help="check every job of the store (the default without FILE)")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from harness.plan import merged
    from harness.store.jobs import stored_jobs

    if bundles := [file for file in options.files if file.endswith(".zip")]:
        return verify_bundles(bundles, [file for file in options.files if file not in bundles], options.json)
    if not options.results.is_dir():
        raise SpecError(f"{options.results}: no such folder; name the one to check: --results DIR")
    store = open_store(options.results, one_look=True, reads=True)
    jobs = Graph(stored_jobs(store)) if options.all or not options.files else merged(plans(options))
    damaged, done, size = {}, 0, 0
    for job, record, line in checked(store, jobs):
        if line:
            damaged[job.key] = line
        elif record is not None:
            done += 1
            size += sum(entry.get("bytes", 0) for entry in record["outputs"].values())
    if options.json:
        listed = [{"key": key, "text": line} for key, line in damaged.items()]
        print(as_json({"results": str(options.results), "unchanged": done, "bytes": size, "damaged": listed}))
        return 2 if damaged else 0
    print(f"{plural(done, 'finished job')} unchanged: {size / 1e6:.1f} MB compared by sha256")
    print("\n".join(f"damaged: {line}" for line in damaged.values()), end="\n" * bool(damaged), file=sys.stderr)
    return 2 if damaged else 0


def verify_bundles(bundles: Sequence[str], others: Sequence[str], for_programs: bool) -> int:
    """Raises SpecError for bundles and tables in one command, StoreError and Damaged as `harness.store.bundle.opened`."""
    from harness.store import bundle

    if others:
        raise SpecError(f"{others[0]}: is not a bundle; verify bundles and tables in two commands")
    damaged, records = [], []
    for path in bundles:
        with bundle.opened(Path(path)) as (folder, manifest):
            jobs = list(bundle.check(folder))
            found = [(record, f"{path}: {record.kind}/{record.name}: {line}") for record, _, line in jobs if line]
            damaged += [line for _, line in found]
            records.append(
                {
                    "bundle": path,
                    "tables": [{"name": name, "profile": profile} for name, profile in manifest.get("tables", ())],
                    "commit": (manifest.get("code") or {}).get("commit"),
                    "files": len(manifest["files"]),
                    "unchanged": len(jobs) - len(found),
                    "damaged": [{"key": record.key, "text": line} for record, line in found],
                }
            )
            if for_programs:
                continue
            tables = ", ".join(f"{name} ({profile})" for name, profile in manifest.get("tables", ()))
            commit = str((manifest.get("code") or {}).get("commit", ""))[:12] or "outside a checkout"
            print(f"{path}: {plural(len(manifest['files']), 'file')} and {plural(len(jobs), 'result')} as they were exported")
            print(f"  tables     {tables or 'none named'}\n  exported   by code at {commit}")
    if for_programs:
        print(as_json(records))
        return 2 if damaged else 0
    print("\n".join(damaged), end="\n" * bool(damaged), file=sys.stderr)
    return 2 if damaged else 0


def checked(store: Store, jobs: Graph):
    """Yields (job, DONE.json's record or None, damage or "") for each job; prints progress to stderr."""
    said = time.monotonic()
    for number, job in enumerate(jobs, start=1):
        found = store.examined(job, afresh=True)
        yield job, found.done, store.damage(job) if found.damage else ""
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            print(f"checked {number} of {plural(len(jobs), 'job')}", file=sys.stderr, flush=True)
