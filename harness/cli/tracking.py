"""What the verbs send to MLflow, and what reports read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.jobs import trainings

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.store import Store
    from harness.tracking import Follower, Tracker, Use


def begin(made: list[Plan], store: Store, running: bool) -> Follower:
    """Copies results to MLflow in the background; each run is tagged with the rows that need its job."""
    from harness.tracking import save_labels, start

    for plan in made:
        save_labels(store, plan.name, plan.profile.name, uses(plan), whole=not plan.partial)
    return start(store, running=running)


def uses(plan: Plan) -> dict[str, list[Use]]:
    """Job key -> the rows or parts of the plan that need it."""
    from harness.tracking import Use

    found: dict[str, list[Use]] = {}
    for cell in plan.cells:
        asked = plan.benchmarks.get(cell.column.benchmark)
        title = asked.value.title if asked else cell.column.benchmark  # "cost", "training samples", a card's questions
        own = cell.protocol == plan.experiment.value.protocol
        for (seed, latents), job in cell.jobs.items():
            parts = [cell.row, title, f"seed {seed}", *([] if latents == "own" else [f"latents {latents}"]), *([] if own else [cell.protocol])]
            found.setdefault(job.key, []).append(
                Use(cell.name, cell.row, cell.column.name, cell.protocol, latents, "", str(seed), " · ".join(parts))
            )
    for row, by_seed in plan.checkpoints.items():
        for seed, last in by_seed.items():
            for job in trainings(last):
                stage = job.payload["stage"]["kind"]
                name = f"{row} · {stage} · seed {seed}"
                found.setdefault(job.key, []).append(Use(f"{row} / {stage}", row, stage=stage, seed=str(seed), name=name))
    for benchmark, by_protocol in plan.base.items():
        title = plan.benchmarks[benchmark].value.title
        for protocol, job in by_protocol.items():
            use = Use(f"Base model / {benchmark}", "Base model", benchmark, protocol, "own", name=f"Base model · {title} · {protocol}")
            found.setdefault(job.key, []).append(use)
    for job in plan.graph:
        if job.key not in found:
            found[job.key] = [Use(cell.name) for cell in plan.users(job)]
    return found


def tracker(store: Store) -> Tracker:
    """Where reports find runs."""
    from harness.tracking import Tracker

    return Tracker(store)
