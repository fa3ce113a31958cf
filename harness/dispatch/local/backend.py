"""Jobs on this host, run by up to `slots` worker processes, which pick jobs by themselves (`harness.worker.process`).

The backend decides which jobs may be started and how many workers run, and writes that to an orders file. Everything is
recomputed from files at every poll, so a new driver continues where a killed one stopped.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.dispatch.driver.backend import GraphRun
from harness.dispatch.driver.forecast import Forecast, group_of
from harness.dispatch.driver.loop import drive
from harness.dispatch.driver.outcome import Outcome
from harness.dispatch.driver.progress import Display
from harness.dispatch.local.processes import Processes, host_gpus
from harness.jobs import Graph, Job
from harness.store import State, Status, Store, StoreError, leases, trust
from harness.worker.orders import Order, Orders

if TYPE_CHECKING:
    from harness.spec.profile import Resources

LOOK_SECONDS = 0.25
BARREN_WORKERS = 3
"""Workers in a row that died before starting any job, after which the run is given up: no worker can start."""
LEAVING_SECONDS = 5.0
"""How long the driver waits at the end for idle workers to exit before removing their files; otherwise the next driver
does."""
SILENT_DRIVER_SECONDS = 86_400.0
"""A driver of another boot of this host counts as gone when it has not written orders for this long."""


def run(
    graph: Graph,
    store: Store,
    *,
    resources: Callable[[str], Resources],
    slots: int | None = None,
    forecast: Forecast | None = None,
    plugins: Iterable[str] = (),
    display: Display | None = None,
) -> Outcome:
    """Get every job of `graph` done on this host, or say why not.

    resources: of a kind of job (a profile's `resources_of`). slots: jobs at once on this host, all drivers of this store
    together; None = one for each CPU. forecast: a job's expected seconds, None where unknown. plugins: modules that
    workers import first. Raises StoreError when the store cannot be written.
    """

    def here(run: GraphRun) -> LocalBackend:
        return LocalBackend(run, slots or os.cpu_count() or 1)

    return drive(graph, store, here, resources=resources, forecast=forecast, plugins=plugins, display=display)


class LocalBackend:
    """`harness.dispatch.driver.backend.Backend` over processes of this host."""

    look_seconds = LOOK_SECONDS
    may_leave = False

    def __init__(self, run: GraphRun, slots: int) -> None:
        self.run, self.store, self.me, self.slots = run, run.store, run.me, slots
        self.id = f"{self.me.host}-{self.me.pid}-{uuid.uuid4().hex[:6]}"
        self.home = trust.private(self.store.root, ".drivers") / self.id
        self.processes = Processes(self.store, self.home, run.plugins)
        self.fed: set[str] = set()
        self.barren = 0
        self._written: Orders | None = None

    def look(self) -> dict[str, Status]:
        return self.store.statuses(self.run.graph)

    def begin(self, statuses: Mapping[str, Status]) -> None:
        """Orders for the workers, and as many workers as there is work and room for."""
        grants = self._alone_last(statuses, {job.key: self._grant(job, statuses) for job in self.run.graph})
        self._command(statuses, grants)
        self._bury()
        able: dict[str, int] = {}
        for job in self.run.graph:
            if self._able(job, statuses, grants):
                able[self.run.shape(job.kind)] = able.get(self.run.shape(job.kind), 0) + 1
        if not able:
            return
        with self.store.lock(f"host-{self.me.host}"):
            there = self._here()
            there = [self._adopt(lease) for lease in there]
            for job in self.run.order:  # most urgent shape first
                shape = self.run.shape(job.kind)
                waiting = sum(lease.shape == shape and not lease.current for lease in there if self._own(lease))
                while able.get(shape, 0) > waiting and len(there) < self.slots:
                    lease = self._launch(job.kind, there)
                    if lease is None:
                        break
                    there.append(lease)
                    waiting += 1

    def _grant(self, job: Job, statuses: Mapping[str, Status]) -> int:
        """The attempt that may be started; 0 for none, for instance while an input is damaged."""
        status = statuses[job.key]
        if status.state in (State.DONE, State.DAMAGED):
            return 0
        damaged = any(statuses[parent.key].state is State.DAMAGED for parent in job.parents)
        return 0 if damaged else self.run.retries.grant(job, status)

    @staticmethod
    def _able(job: Job, statuses: Mapping[str, Status], grants: Mapping[str, int]) -> bool:
        """Whether a worker could begin the job now."""
        startable = statuses[job.key].state in (State.READY, State.INTERRUPTED, State.FAILED)
        return bool(grants[job.key]) and startable and all(statuses[p.key].state is State.DONE for p in job.parents)

    def _alone_last(self, statuses: Mapping[str, Status], grants: Mapping[str, int]) -> Mapping[str, int]:
        """Grants, where a job that must run alone gets one only when nothing else is left to run, and only one at a
        time."""
        alone = {job.key for job in self.run.graph if self.run.resources[job.kind].alone}
        if not alone:
            return grants  # skips asking the process table at every poll
        working = (job for job in self.run.order if statuses[job.key].state.in_flight)
        pending = [job.key for job in working if not self.run.unseen(statuses[job.key])]
        pending += [job.key for job in self.run.order if self._able(job, statuses, grants)]
        chosen = pending[0] if pending and alone.issuperset(pending) else ""
        return {key: grant if key == chosen or key not in alone else 0 for key, grant in grants.items()}

    def _command(self, statuses: Mapping[str, Status], grants: Mapping[str, int], finished: bool = False) -> None:
        """Write the orders, if they changed."""
        orders = Orders(
            self.me,
            tuple(
                Order(
                    job.key,
                    job.kind,
                    self.run.folders[job.key],
                    grants.get(job.key, 0),
                    group_of(job),
                    tuple(self.run.folders[parent.key] for parent in job.parents),
                    self.run.shape(job.kind),
                    self.run.settings(job.kind),
                    self.run.seconds[job.key],
                )
                for job in self.run.order
                if statuses[job.key].state not in (State.DONE, State.DAMAGED)
            ),
            finished,
        )
        if orders != self._written:
            orders.write(self.home / "orders.json")
            self._written = orders

    def _here(self) -> list[leases.Lease]:
        """Live leases of this host, from any driver; leases of dead workers are removed."""
        alive = []
        for lease in leases.leases(self.store):
            if lease.owner.host != self.me.host:
                continue
            if not lease.alive():
                leases.drop(self.store, lease.id)
            else:
                alive.append(lease)
        return alive

    def _own(self, lease: leases.Lease) -> bool:
        return lease.driver == self.me

    def _mine(self) -> list[leases.Lease]:
        return [lease for lease in self._here() if self._own(lease)]

    def _adopt(self, lease: leases.Lease) -> leases.Lease:
        """Takes over a worker whose driver is gone, if it runs the same code."""
        orphan = lease.driver is None or lease.driver.alive() is False
        if not orphan or lease.code != self.run.code:
            return lease
        plan = str((self.home / "orders.json").relative_to(self.store.root))
        return leases.update(self.store, lease.id, driver=self.me, plan=plan) or lease

    def _launch(self, kind: str, there: list[leases.Lease]) -> leases.Lease | None:
        needs = self.run.resources[kind]
        taken = {device for lease in there for device in lease.gpus}
        free = [device for device in host_gpus() if device not in taken]
        if len(free) < needs.gpus:
            if len(host_gpus()) < needs.gpus:
                self.run.problem = (
                    f"{kind} needs {needs.gpus} GPUs and this host has {len(host_gpus())}; choose another profile"
                )
            return None
        lease = leases.Lease(
            f"{self.id}-{len(self.fed)}",
            owner=self.me,
            driver=self.me,
            plan=str((self.home / "orders.json").relative_to(self.store.root)),
            gpus=tuple(free[: needs.gpus]),
            shape=self.run.shape(kind),
            code=self.run.code,
        )
        self.fed.add(lease.id)
        leases.write(self.store, lease)
        try:
            owner, log = self.processes.launch(lease, threads=needs.cpus)
        except StoreError:
            leases.drop(self.store, lease.id)
            raise
        with self.store.lock("leases"):
            known = leases.read(self.store, lease.id)
            if known is not None and known.owner == self.me:  # unless the worker reported already
                return leases.write(self.store, leases.replace(known, owner=owner, log=str(log)))
        return known or lease

    def _bury(self) -> None:
        """Account for workers that ended; several in a row that never started a job mean that none can."""
        for lease_id, alive in self.processes.poll().items():
            if alive:
                continue
            begun = any(
                attempt.claim.get("lease") == lease_id for job in self.run.graph for attempt in self.store.attempts(job)
            )
            if begun or self.processes.left_well(lease_id):
                self.barren = 0
            else:
                self.barren += 1
                if self.barren >= BARREN_WORKERS:
                    log = self.processes.log(lease_id)
                    self.run.problem = f"workers end before they begin a job: {_last_words(log)}  [log {log}]"
            self.processes.forget(lease_id)

    def stop(self, hard: bool) -> None:
        try:
            self._command(self.look(), {}, finished=True)
        except StoreError as error:
            self.run.say(str(error))  # the signal below reaches the workers all the same
        mine = self._mine()
        if mine:
            self.run.say(
                f"killing {len(mine)} workers" if hard else
                f"stopping: {len(mine)} workers write their checkpoints (Ctrl-C again to kill them)"
            )  # fmt: skip
        for lease in mine:
            self.processes.kill(lease) if hard else self.processes.ask_to_stop(lease)

    def stopped(self) -> bool:
        return not self._mine()

    def leave(self) -> None:
        """Tell idle workers that no more jobs will come. What they still run is recorded in the store."""
        try:
            self._command(self.look(), {}, finished=True)
            for other in self.home.parent.iterdir():
                self._clear(other)
            self._clear_own()
        except (OSError, StoreError):
            pass  # the store cannot be written; workers notice by themselves that their driver is gone

    def _clear_own(self) -> None:
        """Remove our own folder once our workers have exited, unless one failed: then its log is kept."""
        give_up = time.monotonic() + LEAVING_SECONDS
        while self._mine() or any(self.processes.poll().values()):
            if time.monotonic() > give_up:
                return
            time.sleep(0.05)
        if not self.run.problem and all(map(self.processes.left_well, self.processes.poll())):
            shutil.rmtree(self.home, ignore_errors=True)

    def _clear(self, other: Path) -> None:
        """Remove another driver's folder once that driver and its workers are gone."""
        record = Orders.read(other / "orders.json")
        driver = record.driver if record else None
        if driver is None or driver == self.me:
            return
        if driver.alive(last_sign=(other / "orders.json").stat().st_mtime + SILENT_DRIVER_SECONDS) is not False:
            return
        plan = str((other / "orders.json").relative_to(self.store.root))
        if not any(lease.plan == plan and lease.alive() for lease in leases.leases(self.store)):
            shutil.rmtree(other, ignore_errors=True)


def _last_words(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "no log"
    return lines[-1].strip() if lines else "nothing was printed"
