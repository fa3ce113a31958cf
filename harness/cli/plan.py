"""`run.py plan FILE…`: the jobs, why each must run, which rows share it, and what the remaining ones will cost."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.main import add_json, add_selection, plans
from harness.cli.stored import history, open_store, standing
from harness.cli.words import as_json, columns, listed, plural
from harness.durations import duration
from harness.jobs import Graph, Job, Source
from harness.kinds import kind_of, place_of

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.spec.profile import Profile
    from harness.store import Status, Store


BASE_ROLES = ("base", "init", "checkpoint")
"""Inputs that are the base model where they are no job's; others are data."""
WORTH_SAYING_BYTES = 10e9
"""Disk space of trainings is only mentioned from here on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--explain", metavar="ROW", help="print a row's options, and where each value comes from")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from harness.plan import merged
    from harness.plan.cost import seconds_of

    made = plans(options)
    if options.explain:
        from harness.cli.explain import explain, explained

        print(as_json(explained(made, options.explain)) if options.json else explain(made, options.explain))
        return 0
    graph = merged(made)
    store = open_store(options.results, one_look=True)
    statuses = standing(store, graph)
    todo = [job for job in graph if statuses[job.key].state not in ("done", "damaged", "not needed")]
    damaged = [job for job in graph if statuses[job.key].state == "damaged"]
    known = history(store) if todo else {}
    stated = made[0].profile.value.seconds
    costs = {job.key: seconds_of(job, known, stated) for job in todo}
    if options.json:
        print(as_json(record(made, graph, statuses, costs)))
        return 2 if damaged else 0
    profile = made[0].profile.value
    for plan in made:
        print(heading(plan, store))
        left = [job for job in plan.graph if job.key in costs]
        if len(made) > 1 and any(costs[job.key] is not None for job in left):
            own = {job.key: costs[job.key] for job in left}
            print(f"  by itself: {plural(len(left), 'job')} to run{needed(profile, plan.graph, own)}")
        if len(made) > 1 and (limits := bounds(profile, left, costs)):
            print(f"  {limits}")
    print()
    print(table(made, graph, statuses, costs))
    print()
    if asked := requests(profile, graph):
        print("\n".join(asked) + "\n")
    if disk := room(profile, todo):
        print(disk)
    tables = [plan for plan in made if plan.experiment.value.kind == "table"]
    if shared := sharing(made, lambda job: seconds_of(job, known, stated)):
        print(shared)
        if 0 < len(tables) < len(made):
            print(f"of these for the tables: {sharing(tables, lambda job: seconds_of(job, known, stated))}")
    for said in filter(None, (bounds(profile, todo, costs), *warnings(profile, todo, costs))):
        print(said)
    spared = sum(statuses[job.key].state == "not needed" for job in graph)
    done = f"{len(graph) - len(todo) - len(damaged) - spared} done, {len(todo)} to run"
    done += "".join(f", {n} {state}" for n, state in ((len(damaged), "damaged"), (spared, "not needed")) if n)
    print(f"{plural(len(graph), 'job')}: {done}{needed(profile, graph, costs)}")
    if slow := slower(profile, todo, known):
        print(slow)
    for job in damaged:
        print(f"damaged: {statuses[job.key].reason}")
    for refusal in refusals(profile, graph, todo):
        print(f"warning: {refusal}", file=sys.stderr)
    return 2 if damaged else 0


def refusals(profile: Profile, graph: Graph, todo: Sequence[Job]) -> list[str]:
    """A line for each thing, known without the cluster, for which `run` would refuse: data that are not here, ranks that cannot
    share a step, and trainings that fit into no GPU (a warning where nothing says how much one holds); and fields of training data that nothing
    reads."""
    from harness.dispatch.preflight import gpu_memory, ranks

    looked = [*ranks(profile, todo), *gpu_memory(profile, todo)]
    found = [unknown_data(graph), *unread_fields(graph), *(one.text + ("; `run` would refuse here" if one.grade == "error" else "") for one in looked)]
    return [line for line in found if line]


def unknown_data(graph: Graph) -> str:
    """A line when the training data are not here, so that what is trained on them has no lasting key yet: a warning, since a
    cluster's table is planned on a laptop too; `run` refuses."""
    from harness.plan.training_data import UNKNOWN

    for job in graph:
        given = job.inputs.get("files")
        if isinstance(given, Source) and given.digest.startswith(UNKNOWN):
            why = given.digest.removeprefix(UNKNOWN)
            return f"training data: {why}; `run` would refuse here; the keys of jobs that are trained on them are not known yet"
    return ""


