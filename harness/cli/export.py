"""`run.py export FILE… --to BUNDLE.zip`: the results behind the tables, in one file for a reviewer or a colleague."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.main import add_selection, plans
from harness.cli.stored import open_store
from harness.cli.words import command, listed, plural
from harness.kinds import kind_of

if TYPE_CHECKING:
    from harness.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="ZIP", help="the bundle to write")
    parser.add_argument("--everything", action="store_true", help="also weights, training data and pictures (large)")


def main(options: argparse.Namespace) -> int:
    from harness.plan import merged
    from harness.plan.registration import name_of
    from harness.spec.errors import SpecError
    from harness.store import bundle
    from harness.worker.provenance import code, versions

    store, made = open_store(options.results, one_look=True, reads=True), plans(options)
    asked = [job for job in merged(made) if kind_of(job.kind).shown]
    done = [job for job in asked if store.is_done(job) or store.damage(job)]
    if not done:
        raise SpecError(f"{options.results}: none of the {plural(len(asked), 'result')} is done; {command(*options.files, profile=options.profile, results=options.results)} computes them")
    facts = {"tables": [[plan.name, plan.profile.name] for plan in made], "code": code(), "versions": versions()}
    counts = bundle.write(
        options.to, store, done, specs(made), facts, registered=map(name_of, made), everything=options.everything
    )
    size = options.to.stat().st_size
    print(f"{options.to}: {plural(counts['store'], 'job')} whole, {counts['lineage']} by name and digests, {size / 1e6:.1f} MB")
    check, take = command("verify", options.to), command("import", options.to, "--results", "DIR")
    print(f"check it: {check}; take it into a store: {take}")
    if missing := [job.name for job in asked if job not in done]:
        print(f"{plural(len(missing), 'result')} not done and left out: {listed(missing)}", file=sys.stderr)
    return 0


def specs(made: list[Plan]) -> dict[str, Path]:
    """Name in the bundle -> file: what was asked for, and the versions of the packages that answer to it."""
    from harness.spec.files import REPOSITORY
    from harness.spec.text import layers

    found: dict[str, Path] = {}
    for plan in made:
        found[plan.experiment.document.path.name] = plan.experiment.document.path
        shelves = [*(("recipes", recipe) for recipe in plan.recipes), ("profiles", plan.profile.document)]
        for shelf, document in shelves:
            found |= {f"{shelf}/{layer.path.name}": layer.path for layer, _ in layers(document)}
        for benchmark in plan.benchmarks.values():
            found[f"benchmarks/{benchmark.document.path.name}"] = benchmark.document.path
    locked = REPOSITORY / "uv.lock"
    return found | ({"uv.lock": locked} if locked.exists() else {})
