"""Where jobs run: the interface that a host and a cluster offer to the driver, and what the driver tells them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from harness.dispatch.driver import forecast as forecasts
from harness.dispatch.driver.retry import Retries
from harness.jobs import Graph
from harness.store import Owner, Status, Store

if TYPE_CHECKING:
    from harness.spec.profile import Resources

UNSEEN_SECONDS = 600.0
"""A claim that cannot be checked from here is ignored after this long without a heartbeat."""


class Backend(Protocol):
    """A place where jobs run. The driver asks it in a loop: `look`, then `begin` or, after Ctrl-C, `stop`."""

    look_seconds: float
    """Poll interval."""
    slots: int
    """Jobs at once, for the forecast of the whole."""

    @property
    def may_leave(self) -> bool:
        """Whether the driver may leave although jobs are not done."""

    def look(self) -> dict[str, Status]:
        """Status by key: the store's, with what only this place knows."""

    def begin(self, statuses: Mapping[str, Status]) -> None:
        """Begin whatever may be begun now. Raises StoreError; sets the run's `problem` if waiting cannot help."""

    def stop(self, hard: bool) -> None:
        """Ctrl-C: have what this driver started write a checkpoint and end; hard: end at once."""

    def stopped(self) -> bool:
        """Whether the driver has nothing left to wait for after `stop`."""

    def leave(self) -> None:
        """Called when the driver ends: remove what is no longer needed."""


class GraphRun:
    """One driver's work on one graph: what its backend must know.

    order: most urgent job first. seconds: forecast by key. folders: by key, from the store's root. say: one line to the
    person. problem: why the run cannot go on; the backend sets it.
    """

    def __init__(
        self,
        graph: Graph,
        store: Store,
        *,
        resources: Callable[[str], Resources],
        forecast: forecasts.Forecast | None,
        plugins: Iterable[str],
        say: Callable[[str], None],
    ) -> None:
        """Raises StoreError when the store cannot be written."""
        from harness.worker.provenance import code

        store.ensure_writable()
        self.graph, self.store, self.plugins, self.say = graph, store, tuple(plugins), say
        self.me = Owner.here()
        self.code = "{commit} {dirty}".format(**code())
        self.retries = Retries(store)
        self.resources = {kind: resources(kind) for kind in {job.kind for job in graph}}
        self.seconds = forecasts.seconds_of(graph, forecast)
        self.order = forecasts.priorities(graph, self.seconds)
        self.folders = {key: str(folder.relative_to(store.root)) for key, folder in store.ensure_all(graph).items()}
        self.problem = ""

    def shape(self, kind: str) -> str:
        """Workers and jobs of one shape fit each other."""
        needs = self.resources[kind]
        return f"{needs.gpus} gpu {needs.cpus} cpu"

    def settings(self, kind: str) -> dict[str, Any]:
        """The resources that a job's function reads."""
        needs = self.resources[kind]
        return {
            **needs.model_dump(exclude={"cpus", "minutes"}),
            "threads": needs.cpus,
            "device": "cuda" if needs.gpus else "cpu",
        }

    def unseen(self, status: Status) -> bool:
        """Whether the job's attempt cannot be checked from here and its heartbeat is old."""
        attempt = status.attempt
        if attempt is None or attempt.alive(self.store.schedulers) is not None:
            return False
        return time.time() - attempt.last_beat > UNSEEN_SECONDS
