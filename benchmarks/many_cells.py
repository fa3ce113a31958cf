"""What a finished graph of 10,000 cells costs to look at: seconds and memory of `run.py` when nothing is left to do.

    python -m benchmarks.many_cells --keep FOLDER                                 # 10,000 cells: minutes to invent and draw them
    python -m benchmarks.many_cells --tables 3 --rows 60 --against COMMIT         # beside an earlier commit, on the same results

Tables of so many rows and five columns, their results invented and stored as real jobs would leave them; the first run draws the
reports, the second finds everything current. Measured in a process of its own: seconds of processor and by the clock, and the peak
of its resident memory. Prints markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.invented import leave
from harness.jobs import Job
from harness.plan import plan_experiment
from harness.store import Store
from harness.store import files as store_files

COLUMNS = ("mmvp", "hrbench4k", "blink", "vstar", "hrbench8k")
ROWS = 200
PROFILE = "extends: smoke\nlatents: [own]\n"


def write_tables(folder: Path, tables: int, rows: int = ROWS) -> list[Path]:
    folder.mkdir()
    (folder / "profiles").mkdir()
    (folder / "profiles" / "many.yaml").write_text(PROFILE)
    files = []
    for number in range(tables):
        values = [round((number * rows + k + 1) / (tables * rows + 1), 6) for k in range(rows)]
        text = f"table: many{number}\ntitle: many rows\nrecipe: vreflection\ncolumns: [{', '.join(COLUMNS)}]\ncomparisons: []\n"
        text += f'rows:\n  - "p = {{p}}": {{stages: [stage1], sweep: {{stage1.p: {values}}}}}\n'
        files.append(folder / f"many{number}.yaml")
        files[-1].write_text(text)
    return files


def invent(store: Store, job: Job) -> None:
    """A finished job; an evaluation has four questions."""
    if not store.is_done(job):
        leave(store, job, partial(write_evaluation, job=job) if job.kind == "evaluate" else None)


def write_evaluation(out: Path, job: Job) -> None:
    name, right = job.payload["benchmark"], int(job.key[:4], 16)
    lines = [
        {"task": f"vr_{name}", "doc_id": k, "cluster": str(k), "groups": {"pair": str(k)}, "target": "A",
         "prediction": "AB"[right >> k & 1], "correct": not right >> k & 1, "response": "A", "latent_started": True,
         "latent_steps": 8, "truncated": False, "new_tokens": 9}
        for k in range(4)
    ]  # fmt: skip
    (out / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    accuracy = sum(line["correct"] for line in lines) / 4
    result = {"benchmark": name, "n": 4, "aggregates": {"accuracy": accuracy}, "seconds": 1.0}
    (out / "result.json").write_text(json.dumps(result))


class Taken(NamedTuple):
    """processor, clock: seconds. memory: peak, MiB."""

    processor: float
    clock: float
    memory: float


def run(repository: Path, folder: Path, reports: str) -> Taken:
    """One `run.py` on all tables of the folder. Raises SystemExit with its last words."""
    files = sorted(map(str, (folder / "specs").glob("*.yaml")))
    command = [sys.executable, str(repository / "run.py"), *files, "--profile", "many", "--results", str(folder / "results")]
    environment = {**os.environ, "HARNESS_NOTIFY": "", "PYTHONPATH": str(repository)}
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, "--reports", str(folder / reports)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd=repository
    )
    said = process.stderr.read() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"run.py ended with {os.waitstatus_to_exitcode(status)}: {said.strip()[-500:]}")
    return Taken(used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss / 1024)


def fill(folder: Path, tables: int, rows: int) -> None:
    """Invent all results. They need not survive a power cut, so nothing is synced."""
    written, store = write_tables(folder / "specs", tables, rows), Store(folder / "results")
    store_files.synced = lambda descriptor: None
    store_files.sync_file_system = lambda folder: None
    for file in written:
        graph = plan_experiment(file, "many").graph
        store.ensure_all(graph)
        for job in graph:
            invent(store, job)
        print(f"{file.name}: {len(graph):,} jobs", file=sys.stderr, flush=True)


def drawn_and_cached(repository: Path, folder: Path, reports: str) -> tuple[Taken, Taken]:
    """The run that draws (or finds what an earlier one drew), and the least of three after it."""
    first = run(repository, folder, reports)
    return first, min(run(repository, folder, reports) for _ in range(3))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", type=int, default=10, help="default: 10")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of each table (default: {ROWS})")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep results and reports there, and use them if they are there already")
    parser.add_argument("--against", metavar="COMMIT", help="measure this commit's code, too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name) / "cells").resolve()
        if not folder.exists():
            folder.mkdir(parents=True)
            fill(folder, options.tables, options.rows)
        tables = len(list((folder / "specs").glob("*.yaml")))
        found = {"here": drawn_and_cached(REPOSITORY, folder, "reports")}
        if options.against:
            old = Path(name) / "old"
            git = ["git", "-C", str(REPOSITORY), "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", str(old), options.against], check=True)
            try:
                found = {options.against: drawn_and_cached(old, folder, "old-reports"), **found}
            finally:
                subprocess.run([*git, "remove", "--force", str(old)], check=True)
    cells = tables * options.rows * len(COLUMNS)
    print(f"{cells:,} cells in {tables} tables of {options.rows} rows.\n")
    print("| | Code | Processor, s | Clock, s | Peak MiB |\n| :-- | :-- | --: | --: | --: |")
    for at, what in enumerate(("First run, draws the reports", "Cached, least of three")):
        for code, taken in found.items():
            print(f"| {what} | {code} | {taken[at].processor:.2f} | {taken[at].clock:.2f} | {taken[at].memory:,.0f} |")
        if options.against:
            before, now = (taken[at] for taken in found.values())
            print(f"| | here / before | {now.processor / before.processor:.2f} | {now.clock / before.clock:.2f} | {now.memory / before.memory:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
