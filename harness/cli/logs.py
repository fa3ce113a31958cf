"""`run.py logs KEY`: the log of a job's newest attempt."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque

from harness.cli.main import add_results
from harness.cli.stored import open_store
from harness.spec.errors import SpecError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="a job's key, its first digits, or its name")
    parser.add_argument("-n", type=int, default=40, metavar="N", help="last lines (default: 40; 0 = all)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    parser.add_argument("--attempt", type=int, metavar="N", help="of this attempt (default: the newest)")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    store = open_store(options.results)
    record = store.record(options.key)
    attempts = {attempt.number: attempt for attempt in store.attempts(record)}
    if not attempts:
        raise SpecError(f"{record.name}: was never begun, so there is no log")
    number = options.attempt or max(attempts)
    if number not in attempts:
        raise SpecError(f"{record.name}: no attempt {number} (attempts: {', '.join(map(str, attempts))})")
    attempt = attempts[number]
    print(f"{record.kind} {record.name}, attempt {number}: {attempt.log}", file=sys.stderr)
    if not attempt.log.exists():
        print("nothing was printed yet" if not attempt.failure else str(attempt.failure), file=sys.stderr)
        return 0
    with attempt.log.open(errors="replace") as log:
        sys.stdout.writelines(deque(log, maxlen=options.n or None))
        while options.follow and not (store.is_done(record) or attempt.failure):
            new = log.read()
            if not new:
                time.sleep(0.5)
            sys.stdout.write(new)
            sys.stdout.flush()
        if options.follow:
            sys.stdout.write(log.read())
    if attempt.failure:
        where = f" [traceback {attempt.failure.traceback}]" if attempt.failure.traceback else ""
        print(f"failed ({attempt.failure.cause}): {attempt.failure}{where}", file=sys.stderr)
    return 0
