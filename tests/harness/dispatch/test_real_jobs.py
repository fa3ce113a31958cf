"""The whole path with real training and evaluation, disturbed: minutes, so only with `-m slow`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.dispatch.graphs import REPOSITORY, live_workers

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "run.py", "experiments/table3c.yaml", "--profile", "smoke", "--columns", "mmvp")
KILLS = 10
PATIENCE_SECONDS = 3600


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--results", str(root / "results"), "--reports", str(root / "reports")],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def measured(root: Path) -> dict[str, object]:
    """By job folder: what must not depend on how often the work was interrupted."""
    found: dict[str, object] = {}
    for done in sorted((root / "results").glob("*/*/DONE.json")):
        record = json.loads(done.read_text())
        out = done.parent / "attempts" / str(record["attempt"]) / "out"
        if (out / "samples.jsonl").exists():
            found[done.parent.name] = (out / "samples.jsonl").read_text()
        for name, entry in record["outputs"].items():
            if name.endswith(".safetensors"):
                found[f"{done.parent.name}/{name}"] = entry["sha256"]
    return found


def rendered(root: Path) -> list[str]:
    """The report's tables: values, intervals, n, keys of jobs; not the lines that tell of times and runs."""
    lines = (root / "reports" / "table3c-partial.md").read_text().splitlines()
    return [line for line in lines if line.startswith("|")]


def recorded(root: Path) -> list[str]:
    """Keys of the jobs that MLflow holds, one per run."""
    from harness.store import Store
    from harness.tracking.mirror import all_runs, client_of

    return sorted(run.data.tags["job_key"] for run in all_runs(client_of(Store(root / "results")), "1"))


def marks(root: Path) -> int:
    """How far the work is: finished jobs, attempts and lines of metrics."""
    results = root / "results"
    lines = sum(path.read_bytes().count(b"\n") for path in results.glob("*/*/attempts/*/metrics.jsonl"))
    return lines + len([*results.glob("*/*/DONE.json"), *results.glob("*/*/attempts/[0-9]*")])


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_killed_ten_times_at_random_moments_the_numbers_are_the_same(tmp_path):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert start(calm).wait(PATIENCE_SECONDS) == 0
    draw = random.Random(0)
    killed = 0
    while killed < KILLS:
        driver = start(rough)
        before, enough = marks(rough), draw.randint(1, 8)
        while marks(rough) < before + enough and driver.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 3.0))
        if driver.poll() is not None:
            break  # all was done in between the kills
        workers = [lease.owner.pid for lease in live_workers(rough / "results")]
        if workers and draw.random() < 0.5:
            kill(draw.choice(workers))
            killed += 1
            time.sleep(1.0)
        kill(driver.pid)
        killed += 1
        driver.wait()
    assert start(rough).wait(PATIENCE_SECONDS) == 0
    assert measured(rough) == measured(calm) and len(measured(calm)) > 10
    assert len(list((rough / "results").glob("*/*/attempts/[0-9]*"))) > len(measured(rough)) // 2
    assert rendered(rough) == rendered(calm) and any(line.startswith("| Stage 1 Only") for line in rendered(calm))
    assert recorded(rough) == recorded(calm) and len(set(recorded(rough))) == len(recorded(rough)) > 10
