"""`run.py why CELL`: what one cell still needs, why, and what it costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli.main import add_selection, plans
from harness.cli.stored import history, open_store, standing
from harness.cli.words import columns, duration, plural
from harness.jobs import Graph
from harness.spec.errors import SpecError, unknown
from harness.spec.files import EXPERIMENTS

if TYPE_CHECKING:
    from harness.plan import Cell, Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help='"ROW/COLUMN", as in "Two-stage (Ours)/mmvp"')
    add_selection(parser, files="*")


def main(options: argparse.Namespace) -> int:
    from harness.cli.plan import warnings
    from harness.plan.cost import bound, seconds_of

    options.files = options.files or [EXPERIMENTS]
    store = open_store(options.results, one_look=True)
    found = [(plan, cell) for plan in plans(options) for cell in named(plan, options.cell)]
    if not found:
        names = [
            cell.name.replace(" / ", "/") for plan in plans(options) for cell in plan.cells if cell.protocol == "paper"
        ]
        raise SpecError(unknown(f'no cell "{options.cell}"', options.cell, names, "cells"))
    known, damaged = history(store), False
    for plan, cell in found:
        print(f"{plan.experiment.value.kind} {plan.experiment.value.name}: {cell.name}")
        if delta := plan.experiment.value.row(cell.row).delta:
            print(f"  a difference, shown once both rows have a value: {delta.of} minus {delta.over}")
            continue
        if cell.not_run and not (cell.jobs and all(map(store.is_done, cell.jobs.values()))):
            print(f"  not run: {cell.not_run}")
            continue
        jobs = plan.jobs_of(cell)
        statuses = standing(store, Graph(jobs))
        todo = [job for job in jobs if statuses[job.key].state not in ("done", "not needed")]
        damaged = damaged or any(statuses[job.key].state == "damaged" for job in todo)
        profile = plan.profile.value
        costs = {job.key: seconds_of(job, known, profile.seconds) for job in todo}
        rows = [
            [
                job.kind,
                job.name,
                str(statuses[job.key].state),
                "?" if (cost := costs[job.key]) is None else "~" + duration(cost),
                statuses[job.key].reason,
            ]
            for job in todo
        ]
        spared = sum(statuses[job.key].state == "not needed" for job in jobs)
        if not todo:
            others = f"; {plural(spared, 'job')} that nothing waits for any more" if spared else ""
            print(f"  complete: {'all ' * (not spared)}{plural(len(jobs) - spared, 'job')} done{others}")
            continue
        print(columns(rows))
        left = bound(todo, costs, profile.resources_of)
        parts = [f"about {duration(left.forecast)} of work"] if left.forecast else []
        parts += [f"{plural(left.unknown, 'job')} of unknown cost"] if left.unknown else []
        if profile.dispatch.kind == "slurm":
            parts.append(f"at most {duration(left.limit)} by the time limits")
        needed = len(jobs) - spared
        print(f"  {needed - len(todo)} of {plural(needed, 'job')} done; left: {', '.join(parts)}")
        for warning in warnings(profile, todo, costs):
            print(f"  {warning}")
    return 2 if damaged else 0


def named(plan: Plan, text: str) -> list[Cell]:
    """Cells of protocol paper (or of the one in brackets) whose row and column fit."""
    row, slash, column = text.rpartition("/")
    if not slash:
        row, column = text, ""
    row, column = row.strip().lower(), column.strip().lower()
    exact = [c for c in plan.cells if c.row.lower() == row]
    return [
        cell
        for cell in exact or [c for c in plan.cells if row in c.row.lower()]
        if column in ("", cell.column.name.lower()) and cell.protocol == plan.experiment.value.protocol
    ]