def unread_fields(graph: Graph) -> list[str]:
    """A line for each meta file with fields that nothing reads."""
    places = {files.location for job in graph if job.kind == "data" and isinstance(files := job.inputs.get("files"), Source)}
    if not places:
        return []
    from models.training.data import unread

    return [unread(Path(place)) for place in sorted(places)]


def needed(profile: Profile, graph: Graph, costs: Mapping[str, float | None]) -> str:
    """"; about 14 min on 2 slots, and 3 jobs of unknown cost"; nothing when nothing is to run.

    Of a cluster nobody knows how many jobs it runs at once (a throttle holds for one array alone), so there it is the sum
    and what no number of nodes makes shorter: "; about 72 h 00 min of work, 36 h 00 min along the longest chain".
    """
    from harness.dispatch.driver import forecast
    from harness.plan.cost import makespan

    known = {key: cost for key, cost in costs.items() if cost is not None}
    slots = (profile.dispatch.kind == "local" and profile.dispatch.slots) or os.cpu_count() or 1
    parts = []
    if known and profile.dispatch.kind == "slurm":
        chain = makespan(graph, known, slots=len(known))  # the load of one slot is below the longest job
        parts.append(f"about {duration(sum(known.values()))} of work, {duration(chain)} along the longest chain")
    elif known:
        order = forecast.priorities(graph, {job.key: known.get(job.key, 0.0) for job in graph})
        parts.append(f"about {duration(forecast.left_of_all(order, known, set(), slots))} on {plural(slots, 'slot')}")
    if unknown := len(costs) - len(known):
        parts.append(f"{plural(unknown, 'job')} of unknown cost (no finished job of their shape)")
    return "; " + ", and ".join(parts) if parts else ""


def slower(profile: Profile, todo: Sequence[Job], known: Mapping[str, float]) -> str:
    """A line where the forecast is the profile's own, made on CPUs that multiply bf16 numbers, and this host's cannot. "" once
    jobs of the same shapes have ended here. known: `history`."""
    from harness.plan.cost import seconds_of

    if profile.set.get("precision") != "bf16" or profile.dispatch.kind != "local":
        return ""
    if not any(job.kind in profile.seconds and seconds_of(job, known) is None for job in todo):
        return ""
    from harness.cli.doctor import multiplies_bf16

    if multiplies_bf16() is not False:
        return ""
    return "the forecast is for a CPU with AVX-512; this one has none and takes several times as long (once jobs have ended here, the forecast rests on them)"


def bounds(profile: Profile, todo: Sequence[Job], costs: Mapping[str, float | None]) -> str:
    """"forecast 3072 GPU-hours, at most 9600 by the time limits", or hours of work where no job asks for a GPU; "" when
    nothing is to run and under a profile that runs here, where nothing ends a job for its time."""
    from harness.plan.cost import bound, gpu_bound

    if profile.dispatch.kind != "slurm" or not todo:
        return ""
    found, what = gpu_bound(todo, costs, profile.resources_of), "GPU-hours"
    if not found.limit:
        found, what = bound(todo, costs, profile.resources_of), "hours of work"
    if not found.forecast:
        return f"forecast unknown, at most {hours(found.limit)} {what} by the time limits"
    rest = f" and {plural(found.unknown, 'job')} of unknown cost" if found.unknown else ""
    return f"forecast {hours(found.forecast)} {what}{rest}, at most {hours(found.limit)} by the time limits"


