"""What a finished graph of 10,000 cells costs to look at: seconds and memory of `run.py` when nothing is left to do.

    python -m benchmarks.many_cells            # some minutes, nearly all of them to invent the results

Ten tables of 200 rows and five columns, their results invented and stored as real jobs would leave them; the first run draws the
reports, the second finds everything current. Measured in a process of its own: wall seconds, and the peak of its resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.invented import leave
from harness.jobs import Job
from harness.plan import plan_experiment
from harness.store import Store

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


def run(folder: Path, *words: str) -> tuple[float, float]:
    """Wall seconds and peak MiB of one `run.py`."""
    command = [sys.executable, str(REPOSITORY / "run.py"), *words, "--results", str(folder / "results"), "--reports", str(folder / "reports")]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "HARNESS_NOTIFY": ""})
    said = process.stderr.read() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"run.py ended with {os.waitstatus_to_exitcode(status)}: {said.strip()[-500:]}")
    return time.monotonic() - began, used.ru_maxrss / 1024


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", type=int, default=10, help=f"of {ROWS * len(COLUMNS):,} cells each (default: 10)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, store = write_tables(folder / "specs", options.tables), Store(folder / "results")
        jobs = 0
        for file in files:
            graph = plan_experiment(file, "many").graph
            jobs += len(graph)
            store.ensure_all(graph)
            for job in graph:
                invent(store, job)
            print(f"{file.name}: {len(graph):,} jobs, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr, flush=True)
        words = [*map(str, files), "--profile", "many"]
        first, (seconds, memory) = run(folder, *words), min(run(folder, *words) for _ in range(3))
        print(f"{ROWS * len(COLUMNS) * options.tables:,} cells, {jobs:,} jobs")
        print(f"first run, which draws the reports: {first[0]:.1f} s, {first[1]:,.0f} MiB")
        print(f"cached (best of three): {seconds:.2f} s, {memory:,.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
