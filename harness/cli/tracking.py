"""What the verbs tell the mirror in MLflow, and what reports ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.store import Store
    from harness.tracking import Follower, Tracker


def begin(made: list[Plan], store: Store, running: bool) -> Follower:
    """Mirror in the background; jobs are tagged with the cells that they serve."""
    from harness.tracking import start

    cells = {plan.name: {job.key: [cell.name for cell in plan.users(job)] for job in plan.graph} for plan in made}
    return start(store, cells, running=running)


def tracker(store: Store) -> Tracker:
    """Where reports find runs."""
    from harness.tracking import Tracker

    return Tracker(store)
