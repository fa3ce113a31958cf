"""What a finished graph of 10,000 cells costs to look at: seconds and memory of `run.py` when nothing is left to do.

    python -m benchmarks.many_cells --keep FOLDER           # 10,000 cells: minutes to invent and draw them; --write: into many_cells.md
    python -m benchmarks.many_cells --tables 3 --rows 60 --against COMMIT         # beside an earlier commit, on the same results

Tables with that many rows and five columns; their results are invented, and stored as real jobs would leave them. The first run draws
the reports, and waits up to two minutes for the copy to MLflow; the cached ones come after that and find nothing to do. Each runs in a process of its own. There is no
index that could be out of date: a cached run looks at the files of each job.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.invented import leave
from benchmarks.page import REPOSITORY, about, checked_out, commit, positive, show
from harness.jobs import Job
from harness.plan import plan_experiment
from harness.store import Store
from harness.store import files as store_files
from harness.tracking.fingerprint import up_to_date

COLUMNS = ("mmvp", "hrbench4k", "blink", "vstar", "hrbench8k")
TABLES, ROWS = 10, 200
FILLED = "filled.json"
"""Written into a folder when all its results are there: how many tables and rows it holds."""
FILE = Path(__file__).with_suffix(".md")
GOAL_SECONDS, GOAL_MIB = 2.0, 200
COPIED_SECONDS = 3600.0
"""How long MLflow's copy of the results may take."""
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
    (folder / FILLED).write_text(json.dumps([tables, rows]))


def kept(folder: Path, tables: int | None, rows: int | None) -> tuple[int, int] | None:
    """(tables, rows) of an earlier run's folder; None if it is new or empty. tables, rows: as asked for. Raises SystemExit in one line if
    others are there, or something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = json.loads((folder / FILLED).read_text())
    except (OSError, ValueError):
        raise SystemExit(f"{folder}: holds no complete results of this benchmark; remove it, or name a new folder with --keep") from None
    if any(asked not in (None, there) for asked, there in zip((tables, rows), found, strict=True)):
        raise SystemExit(f"{folder}: holds {found[0]} tables of {found[1]} rows; leave --tables and --rows out to use them, or name a new folder with --keep")
    return found[0], found[1]


def drawn_and_cached(repository: Path, folder: Path, reports: str) -> tuple[Taken, Taken]:
    """The run that draws (or finds what an earlier one drew), and the least of three after it. Raises SystemExit if the results are not
    copied to MLflow in an hour."""
    first, give_up = run(repository, folder, reports), time.monotonic() + COPIED_SECONDS
    while not up_to_date(Store(folder / "results")):  # a run waits two minutes for it, and would be timed waiting
        if time.monotonic() > give_up:
            raise SystemExit(f"{folder}: the results are still not copied to MLflow; see its log in {folder / 'results'}")
        time.sleep(1)
    return first, min(run(repository, folder, reports) for _ in range(3))


def verdict(cached: Taken) -> str:
    memory = "reached" if cached.memory <= GOAL_MIB else "**not reached**"
    clock = "reached" if cached.clock <= GOAL_SECONDS else "**not reached**"
    processor = "" if cached.clock <= GOAL_SECONDS else f" (the processor's seconds are {'within' if cached.processor <= GOAL_SECONDS else 'above'} it)"
    return f"The memory is {memory}; the time, by the clock of this machine, is {clock}{processor}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", type=positive, help=f"default: {TABLES}, or those of the kept folder")
    parser.add_argument("--rows", type=positive, help=f"of each table (default: {ROWS}, or those of the kept folder)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep results and reports there, and use them if they are there already")
    parser.add_argument("--against", type=commit, metavar="COMMIT", help="measure this commit's code, too")
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name) / "cells").resolve()
        if (there := kept(folder, options.tables, options.rows)) is not None:
            tables, rows = there
        else:
            tables, rows = options.tables or TABLES, options.rows or ROWS
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SystemExit(f"{folder}: {error.strerror}; name another folder with --keep") from None
            fill(folder, tables, rows)
        found = {"here": drawn_and_cached(REPOSITORY, folder, "reports")}
        if options.against:
            with checked_out(options.against, Path(name) / "old") as old:
                found = {options.against: drawn_and_cached(old, folder, "old-reports"), **found}
    lines = ["| | Code | Processor, s | Clock, s | Peak MiB |", "| :-- | :-- | --: | --: | --: |"]
    for at, what in enumerate(("First run, draws the reports", "Cached, least of three")):
        for code, taken in found.items():
            lines.append(f"| {what} | {code} | {taken[at].processor:.2f} | {taken[at].clock:.2f} | {taken[at].memory:,.0f} |")
        if options.against:
            before, now = (taken[at] for taken in found.values())
            lines.append(f"| | here / before | {now.processor / before.processor:.2f} | {now.clock / before.clock:.2f} | {now.memory / before.memory:.2f} |")
    command = f"--tables {tables} --rows {rows}{f' --against {options.against}' if options.against else ''} --write"
    cells, load = tables * rows * len(COLUMNS), os.getloadavg()[0]
    page = "\n\n".join([
        "# What many cells cost to look at",
        f"Made by `python -m benchmarks.many_cells {command}`.",
        ABOUT,
        f"{cells:,} cells in {tables} tables of {rows} rows, on {os.cpu_count()} cores; the load average was {load:.1f} at the end.",
        "\n".join(lines),
        f"Wanted of a cached run: at most {GOAL_SECONDS:.0f} s and {GOAL_MIB} MiB. {verdict(found['here'][1])}",
    ])  # fmt: skip
    show(page + "\n", FILE if options.write else None)
    return 0


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