def hours(seconds: float) -> str:
    """9337 · 24 · 1.5 · 1"""
    return f"{seconds / 3600:.0f}" if seconds >= 36_000 else f"{seconds / 3600:.1f}".removesuffix(".0")


def warnings(profile: Profile, todo: Sequence[Job], costs: Mapping[str, float | None]) -> list[str]:
    """A line for each kind with a job that its time limit would end before it is done."""
    from harness.plan.cost import above_limit

    if profile.dispatch.kind != "slurm":
        return []
    return [
        f"{kind}: forecast {duration(cost)} is above its limit of {duration(60 * profile.resources_of(kind).minutes)}: "
        f"raise resources.{kind}.minutes"
        for kind, cost in above_limit(todo, costs, profile.resources_of).items()
    ]


def sharing(made: list[Plan], seconds: Callable[[Job], float | None]) -> str:
    """How many trainings are saved because rows share them."""
    from harness.plan.cost import written_out

    rows = written_out(made)
    once = list(dict.fromkeys(job for row in rows for job in row))
    if not once:
        return ""
    separate = [job for row in rows for job in row]
    shared = len(once) < len(separate)
    text = f"{plural(len(once), 'training')} for {plural(len(rows), 'row')}" + (f", {len(separate)} if none were shared" if shared else "")
    gpus = made[0].profile.value.resources_of("train").gpus
    costs = {job: seconds(job) for job in once}
    if gpus and None not in costs.values():
        hours = [f"{sum(costs[job] or 0.0 for job in jobs) * gpus / 3600:.0f}" for jobs in (once, separate)]
        text += f": {' instead of '.join(hours if shared else hours[:1])} GPU-hours"
    return text


def requests(profile: Profile, graph: Graph) -> list[str]:
    """The SLURM request for each kind of job; empty for a local profile."""
    if profile.dispatch.kind != "slurm":
        return []
    from harness.dispatch.slurm.request import sbatch_words

    kinds = dict.fromkeys(job.kind for job in graph)
    throttle = profile.dispatch.throttle
    at_once = [f"each array runs at most {plural(throttle, 'job')} at once (throttle)"] if throttle else []
    return at_once + [f"{kind}: sbatch {' '.join(sbatch_words(profile.resources_of(kind), profile.dispatch))}" for kind in kinds]


def room(profile: Profile, todo: Sequence[Job]) -> str:
    """Disk space for the trainings, if it is worth a line; "" also if the base model is not here to measure."""
    from harness.dispatch.preflight import needed as disk_needed

    need = disk_needed(profile, todo)
    return f"disk: {need}" if need is not None and need.least() >= WORTH_SAYING_BYTES else ""


def heading(plan: Plan, store: Store) -> str:
    """Two or three lines: the table, its profile and recipe, its rows and columns."""
    spec, profile = plan.experiment.value, plan.profile.value
    ours = (job for job in plan.graph if "system" not in job.payload)
    base = next((u for job in ours for role, u in job.inputs.items() if role in BASE_ROLES and isinstance(u, Source)), None)
    lines = [
        f"{spec.kind.capitalize()} {spec.name} · {spec.title} · {plan.experiment.document.name}",
        f"  profile {plan.profile.name}: {profile.title}; {recipes(plan)}; {plural(len(plan.seeds), 'seed')}"
        + (f"; base {known_as(base)}" if base else ""),
        f"  {plural(len(plan.rows), 'row')}"
        + (f" × {plural(len(plan.columns), 'column')}, {' and '.join(plan.protocols)}" if plan.columns else "")
        + f": {plural(len(plan.cells), 'cell')}",
    ]
    if plan.overridden:
        changed = [f"--set {text}" for text in plan.overrides] + (
            [] if plan.own_recipe else [f"--recipe {plan.recipe.path.stem}"]
        )
        lines.append(f"  overridden by {', '.join(changed)}: these results never enter the paper's table")
    lines += [f"  one run under several labels: {' = '.join(labels)}" for labels in plan.same_run()]
    differences = {row.label for row in plan.rows if row.row.delta}
    absent = dict.fromkeys(
        (cell.row, cell.not_run)
        for cell in plan.cells
        if cell.not_run and cell.row not in differences and not (cell.jobs and all(map(store.is_done, cell.jobs.values())))
    )
    lines += [f"  not run: {row} ({reason})" for row, reason in absent]
    return "\n".join(lines)


