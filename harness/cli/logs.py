"""`run.py logs KEY`: a job's log (of its newest attempt), and the steps that it has reported."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.main import add_json, add_results, whole
from harness.cli.stored import open_store
from harness.cli.words import as_json
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.store import Attempt
    from harness.store.records import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="a job's key, its first digits, or its name")
    parser.add_argument("-n", type=whole, default=40, metavar="N", help="how many of the last lines to show (default: 40; 0 = all)")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing as the log grows")
    parser.add_argument("--attempt", type=whole, metavar="N", help="show this attempt (default: the newest)")
    add_json(parser)
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    if options.json and options.follow:
        raise SpecError("--follow: cannot be combined with --json; use one of them")
    store = open_store(options.results, reads=True)
    record = store.record(options.key)
    attempts = {attempt.number: attempt for attempt in store.attempts(record)}
    if not attempts:
        raise SpecError(f"{record.name}: has not been started, so there is no log")
    number = options.attempt or max(attempts)
    if number not in attempts:
        raise SpecError(f"{record.name}: no attempt {number} (attempts: {', '.join(map(str, attempts))})")
    attempt = attempts[number]
    if options.json:
        print(as_json(for_program(record, attempt, options.n)))
        return 0
    print(f"{record.kind} {record.name}, attempt {number}: {attempt.log}", file=sys.stderr)
    steps = Steps(attempt.metrics)
    following = options.follow
    if not attempt.log.exists() and not following and not attempt.metrics.exists():
        print("nothing has been printed yet" if not attempt.failure else str(attempt.failure), file=sys.stderr)
        return 0
    text, offset = "", 0
    if attempt.log.exists():
        with attempt.log.open(errors="replace") as log:
            text, offset = "".join(deque(log, maxlen=options.n or None)), log.tell()
    sys.stdout.write(text)
    for line in deque(steps.new(), maxlen=options.n or None):
        print(line)
    while following:
        sys.stdout.flush()
        following = not (store.is_done(record) or attempt.failure)  # once more, for the last lines
        if following:
            time.sleep(0.5)
        if attempt.log.exists():
            with attempt.log.open(errors="replace") as log:
                log.seek(offset)
                sys.stdout.write(log.read())
                offset = log.tell()
        for line in steps.new():
            print(line)
    if attempt.failure:
        where = f" [traceback {attempt.failure.traceback}]" if attempt.failure.traceback else ""
        print(f"failed ({attempt.failure.cause}): {attempt.failure}{where}", file=sys.stderr)
    return 0


def for_program(record: Record, attempt: Attempt, lines: int) -> dict[str, Any]:
    """The last lines of the log, and every reported step."""
    from harness.store.files import read_lines

    log: deque[str] = deque(maxlen=lines or None)
    if attempt.log.exists():
        log.extend(attempt.log.read_text(errors="replace").splitlines())
    failure = attempt.failure
    return {
        "key": record.key,
        "kind": record.kind,
        "name": record.name,
        "attempt": attempt.number,
        "log": str(attempt.log),
        "lines": list(log),
        "steps": [{"step": line["step"], "total": line["total"], "time": line["time"], **line["values"]} for line in read_lines(attempt.metrics)[0]],
        "failure": {"cause": failure.cause, "text": str(failure)} if failure else None,
    }


class Steps:
    """Formats each line of metrics.jsonl once."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def new(self) -> Iterator[str]:
        """The lines added since the last call: step 40/125  loss 1.82  lr 0.0006  2.1 s/step"""
        from harness.dispatch.driver.progress import told
        from harness.store.files import read_lines

        lines, self.offset = read_lines(self.path, self.offset)
        for line in lines:
            yield told(line)
