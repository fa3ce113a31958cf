"""The whole path with real training and evaluation, disturbed: minutes, so only with `-m slow`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.dispatch.compared import measured, recorded, rendered
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
    rough_jobs, calm_jobs = rough / "results", calm / "results"
    assert measured(rough_jobs) == measured(calm_jobs) and len(measured(calm_jobs)) > 10
    assert len(list(rough_jobs.glob("*/*/attempts/[0-9]*"))) > len(measured(rough_jobs)) // 2
    tables = rendered(rough / "reports")
    assert tables == rendered(calm / "reports") and any(line.startswith("| Stage 1 Only") for line in tables)
    keys = recorded(rough_jobs)
    assert keys == recorded(calm_jobs) and len(set(keys)) == len(keys) > 10
