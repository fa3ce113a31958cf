"""The loop of one driver: look at the store, say what may be begun, keep enough workers there, tell the person.

Workers take jobs by themselves (see harness.worker.process); the driver decides the order, the retries and how many
workers there are. All of it is recomputed from files at every look, so a new driver continues where another was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from harness.dispatch import forecast as forecasts
from harness.dispatch.local import LocalBackend, host_gpus
from harness.dispatch.outcome import Outcome, outcome_of
from harness.dispatch.progress import Display, Running, Snapshot, display_for
from harness.dispatch.retry import Retries
from harness.jobs import Graph, Job
from harness.kinds import kind_of
from harness.store import Owner, State, Status, Store, StoreError, leases, trust
from harness.worker.orders import Order, Orders

if TYPE_CHECKING:
    from harness.spec.profile import Resources

LOOK_SECONDS, LOOK_SHARE, LOOK_AT_LEAST_EVERY = 0.25, 0.04, 2.0
"""Between two looks at the store; so small a share of the time goes into looking, and a large graph is looked at less often."""
SHOW_SECONDS = 1.0
BARREN_WORKERS = 3
"""Workers in a row that died before they began any job; then something is wrong with starting them at all."""
PATIENCE_SECONDS = 60.0
"""How long a full or read-only store is waited for."""
LEAVING_SECONDS = 5.0
"""For which idle workers are waited at the end, to tidy up after them; the next driver does it otherwise."""
SILENT_DRIVER_SECONDS = 86_400.0
"""A driver of another boot of this host is taken for gone so long after it last wrote orders."""
UNSEEN_SECONDS = 600.0
"""After so long without a sign of life, a claim that cannot be checked from here is no reason to wait for it."""


def run(
    graph: Graph,
    store: Store,
    *,
    resources: Callable[[str], Resources],
    slots: int | None = None,
    forecast: forecasts.Forecast | None = None,
    plugins: Iterable[str] = (),
    display: Display | None = None,
) -> Outcome:
    """Get every job of `graph` done, or say why not.

    resources: of a kind of job (a profile's `resources_of`). slots: jobs at once on this host, all drivers of this store
    together; None = one for each CPU. forecast: a job's expected seconds, None where unknown. plugins: modules that
    workers import first. Raises StoreError when the store cannot be written.
    """
    started = time.monotonic()
    statuses = store.statuses(graph)
    if all(status.state is State.DONE for status in statuses.values()):
        return outcome_of(graph, statuses)
    driver = Driver(
        graph, store, resources, slots or os.cpu_count() or 1, forecast, tuple(plugins), display or display_for()
    )
    with driver.listening():
        return driver.drive(started)


class Driver:
    look_seconds = LOOK_SECONDS

    def __init__(
        self,
        graph: Graph,
        store: Store,
        resources: Callable[[str], Resources],
        slots: int,
        forecast: forecasts.Forecast | None,
        plugins: tuple[str, ...],
        display: Display,
    ) -> None:
        from harness.worker.provenance import code

        store.ensure_writable()
        self.graph, self.store, self.slots, self.plugins, self.display = graph, store, slots, plugins, display
        self.me = Owner.here()
        self.id = f"{self.me.host}-{self.me.pid}-{uuid.uuid4().hex[:6]}"
        self.home = trust.private(store.root, ".drivers") / self.id
        self.backend = LocalBackend(store, self.home, plugins)
        self.retries = Retries(store)
        self.code = "{commit} {dirty}".format(**code())
        self.stops = 0
        self.barren = 0
        self.problem = ""
        self.refused_since: float | None = None
        self.fed: set[str] = set()
        self.resources = {kind: resources(kind) for kind in {job.kind for job in graph}}
        self.seconds = forecasts.seconds_of(graph, forecast)
        self.folders = {
            key: str(folder.relative_to(store.root)) for key, folder in store.ensure_all(graph).items()
        }
        self.order = self._priorities()
        self._written: Orders | None = None

    def _priorities(self) -> list[Job]:
        """Longest chain first; among leaves that share what is loaded, the largest group first and kept together."""
        rank = forecasts.ranks(self.graph, self.seconds)
        whole: dict[str, float] = {}
        for job in self.graph:
            whole[self.group(job) or job.key] = whole.get(self.group(job) or job.key, 0.0) + self.seconds[job.key]
        leaves = {job.key for job in self.graph} - {parent.key for job in self.graph for parent in job.parents}
        return sorted(
            self.graph,
            key=lambda job: (
                job.key in leaves and bool(self.group(job)),
                -whole[self.group(job)] if job.key in leaves and self.group(job) else 0.0,
                self.group(job) if job.key in leaves else "",
                -rank[job.key],
            ),
        )

    @staticmethod
    def group(job: Job) -> str:
        """What jobs have in common that a process loads once: the checkpoint they evaluate."""
        shared = job.inputs.get(kind_of(job.kind).shares)
        return shared.key if shared else ""

    def shape(self, kind: str) -> str:
        needs = self.resources[kind]
        return f"{needs.gpus} gpu {needs.cpus} cpu"

    # Signals

    def listening(self) -> _Listening:
        return _Listening(self)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    # The loop

    def drive(self, started: float) -> Outcome:
        asked, shown, began = 0, 0.0, time.monotonic()
        statuses = self.look()
        first = before = statuses
        try:
            while True:
                if self.stops > asked:
                    asked = self.stops
                    self._stop_workers(hard=asked > 1)
                if self.stops and not self._mine():
                    break
                if not self.stops:
                    self._tend_patiently(statuses)
                    if self._over(statuses) or self.problem:
                        break
                changed = [job for job in self.graph if statuses[job.key].state is not before[job.key].state]
                if changed or time.monotonic() - shown > SHOW_SECONDS:
                    self.display.show(self.snapshot(statuses, changed))
                    shown, before = time.monotonic(), statuses
                busy = time.monotonic() - began
                time.sleep(min(max(self.look_seconds, busy / LOOK_SHARE), LOOK_AT_LEAST_EVERY))
                began = time.monotonic()
                statuses = self.look()
            changed = [job for job in self.graph if statuses[job.key].state is not before[job.key].state]
            self.display.show(self.snapshot(statuses, changed))
        finally:
            self._leave()
            self.display.close()
        return outcome_of(
            self.graph,
            {key: self._final(key, status) for key, status in statuses.items()},
            ran=tuple(key for key in statuses if statuses[key].state is State.DONE is not first[key].state),
            interrupted=bool(self.stops),
            seconds=time.monotonic() - started,
            notes=(self.problem,) if self.problem else (),
        )

    def look(self) -> dict[str, Status]:
        return self.store.statuses(self.graph)

    def _over(self, statuses: Mapping[str, Status]) -> bool:
        """Nothing runs that could be waited for, and nothing may be begun."""
        for job in self.graph:
            status = statuses[job.key]
            if status.state in (State.READY, State.INTERRUPTED, State.FAILED) and not self.retries.given_up(job):
                return False
            if status.state.in_flight and not self._unseen(status):
                return False
        return True

    def _unseen(self, status: Status) -> bool:
        attempt = status.attempt
        if attempt is None or attempt.alive(self.store.schedulers) is not None:
            return False
        return time.time() - attempt.last_beat > UNSEEN_SECONDS

    def _final(self, key: str, status: Status) -> Status:
        reason = self.retries.given_up(self.graph[key])
        if status.state in (State.READY, State.INTERRUPTED) and reason:
            return Status(State.FAILED, reason, status.attempt)
        if status.state is State.READY and self.problem:
            return Status(State.READY, self.problem)
        if status.state is State.MISSING and not self.stops:
            return Status(State.BLOCKED, status.reason, status.attempt)
        return status

    # Workers

    def _tend_patiently(self, statuses: Mapping[str, Status]) -> None:
        """A store that refuses to be written is waited for a while: workers may be about to make room."""
        try:
            self._tend(statuses)
            self.refused_since = None
        except StoreError as error:
            if self.refused_since is None:
                self.refused_since = time.monotonic()
                self.display.say(f"{error}; waiting up to {PATIENCE_SECONDS:.0f} s")
            elif time.monotonic() - self.refused_since > PATIENCE_SECONDS:
                raise

    def _tend(self, statuses: Mapping[str, Status]) -> None:
        """Orders for the workers, and as many workers as there is work and room for."""
        grants = self._alone_last(statuses, {job.key: self._grant(job, statuses) for job in self.graph})
        self._command(statuses, grants)
        self._bury()
        able: dict[str, int] = {}
        for job in self.graph:
            if self._able(job, statuses, grants):
                able[self.shape(job.kind)] = able.get(self.shape(job.kind), 0) + 1
        if not able:
            return
        with self.store.lock(f"host-{self.me.host}"):
            there = self._here()
            there = [self._adopt(lease) for lease in there]
            for job in self.order:  # most urgent shape first
                shape = self.shape(job.kind)
                waiting = sum(lease.shape == shape and not lease.current for lease in there if self._own(lease))
                while able.get(shape, 0) > waiting and len(there) < self.slots:
                    lease = self._launch(job.kind, there)
                    if lease is None:
                        break
                    there.append(lease)
                    waiting += 1

    def _grant(self, job: Job, statuses: Mapping[str, Status]) -> int:
        """The attempt that may be begun; 0 for none, as while an input is damaged."""
        status = statuses[job.key]
        if status.state in (State.DONE, State.DAMAGED):
            return 0
        damaged = any(statuses[parent.key].state is State.DAMAGED for parent in job.parents)
        return 0 if damaged else self.retries.grant(job, status)

    @staticmethod
    def _able(job: Job, statuses: Mapping[str, Status], grants: Mapping[str, int]) -> bool:
        """Whether a worker could begin the job now."""
        startable = statuses[job.key].state in (State.READY, State.INTERRUPTED, State.FAILED)
        return bool(grants[job.key]) and startable and all(statuses[p.key].state is State.DONE for p in job.parents)

    def _alone_last(self, statuses: Mapping[str, Status], grants: Mapping[str, int]) -> Mapping[str, int]:
        """The grants without those of jobs that are to run alone, but for one of them once nothing else is left to do."""
        alone = {job.key for job in self.graph if self.resources[job.kind].alone}
        if not alone:
            return grants  # whether what runs is still alive is asked of the process table, at every look
        working = (job for job in self.order if statuses[job.key].state.in_flight)
        pending = [job.key for job in working if not self._unseen(statuses[job.key])]
        pending += [job.key for job in self.order if self._able(job, statuses, grants)]
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
                    self.folders[job.key],
                    grants.get(job.key, 0),
                    self.group(job),
                    tuple(self.folders[parent.key] for parent in job.parents),
                    self.shape(job.kind),
                    self._settings(job.kind),
                    self.seconds[job.key],
                )
                for job in self.order
                if statuses[job.key].state not in (State.DONE, State.DAMAGED)
            ),
            finished,
        )
        if orders != self._written:
            orders.write(self.home / "orders.json")
            self._written = orders

    def _settings(self, kind: str) -> dict[str, Any]:
        needs = self.resources[kind]
        return {
            **needs.model_dump(exclude={"cpus", "minutes", "memory_gb"}),
            "threads": needs.cpus,
            "device": "cuda" if needs.gpus else "cpu",
        }

    def _here(self) -> list[leases.Lease]:
        """Live leases of this host, of any driver; those of the dead are cleared away."""
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
        """A worker whose driver is gone works for us from now on, if it runs the code that we would start."""
        orphan = lease.driver is None or lease.driver.alive() is False
        if not orphan or lease.code != self.code:
            return lease
        plan = str((self.home / "orders.json").relative_to(self.store.root))
        return leases.update(self.store, lease.id, driver=self.me, plan=plan) or lease

    def _launch(self, kind: str, there: list[leases.Lease]) -> leases.Lease | None:
        needs = self.resources[kind]
        taken = {device for lease in there for device in lease.gpus}
        free = [device for device in host_gpus() if device not in taken]
        if len(free) < needs.gpus:
            if len(host_gpus()) < needs.gpus:
                self.problem = (
                    f"{kind} needs {needs.gpus} GPUs and this host has {len(host_gpus())}; choose another profile"
                )
            return None
        lease = leases.Lease(
            f"{self.id}-{len(self.fed)}",
            owner=self.me,
            driver=self.me,
            plan=str((self.home / "orders.json").relative_to(self.store.root)),
            gpus=tuple(free[: needs.gpus]),
            shape=self.shape(kind),
            code=self.code,
        )
        self.fed.add(lease.id)
        leases.write(self.store, lease)
        try:
            owner, log = self.backend.launch(lease, threads=needs.cpus)
        except StoreError:
            leases.drop(self.store, lease.id)
            raise
        with self.store.lock("leases"):
            known = leases.read(self.store, lease.id)
            if known is not None and known.owner == self.me:  # unless the worker reported already
                return leases.write(self.store, leases.replace(known, owner=owner, log=str(log)))
        return known or lease

    def _bury(self) -> None:
        """Notice workers that ended; several in a row that never began a job mean that none can start."""
        for lease_id, alive in self.backend.poll().items():
            if alive:
                continue
            begun = any(
                attempt.claim.get("lease") == lease_id for job in self.graph for attempt in self.store.attempts(job)
            )
            if begun or self.backend.left_well(lease_id):
                self.barren = 0
            else:
                self.barren += 1
                if self.barren >= BARREN_WORKERS:
                    log = self.backend.log(lease_id)
                    self.problem = f"workers end before they begin a job: {_last_words(log)}  [log {log}]"
            self.backend.forget(lease_id)

    def _stop_workers(self, hard: bool) -> None:
        try:
            self._command(self.look(), {}, finished=True)
        except StoreError as error:
            self.display.say(str(error))  # the signal below reaches the workers all the same
        mine = self._mine()
        if mine:
            self.display.say(
                f"killing {len(mine)} workers" if hard else
                f"stopping: {len(mine)} workers write their checkpoints (Ctrl-C again to kill them)"
            )  # fmt: skip
        for lease in mine:
            self.backend.kill(lease) if hard else self.backend.ask_to_stop(lease)

    def _leave(self) -> None:
        """Nothing more will come: idle workers may go. What they still hold is in the store."""
        try:
            self._command(self.look(), {}, finished=True)
            for other in self.home.parent.iterdir():
                self._clear(other)
            self._clear_own()
        except (OSError, StoreError):
            pass  # the store refuses; workers notice by themselves that their driver is gone

    def _clear_own(self) -> None:
        """Remove our own folder once our workers have left, unless one of them ended badly: then its log is of use."""
        give_up = time.monotonic() + LEAVING_SECONDS
        while self._mine() or any(self.backend.poll().values()):
            if time.monotonic() > give_up:
                return
            time.sleep(0.05)
        if not self.problem and all(map(self.backend.left_well, self.backend.poll())):
            shutil.rmtree(self.home, ignore_errors=True)

    def _clear(self, other: Path) -> None:
        """Remove what a driver of this host left, once neither it nor a worker of it is there."""
        record = Orders.read(other / "orders.json")
        driver = record.driver if record else None
        if driver is None or driver == self.me:
            return
        if driver.alive(last_sign=(other / "orders.json").stat().st_mtime + SILENT_DRIVER_SECONDS) is not False:
            return
        plan = str((other / "orders.json").relative_to(self.store.root))
        if not any(lease.plan == plan and lease.alive() for lease in leases.leases(self.store)):
            shutil.rmtree(other, ignore_errors=True)

    # Telling

    def snapshot(self, statuses: Mapping[str, Status], changed: list[Job]) -> Snapshot:
        running, remaining = [], {}
        for job in self.order:
            status = statuses[job.key]
            if status.state in (State.DONE, State.DAMAGED):
                continue
            remaining[job.key] = self.seconds[job.key]
            if status.state is State.RUNNING and status.attempt is not None:
                progress = status.attempt.progress()
                begun = status.attempt.claim.get("started", time.time())
                left = forecasts.left_of_running(progress, begun, self.seconds[job.key])
                remaining[job.key] = left
                running.append(
                    Running(
                        job,
                        progress["step"] if progress else 0,
                        progress["total"] if progress else 0,
                        left,
                        status.attempt,
                    )
                )
            elif status.state in (State.FAILED, State.BLOCKED):
                del remaining[job.key]
        left = forecasts.left_of_all(self.order, remaining, {item.job.key for item in running}, self.slots)
        return Snapshot(
            statuses, running, [(job, statuses[job.key]) for job in changed], left, stopping=bool(self.stops)
        )


class _Listening:
    """Ctrl-C goes to the driver meanwhile, if this is the main thread."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.main = threading.current_thread() is threading.main_thread()
        self.before: Any = None

    def __enter__(self) -> None:
        if self.main:
            self.before = signal.signal(signal.SIGINT, self.driver.interrupt)

    def __exit__(self, *error: object) -> None:
        if self.main:
            signal.signal(signal.SIGINT, self.before)


def _last_words(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "no log"
    return lines[-1].strip() if lines else "nothing was printed"