def recipes(plan: Plan) -> str:
    """The experiment's recipe, and the recipes of rows that name another."""
    first, *others = (recipe.path.stem for recipe in plan.recipes)
    return f"recipe {first}" + (f" (some rows: {', '.join(others)})" if others else "")


def known_as(source: Source) -> str:
    """A hub checkpoint's name and the first digits of its commit; for a folder, the first digits of its content's hash."""
    name, at, commit = source.digest.partition("@")
    return f"{name}@{commit[:12]}" if at else name[:12]


def table(made: list[Plan], graph: Graph, statuses: Mapping[str, Status], costs: Mapping[str, float | None]) -> str:
    """Jobs by kind, parents first; evaluations of one checkpoint on one line for each benchmark."""
    lines: list[str] = []
    for kind in dict.fromkeys(job.kind for job in sorted(graph, key=lambda job: place_of(job.kind))):
        jobs = [job for job in graph if job.kind == kind]
        lines.append(f"{kind}  ({plural(len(jobs), 'job')}{limit(made[0].profile.value, kind, len(jobs))})")
        groups = _evaluations(jobs, made) if kind_of(kind).answers else [[job] for job in jobs]
        lines.append(
            columns(
                [
                    _name(group),
                    _state(group, statuses),
                    _cost(group, costs),
                    _why(group, statuses),
                    _users(made, group[0]),
                ]
                for group in groups
            )
        )
    return "\n".join(lines)


def record(
    made: list[Plan], graph: Graph, statuses: Mapping[str, Status], costs: Mapping[str, float | None]
) -> dict[str, Any]:
    """As JSON: jobs, cells and states."""
    profile = made[0].profile.value
    return {
        "experiments": [
            {
                "name": plan.name,
                "file": plan.experiment.document.name,
                "profile": plan.profile.name,
                "recipe": plan.recipe.path.stem,
                "recipes": [recipe.path.stem for recipe in plan.recipes],
                "overrides": list(plan.overrides),
                "seeds": list(plan.seeds),
                "cells": [
                    {
                        "row": cell.row, "column": cell.column.name, "protocol": cell.protocol, "not_run": cell.not_run,
                        "jobs": [{"seed": s, "latents": m, "key": job.key} for (s, m), job in cell.jobs.items()],
                    }
                    for cell in plan.cells
                ],
            }
            for plan in made
        ],
        "jobs": [
            {
                "key": job.key, "kind": job.kind, "name": job.name, "payload": job.payload,
                "inputs": {role: upstream.key for role, upstream in job.inputs.items()},
                "state": str(statuses[job.key].state), "reason": statuses[job.key].reason,
                "forecast_seconds": costs.get(job.key),
                "limit_seconds": 60 * profile.resources_of(job.kind).minutes if profile.dispatch.kind == "slurm" else None,
                "rows": {plan.name: list(plan.rows_of(job)) for plan in made if plan.users(job)},
            }
            for job in graph
        ],
        "warnings": refusals(profile, graph, [job for job in graph if job.key in costs]),
    }  # fmt: skip


def limit(profile: Profile, kind: str, jobs: int) -> str:
    """", each at most 48 h 00 min on 8 GPUs: 384 GPU-hours": a cluster's time limit; nothing under a profile that runs here."""
    if profile.dispatch.kind != "slurm":
        return ""
    needs = profile.resources_of(kind)
    gpus = f" on {plural(needs.gpus, 'GPU')}: {hours(60 * needs.minutes * needs.gpus)} GPU-hours" if needs.gpus else ""
    return f", {'each ' if jobs > 1 else ''}at most {duration(60 * needs.minutes)}{gpus}"


