"""`run.py release KEY`: release a job whose owner is gone, after showing what is known about the owner."""

from __future__ import annotations

import argparse
import time

from harness.cli.main import add_results
from harness.cli.stored import open_store
from harness.cli.words import command
from harness.durations import duration
from harness.spec.errors import SpecError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="a job's key, its first digits, or its name")
    parser.add_argument("--yes", action="store_true", help="release the job even though its owner cannot be checked from here")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    store = open_store(options.results, one_look=True, reads=True)
    record = store.record(options.key)
    newest = next(reversed(store.attempts(record)), None)
    if newest is None or store.is_done(record):
        print(f"{record.name}: {'is done' if store.is_done(record) else 'was never started'}; nobody holds it")
        return 0
    alive = newest.alive(store.schedulers)
    print(f"{record.kind} {record.name}, attempt {newest.number}")
    print(f"  owner      {newest.owner}")
    print(f"  last sign  {duration(time.time() - newest.last_beat)} ago")
    print(f"  alive      {({True: 'yes', False: 'no', None: 'cannot be checked from here'})[alive]}")
    if alive is False:
        print("no process holds it; the next run takes it over automatically")
        return 0
    if alive is None and not options.yes:
        raise SpecError(f"check on {newest.owner.host} that it is gone, then: {command('release', record.key[:12], '--yes', results=store.root)}")
    store.release(record)
    print("released")
    return 0
