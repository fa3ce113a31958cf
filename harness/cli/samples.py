"""`run.py samples FILE [ROW_A ROW_B]`: a page with every question, its pictures and every row's answers, to search and filter."""

from __future__ import annotations

import argparse
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from harness.cli.main import add_json, add_results, at_least_one, folder_name, plans, seed_number
from harness.cli.report import REPORTS, reports_folder
from harness.cli.stored import open_store
from harness.cli.words import as_json

if TYPE_CHECKING:
    from harness.report.viewer.answers import Answer, Sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="experiments/*.yaml")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="two rows to compare first: a unique part of each name, or “Base model”")
    parser.add_argument("--column", metavar="COLUMN", help="only this column (default: all of the table's)")
    parser.add_argument("--protocol", choices=("paper", "stock"), help="default: the table's")
    parser.add_argument("--seed", type=seed_number, metavar="SEED", help="the seed to show first (default: the table's first)")
    parser.add_argument("--most", type=at_least_one, default=2000, metavar="N", help="how many questions of each benchmark, spread evenly (default: 2000)")
    parser.add_argument("--profile", default="proxy", metavar="P", help="profile's name or file (default: proxy)")
    parser.add_argument("--reports", type=folder_name, metavar="DIR", help=REPORTS)
    add_json(parser)
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.report.numbers.results import Results
    from harness.report.numbers.study import settled, study_of
    from harness.report.viewer.answers import columns_of, row_label, sheet
    from harness.report.viewer.files import write
    from harness.report.writers.index import write_index
    from harness.spec.errors import SpecError
    from harness.spec.files import EXPERIMENTS

    if len(options.rows) not in (0, 2):
        raise SpecError(f"samples takes two rows, or none for all of them; {len(options.rows)} given")
    if options.json and not options.rows:
        raise SpecError("samples --json compares two rows; name them")
    chosen = dict(files=[options.file], recipe=None, columns=[], protocols=[], latents=[], overrides=[])
    seeds = None if options.seed is None else options.seed + 1
    store = open_store(options.results, reads=True)
    (plan,) = plans(argparse.Namespace(**vars(options) | chosen | {"rows": [], "seeds": seeds}))
    rows = tuple(row_label(plan, row) for row in options.rows)
    spec = plan.experiment.value
    protocol = options.protocol or spec.protocol
    reports = reports_folder(options)
    asked = [options.column or "", protocol if protocol != spec.protocol else ""]
    path = reports / "samples" / f"{slug(plan.name, *asked)}.html"
    results = Results(settled(study_of(plan), store), store, path.parent.absolute())
    found = {column.name: sheet(results, column, protocol, options.most) for column in columns_of(plan, options.column)}
    sheets = [one for one in found.values() if one is not None]
    if not sheets:
        raise SpecError(f"{options.file}: no evaluation is done{f' under protocol {protocol}' if options.protocol else ''}; run it first")
    for one in sheets:
        for row in rows:
            known = sorted({run.seed for run in one.runs})
            if options.seed is not None and options.seed not in known:
                raise SpecError(f"--seed {options.seed}: no evaluation of {one.column.name} is done with this seed (seeds done: {', '.join(map(str, known))})")
            if one.of(row, options.seed) is None:
                why = next((text for text in one.missing if text.startswith(f"{row}, own")), "no evaluation is planned")
                raise SpecError(f"{row} on {one.column.name}: {why.rpartition(': ')[2]}; run it first, or name another column")
    label = f"{spec.kind.capitalize()} {spec.name}"
    head = {"label": label, "title": spec.title, "profile": plan.profile.name, "protocol": protocol}
    written = write(path, head, sheets)
    write_index(reports, EXPERIMENTS)
    if options.json:
        print(as_json(record((rows[0], rows[1]), options.seed, protocol, path, sheets, written.questions)))
        return 0
    if rows:
        print(f"first: {rows[0]}; second: {rows[1]}; protocol {protocol}")
    if absent := [name for name, one in found.items() if one is None]:
        print(f"  not run, so not shown: {', '.join(absent)}")
    for one in sheets:
        said = one.words((rows[0], rows[1]), options.seed) if rows else f"{one.title}: {len(one.questions):,} of {one.asked:,} questions, {len(one.runs)} evaluations"
        print(f"  {said}")
    place = {"a": rows[0], "b": rows[1], "show": "flips"} if rows else {}
    place |= {} if options.seed is None else {"seed": str(options.seed)}
    print(f"written: {path}{'#' * bool(place)}{urlencode(place)} ({written.size / 1e6:.1f} MB with its pictures, loaded as they are viewed)")
    return 0


def record(
    rows: tuple[str, str], seed: int | None, protocol: str, page: Path, sheets: Sequence[Sheet], asked: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """As JSON: the questions on which one row is right and the other wrong. Only the page has pictures."""
    columns = []
    for one in sheets:
        first, second = (one.of(row, seed) for row in rows)
        assert first is not None and second is not None
        differing = [at for at, (a, b) in enumerate(zip(first.answers, second.answers)) if a.right != b.right]
        columns.append({
            "title": one.title, **one.counts(rows, seed), "first_job": first.job.name, "second_job": second.job.name,
            "questions": [
                {
                    "task": one.questions[at][0], "doc_id": one.questions[at][1], "question": asked[one.column.name][at]["text"],
                    "options": dict(zip(string.ascii_uppercase, asked[one.column.name][at]["options"])), "target": one.targets[at],
                    "first": answered(first.answers[at]), "second": answered(second.answers[at]),
                }
                for at in differing
            ],
        })  # fmt: skip
    return {"first": rows[0], "second": rows[1], "protocol": protocol, "page": str(page), "columns": columns}


def answered(one: Answer) -> dict[str, Any]:
    return {
        "letter": one.prediction, "correct": one.right, "response": one.response, "latent_steps": one.latent_steps,
        "truncated": one.truncated, "loglik": one.loglik,
    }  # fmt: skip


def slug(*words: str) -> str:
    """ "table3c", "", "stock" -> "table3c-stock"."""
    return re.sub("[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
