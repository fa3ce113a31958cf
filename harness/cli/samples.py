"""`run.py samples FILE ROW_A ROW_B`: the questions on which two rows differ, with pictures and both answers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.main import add_json, add_results, count, folder_name, plans
from harness.cli.report import REPORTS, reports_folder
from harness.cli.stored import open_store
from harness.cli.words import as_json

if TYPE_CHECKING:
    from harness.report.writers.samples import SideBySide


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="experiments/*.yaml")
    parser.add_argument("row_a", metavar="ROW_A", help="a row, or a unique part of its name")
    parser.add_argument("row_b", metavar="ROW_B", help="another row, or “Base model”")
    parser.add_argument("--column", metavar="COLUMN", help="only this one (default: every benchmark of the table)")
    parser.add_argument("--protocol", choices=("paper", "stock"), help="default: the table's")
    parser.add_argument("--seed", type=int, metavar="SEED", help="default: the first")
    parser.add_argument("--most", type=count, default=16, metavar="N", help="questions shown of each benchmark (default: 16)")
    parser.add_argument("--profile", default="proxy", metavar="P", help="profile's name or file (default: proxy)")
    parser.add_argument("--reports", type=folder_name, metavar="DIR", help=REPORTS)
    add_json(parser)
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.outgoing import inert
    from harness.report.writers.files import replace_file
    from harness.report.writers.index import write_index
    from harness.report.writers.samples import columns_of, compare, page, row_label
    from harness.spec.files import EXPERIMENTS

    chosen = dict(files=[options.file], recipe=None, rows=[], columns=[], protocols=[], latents=[], overrides=[])
    seeds = None if options.seed is None else options.seed + 1
    (plan,) = plans(argparse.Namespace(**vars(options) | chosen | {"seeds": seeds}))
    rows = row_label(plan, options.row_a), row_label(plan, options.row_b)
    protocol = options.protocol or plan.experiment.value.protocol
    asked = [options.column or "", protocol if protocol != plan.experiment.value.protocol else ""]
    asked.append("" if options.seed is None else f"seed {options.seed}")
    reports = reports_folder(options)
    path = reports / "samples" / f"{slug(plan.name, *rows, *asked)}.html"
    store = open_store(options.results)
    parts = [
        compare(plan, store, column, rows, protocol, path.parent.absolute(), options.most, options.seed)
        for column in columns_of(plan, options.column)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, inert(page(plan, rows, protocol, parts)).encode())
    write_index(reports, EXPERIMENTS)
    if options.json:
        print(as_json(record(rows, protocol, path, parts)))
        return 0
    print(f"first: {rows[0]}; second: {rows[1]}; protocol {protocol}")
    for part in parts:
        print(f"  {part.words}")
    print(f"written: {path}")
    return 0


def record(rows: tuple[str, str], protocol: str, path: Path, parts: Sequence[SideBySide]) -> dict[str, Any]:
    """For a program. Pictures are on the page alone."""
    counts = ("n", "both_right", "only_first", "only_second", "both_wrong_alike", "both_wrong_apart")
    return {
        "first": rows[0],
        "second": rows[1],
        "protocol": protocol,
        "page": str(path),
        "columns": [
            {
                "title": part.title,
                **{name: getattr(part, name) for name in counts},
                "first_job": part.first_job,
                "second_job": part.second_job,
                "questions": [
                    {
                        "task": one.task, "doc_id": one.doc_id, "question": one.question, "options": dict(one.options),
                        "target": one.target, "first": asdict(one.first), "second": asdict(one.second),
                    }
                    for one in part.shown
                ],
            }
            for part in parts
        ],
    }  # fmt: skip


def slug(*words: str) -> str:
    """ "table3c", "Two-stage (Ours)", "Joint Train", "" -> "table3c-two-stage-ours-joint-train"."""
    return re.sub("[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
