"""Gets a graph of jobs done: runs what is missing, here or on a cluster, and waits for what is already running.

Several drivers may work on one store at once, and each may be killed at any moment: results are in the store, running
jobs keep running, and the same command continues. Knows nothing about tables or tensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.dispatch.driver.forecast import Forecast
    from harness.dispatch.driver.outcome import Ended, Outcome
    from harness.dispatch.local.backend import run
    from harness.jobs import Graph
    from harness.spec.profile import Profile
    from harness.store import Store

__all__ = ["Ended", "Outcome", "run", "run_profile"]

_LAZY = {name: f"harness.dispatch.{module}" for name, module in (("Ended", "driver.outcome"), ("Outcome", "driver.outcome"), ("run", "local.backend"))}


def __getattr__(name: str) -> Any:
    """A job of a cluster imports this package on the way to its own module, and needs no driver."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run_profile(
    graph: Graph, store: Store, profile: Profile, *, forecast: Forecast | None = None, detach: bool = False
) -> Outcome:
    """Get every job of `graph` done where the profile says: on this host or on a SLURM cluster.

    detach: on a cluster, return once everything is submitted. Raises StoreError when the store cannot be written.
    """
    if profile.dispatch.kind == "slurm":
        from harness.dispatch.slurm import backend as slurm

        return slurm.run(
            graph,
            store,
            resources=profile.resources_of,
            dispatch=profile.dispatch,
            detach=detach,
            forecast=forecast,
        )
    from harness.dispatch.local.backend import run

    return run(graph, store, resources=profile.resources_of, slots=profile.dispatch.slots, forecast=forecast)
