"""What two runs of one table must share, however often the work was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

from harness.store import Store
from harness.tracking.sync import all_runs, client_of


def measured(results: Path) -> dict[str, object]:
    """By job folder: the answers, and the digests of all weights."""
    found: dict[str, object] = {}
    for done in sorted(results.glob("*/*/DONE.json")):
        record = json.loads(done.read_text())
        out = done.parent / "attempts" / str(record["attempt"]) / "out"
        if (out / "samples.jsonl").exists():
            found[done.parent.name] = (out / "samples.jsonl").read_text()
        for name, entry in record["outputs"].items():
            if name.endswith(".safetensors"):
                found[f"{done.parent.name}/{name}"] = entry["sha256"]
    return found


def rendered(reports: Path) -> list[str]:
    """The report's tables: values, intervals, n, keys of jobs; not the lines that tell of times and runs."""
    (report,) = reports.glob("table*.md")
    return [line for line in report.read_text().splitlines() if line.startswith("|")]


def recorded(results: Path) -> list[str]:
    """Keys of the jobs that MLflow holds, one per run."""
    return sorted(run.data.tags["job_key"] for run in all_runs(client_of(Store(results)), "1"))
