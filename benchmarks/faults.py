"""The long fault suite: `python -m benchmarks.faults` tries every fault of tests/faults and writes benchmarks/faults.md.

Exits with 1 when the promise was broken anywhere.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.page import positive
from harness.worker.provenance import code
from tests.faults import drivers, suites, work
from tests.faults.work import Promise, Tally

REPORT = Path(__file__).with_suffix(".md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=positive, default=200, help="kills at random moments (default: 200)")
    options = parser.parse_args()
    began, tallies = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        promise = Promise(folder, work.graph())
        todo: list[Callable[[], Tally]] = [
            lambda: suites.kills_at_random(promise, folder, options.kills),
            lambda: suites.kills_inside_writes(promise, folder),
            lambda: suites.failing_writes(promise, folder),
            lambda: suites.damaged_files(promise, folder),
            lambda: suites.exchanged_outputs(promise, folder),
            lambda: suites.clock_jumps(promise, folder),
            lambda: suites.many_workers(promise, folder, times=4),
            lambda: drivers.many_drivers(folder),
            lambda: drivers.databases(folder),
        ]
        for suite in todo:
            tallies.append(tally := suite())
            print(f"{tally.name}: {tally.tried} tried, {len(tally.broken)} broken, {tally.seconds:.0f} s", file=sys.stderr)
    REPORT.write_text(report(tallies, promise, time.monotonic() - began))
    print(f"written: {REPORT}")
    return 1 if any(tally.broken for tally in tallies) else 0


def report(tallies: list[Tally], promise: Promise, seconds: float) -> str:
    rows = [
        f"| {t.name} | {t.tried} | {'; '.join(f'{n} × {way}' for way, n in sorted(t.ways.items(), key=lambda x: -x[1]))} "
        f"| {len(t.broken)} |"
        for t in tallies
    ]
    broken = [f"- {t.name}: {line}" for t in tallies for line in t.broken] or ["- nowhere"]
    return "\n".join(
        [
            "# Faults on purpose",
            "",
            "Written by `python -m benchmarks.faults`. After each fault an undisturbed worker continues with the same store. The promise: no",
            "finished result is lost or replaced, none is counted twice, none is wrong without an error, and in the end the results equal those",
            "of an undisturbed run.",
            "",
            "| Fault | Tried | What happened | Promise broken |",
            "| :--- | ---: | :--- | ---: |",
            *rows,
            "",
            f"The jobs are cheap stand-ins ({len(promise.jobs)} jobs, {len(promise.steps)} steps at which the harness writes). The store, the",
            "attempts, the drivers and the copying to MLflow are real; the training is not. `pytest -m slow` kills real trainings.",
            "Writes fail where the harness makes them (harness/store/files.py), not inside torch or safetensors. Someone who edits results and",
            "then recomputes the checksum in DONE.json is not detected.",
            "",
            "Where the promise was broken:",
            "",
            *broken,
            "",
            f"{seconds:.0f} s on {os.cpu_count()} cores, Python {platform.python_version()}, commit {str(code().get('commit'))[:12]}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
