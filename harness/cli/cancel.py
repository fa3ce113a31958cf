"""`run.py cancel`: stop what is running; progress is kept, and the same command continues."""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING

from harness.cli.main import add_results
from harness.cli.stored import open_store
from harness.cli.words import command, plural

if TYPE_CHECKING:
    from harness.store import Store


def cancel_queued(store: Store, wanted: set[str]) -> list[str]:
    """Cancels jobs in the cluster's queue and returns their keys; running ones are asked for a checkpoint first."""
    from harness.store.leases import leases

    keys = {key for lease in leases(store) if lease.owner.scheduler == "slurm" for key in lease.remaining}
    if not (keys := keys & wanted if wanted else keys):
        return []
    from harness.dispatch.slurm.watch import cancel

    return cancel(store, keys)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="stop only the workers that run or hold these jobs (default: all)")
    parser.add_argument("--kill", action="store_true", help="stop at once, without saving a last checkpoint")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.dispatch.local.processes import Processes
    from harness.store import Owner
    from harness.store.leases import leases

    store = open_store(options.results, reads=True)
    wanted = {store.record(key).key for key in options.keys}
    chosen = [
        lease for lease in leases(store)
        if lease.owner.host == Owner.here().host and lease.alive(store.schedulers)
        and (not wanted or wanted & {lease.current, *lease.remaining})
    ]  # fmt: skip
    drivers = {lease.driver for lease in chosen if lease.driver is not None and lease.driver.alive()}
    for driver in drivers:
        os.kill(driver.pid, signal.SIGINT)
    for lease in chosen:
        (Processes.kill if options.kill else Processes.ask_to_stop)(lease)
    queued = cancel_queued(store, wanted)
    if chosen:
        asked = f"{plural(len(chosen), 'worker')} and {plural(len(drivers), 'driver')}"
        print(f"asked {asked} to stop; {command('status', results=store.root)} shows when they have")
    if queued:
        print(f"removed {plural(len(queued), 'job')} from the cluster's queue")
    if not chosen and not queued:
        print("no job of this store is running on this host or waiting in a queue")
    return 0