def _evaluations(jobs: list[Job], made: list[Plan]) -> list[list[Job]]:
    """The evaluations of one checkpoint for the same rows, together: rows may decode it differently."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.inputs["checkpoint"].key, _users(made, job)), []).append(job)
    return list(groups.values())


def _name(group: list[Job]) -> str:
    """A job's name with what it starts from; or, of evaluations, "stage1-seed0-12ab: 3 × paper (own zeroed), 3 × stock (own)"."""
    first = group[0]
    if first.kind == "train":
        before = dict.fromkeys(
            u.name if isinstance(u, Job) else "base" for r, u in first.inputs.items() if r in ("init", "teacher")
        )
        return f"{first.name}  from {' and '.join(before)}"
    if not kind_of(first.kind).answers:
        return first.name
    modes: dict[tuple[str, Any], dict[str, list[str]]] = {}
    for job in group:
        decode = job.payload.get("decode", {})
        way = modes.setdefault((job.payload["benchmark"], decode.get("latent_steps", 8)), {})
        way.setdefault(job.payload.get("protocol", "paper"), []).append(decode.get("latents", "own"))
    several = len({steps for _, steps in modes}) > 1
    alike: dict[str, list[str]] = {}
    for (benchmark, steps), way in modes.items():
        text = ", ".join(f"{protocol} ({' '.join(latents)})" for protocol, latents in way.items())
        alike.setdefault(text + (f", S = {steps}" if several else ""), []).append(benchmark)
    checkpoint, system = first.inputs["checkpoint"], first.payload.get("system")
    who = checkpoint.name if isinstance(checkpoint, Job) else "base model"
    if system:
        asked = f"-{first.payload['benchmark']}-{first.payload.get('protocol', 'paper')}"
        who = f"{first.slug.removesuffix(asked)} through lmms-eval's {system['adapter']}"
    how = "; ".join(f"{' '.join(benchmarks)} × {way}" for way, benchmarks in alike.items())
    return f"{who}  {plural(len(group), 'job')}: {how}"


def _state(group: list[Job], statuses: Mapping[str, Status]) -> str:
    states = [str(statuses[job.key].state) for job in group]
    names = {"missing": "to run", "ready": "to run"}
    counts: dict[str, int] = {}
    for state in states:
        counts[names.get(state, state)] = counts.get(names.get(state, state), 0) + 1
    return ", ".join(name if len(counts) == 1 else f"{n} {name}" for name, n in counts.items())


def _cost(group: list[Job], costs: Mapping[str, float | None]) -> str:
    found = [costs[job.key] for job in group if job.key in costs]
    if not found:
        return ""
    known = [cost for cost in found if cost is not None]
    return ("~" + duration(sum(known)) if known else "") + (
        " + ?" if known and None in found else "?" if None in found else ""
    )


def _why(group: list[Job], statuses: Mapping[str, Status]) -> str:
    """Why jobs must run, in a few words; empty if they are done."""
    reasons = dict.fromkeys(
        "no result yet" if status.state in ("ready", "missing") else status.reason
        for status in (statuses[job.key] for job in group)
        if status.state not in ("done", "damaged")  # damage is listed below the table
    )
    return "; ".join(reason for reason in reasons if reason)


def _users(made: list[Plan], job: Job) -> str:
    """Which rows need the job; with several experiments, which experiments."""
    found = [(plan, rows) for plan in made if (rows := plan.rows_of(job))]
    if not found:
        return "for reference"
    if len(found) > 2:
        return "for " + ", ".join(plan.experiment.value.name for plan, _ in found)
    texts = []
    for plan, rows in found:
        every = len(rows) == len(plan.checkpoints) > 1
        texts.append(
            (f"{plan.experiment.value.name}: " if len(made) > 1 else "") + ("all rows" if every else listed(rows))
        )
    return "for " + "; ".join(texts)
