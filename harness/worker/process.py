"""A worker process: take a ready job, run it, repeat; exit when there is nothing to do.

The next job is chosen here, from the driver's orders and the store; the store alone ensures that it is taken once. A
worker whose driver died finishes its current job and exits, unless another driver takes it over.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.kinds import kind_of
from harness.store import AlreadyDone, Held, Owner, Record, Store, StoreError, leases
from harness.store.attempts import attempts_of
from harness.worker.attempt import Stop, run_attempt
from harness.worker.orders import Order, Orders

IDLE_SECONDS = 10.0
"""How long a worker waits for a ready job before it exits: about as long as starting a new process takes."""
LOOK_SECONDS = 0.2
RECYCLE_BYTES = 9 * 2**28
"""A process that uses more memory than this is replaced by a new one (2.25 GiB) ..."""
LOADED_BYTES = 11 * 2**28
"""... or more than this, if the next job needs what it has loaded (2.75 GiB)."""
COLLECT_BYTES = 3 * 2**29
"""Below this, no garbage collection between jobs (1.5 GiB)."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def work(root: str | Path, lease_id: str, plugins: tuple[str, ...] = ()) -> dict[str, int]:
    """Entry of a worker process. plugins: modules that know further kinds. Returns how many jobs ended how."""
    prepare_process()
    stop = catch_stop_signals()
    worker = Worker(Store(root), lease_id, stop, plugins)
    try:
        worker.run()
    except (StoreError, OSError) as error:
        print(f"worker exits: {error}", file=sys.stderr, flush=True)
    finally:
        _quietly_drop(worker.store, lease_id)
    return worker.endings


def prepare_process() -> None:
    """A session of its own, so that a terminal's Ctrl-C or hang-up reaches only the driver; nothing from the hub if offline."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        os.setsid()
    except PermissionError:
        pass  # already leads a group
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def catch_stop_signals() -> Stop:
    stop = Stop()

    def ask(number: int, frame: Any) -> None:
        stop.requested, stop.signal = True, signal.Signals(number).name

    for number in STOP_SIGNALS:
        signal.signal(number, ask)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return stop


def _quietly_drop(store: Store, lease_id: str) -> None:
    try:
        leases.drop(store, lease_id)
    except OSError:
        pass  # a lease of a dead process counts for nothing


@dataclass
class Worker:
    store: Store
    lease_id: str
    stop: Stop
    plugins: tuple[str, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)
    group: str = ""
    provenance: dict[str, Any] | None = None
    _orders: Orders | None = None
    _orders_at: tuple[str, int] = ("", 0)

    def run(self) -> None:
        idle_since = time.monotonic()
        leases.update(self.store, self.lease_id, owner=Owner.here())
        while not self.stop.requested:
            lease = leases.read(self.store, self.lease_id)
            orders = self.orders(lease.plan) if lease else None
            if lease is None or orders is None or orders.finished:
                return
            if lease.driver is not None and lease.driver.alive(self.store.schedulers) is False:
                return
            order = self.choose(lease, orders)
            if order is None:
                if time.monotonic() - idle_since > IDLE_SECONDS or self.others_wait(lease, orders):
                    return
                time.sleep(LOOK_SECONDS)
                continue
            if self.has_grown(order) or not self.take(order):
                return
            idle_since = time.monotonic()

    def orders(self, plan: str) -> Orders | None:
        """The driver's newest orders; read again only when the file was replaced."""
        path = self.store.root / plan
        try:
            stamp = (plan, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return None
        if stamp != self._orders_at:
            self._orders, self._orders_at = Orders.read(path), stamp
            for module in self.plugins:
                importlib.import_module(module)
        return self._orders

    def choose(self, lease: leases.Lease, orders: Orders) -> Order | None:
        """The most urgent job that can begin now; among equals of its kind one for what this process has loaded,
        else one that no other worker has loaded."""
        ready = [order for order in orders.jobs if order.shape == lease.shape and self.can_begin(order)]
        if not ready or not ready[0].group:
            return ready[0] if ready else None
        alike = [order for order in ready if order.kind == ready[0].kind and order.group]
        mine = [order for order in alike if order.group == self.group]
        if mine:
            return mine[0]
        taken = {
            order.group
            for other in leases.leases(self.store)
            if other.id != self.lease_id and other.current
            for order in orders.jobs
            if order.key == other.current
        }
        return next((order for order in alike if order.group not in taken), alike[0])

    def others_wait(self, lease: leases.Lease, orders: Orders) -> bool:
        """Whether a job that only another shape of worker may take could begin in this one's place."""
        return any(order.shape != lease.shape and self.can_begin(order) for order in orders.jobs)

    def can_begin(self, order: Order) -> bool:
        root = self.store.root
        if not order.grant or os.path.lexists(root / order.folder / "DONE.json"):
            return False
        if not all((root / parent / "DONE.json").is_file() for parent in order.parents):
            return False
        newest = next(reversed(attempts_of(root / order.folder)), None)
        return (newest.number if newest else 0) + 1 == order.grant

    def take(self, order: Order) -> bool:
        """Run one job. False if this process should exit."""
        record = Record.read(self.store.root / order.folder)
        resources = dict(order.resources or {})
        try:
            attempt = self.store.begin_attempt(
                record,
                number=order.grant,
                lease=self.lease_id,
                micro_batch=self.micro_batch(order, record),
                resources=resources,
            )
        except (Held, AlreadyDone):
            return True
        leases.update(self.store, self.lease_id, current=order.key)
        if self.provenance is None:
            from harness.worker.provenance import code, versions

            self.provenance = {"code": code(), "versions": versions()}
        self.group = order.group
        ending = run_attempt(
            self.store,
            record,
            attempt,
            resources=resources,
            kept=self.kept,
            stop=self.stop,
            provenance=self.provenance,
        )
        self.endings[ending.outcome] = self.endings.get(ending.outcome, 0) + 1
        print(f"{record.name}: {ending.outcome} {ending.message}".rstrip(), flush=True)
        leases.update(self.store, self.lease_id, current="")
        if own_bytes() > COLLECT_BYTES or resources.get("device") == "cuda":
            gc.collect()  # seconds, once transformers and lmms_eval are loaded
            give_memory_back()
        return ending.well and not self.stop.requested

    def has_grown(self, order: Order) -> bool:
        """Whether a fresh process should take this job."""
        loaded = bool(order.group) and order.group == self.group
        return bool(self.endings) and own_bytes() > (LOADED_BYTES if loaded else RECYCLE_BYTES)

    @staticmethod
    def micro_batch(order: Order, record: Record) -> int | None:
        """Half of what the last attempt ran out of memory with, if one did: the global batch and the key stay."""
        size = (order.resources or {}).get(kind_of(order.kind).batch)
        failures = [attempt.failure for attempt in attempts_of(record.folder)]
        for failure in failures:
            if failure is not None and failure.cause == "oom" and failure.micro_batch:
                size = max(1, min(int(size or failure.micro_batch), failure.micro_batch // 2))
        return size


def give_memory_back() -> None:
    """Return memory that Python freed to the system: glibc would keep a training's gigabytes, and the process would be
    replaced, with everything it has loaded."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library: the process will be replaced instead


def own_bytes() -> int:
    """Private memory of this process, without pages of mapped files, which the system can reclaim."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


__all__ = ["Worker", "work"]
