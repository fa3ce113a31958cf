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


def test_killed_ten_times_at_random_moments_the_numbers_are_the_same(tmp_path):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert start(calm).wait(900) == 0
    draw = random.Random(0)
    for _ in range(KILLS):
        driver = start(rough)
        time.sleep(draw.uniform(1.0, 25.0))
        victims = [lease.owner.pid for lease in live_workers(rough / "results")]
        if not victims or draw.random() < 0.5:
            victims = [driver.pid]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if driver.pid in victims:
            driver.wait()
        else:
            time.sleep(2.0)
            driver.kill()
            driver.wait()
    assert start(rough).wait(900) == 0
    assert measured(rough) == measured(calm) and len(measured(calm)) > 10
    table = (rough / "reports" / "table3c.md").read_text()
    assert "| Stage 1 Only" in table
