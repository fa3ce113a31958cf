"""A row's options, each with where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.cli.words import columns
from harness.jobs import Job
from harness.spec.errors import SpecError, meant, unknown
from harness.spec.recipe import STAGES

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.spec.resolve import ResolvedRow, Value


def explain(made: list[Plan], label: str) -> str:
    """Raises SpecError when no row is called that."""
    plan, row = named(made, label)
    stages = row.row.stages
    title = f"{row.label}: " + ("base model" if stages == () else " → ".join(stages or ["not trained here"]))
    shown = options(row)
    lines = [title, columns([name, text(value.value), source(value)] for name, value in shown.items())]
    if row.undefined:
        lines.append(row.undefined)
    for seed, last in plan.checkpoints.get(row.label, {}).items():
        chain = " → ".join(chained(last)) if isinstance(last, Job) else f"base model {last.digest[:12]}"
        lines.append(f"seed {seed}: {chain}")
    if any(value.assumed for value in shown.values()):
        lines.append("(assumed): the recipe's source does not state it, so the value is ours")
    return "\n".join(lines)


def explained(made: list[Plan], label: str) -> dict[str, Any]:
    """The same for a program. from: file and line, or "schema". unscaled, factor: before a profile's factor, and the factor."""
    plan, row = named(made, label)
    return {
        "table": plan.experiment.value.name,
        "profile": plan.profile.name,
        "row": row.label,
        "stages": None if row.row.stages is None else list(row.row.stages),
        "undefined": row.undefined or None,
        "options": [
            {
                "name": name, "value": value.value, "origin": value.origin, "from": value.where, "assumed": value.assumed,
                "unscaled": value.unscaled, "factor": value.factor,
            }
            for name, value in options(row).items()
        ],
        "trainings": {
            str(seed): chained(last) if isinstance(last, Job) else [] for seed, last in plan.checkpoints.get(row.label, {}).items()
        },
    }  # fmt: skip


def named(made: list[Plan], label: str) -> tuple[Plan, ResolvedRow]:
    labels = [row.label for plan in made for row in plan.rows]
    wanted = meant(label, labels)
    if len(wanted) != 1:
        raise SpecError("--explain: " + unknown(f'no row "{label}"', label, labels, "rows"))
    return next((plan, row) for plan in made for row in plan.rows if row.label == wanted[0])


def options(row: ResolvedRow) -> dict[str, Value]:
    """Options of the row's own stages, and options that belong to no stage."""
    mine = row.row.stages or ()
    return {n: v for n, v in row.values.items() if n.split(".")[0] not in STAGES or n.split(".")[0] in mine}


def chained(job: Job) -> list[str]:
    """Names of the trainings that lead to the job, in the order in which they run."""
    before = job.inputs.get("init")
    return [*(chained(before) if isinstance(before, Job) else []), job.name]


def source(value: Value) -> str:
    """Where a value came from, and what a profile did to it."""
    mark = " (assumed)" if value.assumed and value.origin == "recipe" else ""
    if value.factor is not None:
        return f"{value.origin} {value.where}: {text(value.unscaled)}, scaled by {text(value.factor)}{mark}"
    if value.origin == "profile":
        instead = f", instead of {text(value.unscaled)}" if value.unscaled != value.value else ""
        return f"profile {value.where}{instead}"
    return f"{value.origin} {value.where}{mark}" if value.origin in ("recipe", "row") else value.where + mark


def text(value: Any) -> str:
    """As YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differences(row: ResolvedRow) -> str:
    """What the row sets, in a few words: "teacher: random"."""
    return ", ".join(f"{name}: {text(value.value)}" for name, value in row.changed.items())
