"""`run.py why CELL`: a cell's value, if it has one, and the jobs it still needs, why, and what they cost."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.main import add_json, add_selection, plans
from harness.cli.stored import history, open_store, standing
from harness.cli.words import as_json, columns, plural
from harness.durations import duration
from harness.jobs import Graph, Job
from harness.spec.errors import SpecError, unknown
from harness.spec.files import EXPERIMENTS

if TYPE_CHECKING:
    from harness.plan import Cell, Plan
    from harness.store import Status, Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help='"ROW/COLUMN", as in "Two-stage (Ours)/mmvp"')
    add_selection(parser, files="*")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    options.files = options.files or [EXPERIMENTS]
    store, made = open_store(options.results, one_look=True, reads=True), plans(options)
    found = [(plan, cell) for plan in made for cell in named(plan, options.cell)]
    if not found:
        names = [cell.name.replace(" / ", "/") for plan in made for cell in cells_of(plan) if cell.protocol == "paper"]
        raise SpecError(unknown(f'no cell "{options.cell}"', options.cell, names, "cells"))
    known = history(store)
    needs = [needed(plan, cell, store, known) for plan, cell in found]
    if options.json:
        print(as_json([record(need) for need in needs]))
    else:
        print("\n".join(line for need in needs for line in told(need)))
    damaged = any(need.statuses[job.key].state == "damaged" for need in needs for job in need.todo)
    return 2 if damaged else 0


@dataclass(frozen=True)
class Need:
    """What one cell has and lacks. difference: the two rows that its row is the difference of, in which case all else is empty. value: as
    in the report's JSON, None while there is none. costs: forecast seconds by key, None = unknown."""

    plan: Plan
    cell: Cell
    difference: str
    not_run: str
    value: Mapping[str, Any] | None
    jobs: tuple[Job, ...]
    todo: tuple[Job, ...]
    statuses: Mapping[str, Status]
    costs: Mapping[str, float | None]


def needed(plan: Plan, cell: Cell, store: Store, known: Mapping[str, float]) -> Need:
    from harness.plan.cost import seconds_of

    delta = next((row.row.delta for row in plan.rows if row.label == cell.row), None)
    if delta:
        return Need(plan, cell, f"{delta.of} minus {delta.over}", "", None, (), (), {}, {})
    if cell.not_run and not (cell.jobs and all(map(store.is_done, cell.jobs.values()))):
        return Need(plan, cell, "", cell.not_run, None, (), (), {}, {})
    jobs = tuple(plan.jobs_of(cell))
    statuses = standing(store, Graph(jobs))
    todo = tuple(job for job in jobs if statuses[job.key].state not in ("done", "not needed"))
    costs = {job.key: seconds_of(job, known, plan.profile.value.seconds) for job in todo}
    return Need(plan, cell, "", "", value_of(plan, cell, store), jobs, todo, statuses, costs)


def value_of(plan: Plan, cell: Cell, store: Store) -> Mapping[str, Any] | None:
    """The cell as in the report's JSON, or None if none of its evaluations is done or it is not an accuracy."""
    own = [job for (_, latents), job in cell.jobs.items() if latents == "own"]
    if not plan.columns or not any(map(store.is_done, own)):
        return None
    from harness.report.numbers.results import Results
    from harness.report.numbers.study import settled, study_of
    from harness.report.sections.records import cell as plain
    from harness.report.sections.tables import measured_cell

    found = plain(measured_cell(Results(settled(study_of(plan), store), store, Path(".")), cell.row, cell.column.name, cell.protocol))
    return found if found["state"] == "measured" else None


def told(need: Need) -> list[str]:
    """As text."""
    from harness.cli.plan import warnings
    from harness.plan.cost import bound

    lines = [f"{need.plan.experiment.value.kind} {need.plan.experiment.value.name}: {need.cell.name}"]
    if need.difference:
        return [*lines, f"  a difference, shown once both rows have a value: {need.difference}"]
    if need.not_run:
        return [*lines, f"  not run: {need.not_run}"]
    if need.value:
        scale = "at proxy scale " if need.plan.profile.value.proxy else ""
        lines.append(f"  {'so far ' if need.todo else ''}{scale}{shown(need.value)}")
    spared = sum(need.statuses[job.key].state == "not needed" for job in need.jobs)
    if not need.todo:
        others = f"; {plural(spared, 'job')} no longer needed" if spared else ""
        return [*lines, f"  complete: {'all ' * (not spared)}{plural(len(need.jobs) - spared, 'job')} done{others}"]
    lines.append(
        columns(
            [job.kind, job.name, str(status.state), "?" if cost is None else "~" + duration(cost), status.reason]
            for job in need.todo
            for status, cost in [(need.statuses[job.key], need.costs[job.key])]
        )
    )
    profile = need.plan.profile.value
    left = bound(need.todo, need.costs, profile.resources_of)
    parts = [f"about {duration(left.forecast)} of work"] if left.forecast else []
    parts += [f"{plural(left.unknown, 'job')} of unknown cost"] if left.unknown else []
    if profile.dispatch.kind == "slurm":
        parts.append(f"at most {duration(left.limit)} by the time limits")
    asked = len(need.jobs) - spared
    lines.append(f"  {asked - len(need.todo)} of {plural(asked, 'job')} done; left: {', '.join(parts)}")
    return lines + [f"  {warning}" for warning in warnings(profile, need.todo, need.costs)]


def shown(value: Mapping[str, Any]) -> str:
    """72.4 [70.2, 74.6] %, 1000 questions, 3 seeds; the paper reports 72.3: consistent"""
    text = f"{value['value']:.1f} [{value['low']:.1f}, {value['high']:.1f}] %, {plural(value['n'], 'question')}, {plural(value['seeds'], 'seed')}"
    if value["reported"]:
        judged = {None: "", "proxy": " (another model)"}.get(value["verdict"], f": {value['verdict']}")
        text += f"; the paper reports {value['reported']}{judged}"
    return text


def record(need: Need) -> dict[str, Any]:
    """As JSON."""
    experiment = need.plan.experiment.value
    return {
        "table": experiment.name,
        "profile": need.plan.profile.name,
        "row": need.cell.row,
        "column": need.cell.column.name,
        "protocol": need.cell.protocol,
        "not_run": need.not_run or None,
        "difference": need.difference or None,
        "value": need.value,
        "jobs": [
            {
                "key": job.key, "kind": job.kind, "name": job.name, "state": str(need.statuses[job.key].state),
                "reason": need.statuses[job.key].reason, "forecast_seconds": need.costs.get(job.key),
            }
            for job in need.jobs
        ],
    }  # fmt: skip


def cells_of(plan: Plan) -> list[Cell]:
    """The table's cells, and the base model's where a report shows it beside the rows."""
    from harness.plan.plan import Cell
    from harness.report.numbers.study import BASE

    base = [
        Cell(BASE, column, protocol, {(seed, "own"): job for seed in plan.seeds})
        for column in plan.columns
        for protocol, job in plan.base.get(column.benchmark, {}).items()
    ]
    return [*plan.cells, *([] if any(row.row.stages == () for row in plan.rows) else base)]


def named(plan: Plan, text: str) -> list[Cell]:
    """Cells under the experiment's protocol whose row and column match."""
    row, slash, column = text.rpartition("/")
    if not slash:
        row, column = text, ""
    row, column = row.strip().lower(), column.strip().lower()
    cells = cells_of(plan)
    return [
        cell
        for cell in [c for c in cells if c.row.lower() == row] or [c for c in cells if row in c.row.lower()]
        if column in ("", cell.column.name.lower()) and cell.protocol == plan.experiment.value.protocol
    ]
