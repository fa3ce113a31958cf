"""Table 3(c) on the cluster, at the smoke scale: the command a person types, from the queue to the report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.store import Store
from tests.cluster.conftest import queued

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
CHOSEN = ["--rows", "Stage 1 Only", "Two-stage (Ours)", "--columns", "mmvp"]


def door(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """run.py with everything it writes under `folder`."""
    return subprocess.run(
        [sys.executable, "run.py", *words, "--results", str(folder / "results")],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
    )


def test_table_3c_is_made_on_the_cluster_and_a_second_run_asks_it_nothing(cluster, tmp_path):
    profile = (REPOSITORY / "experiments" / "profiles" / "smoke.yaml").read_text()
    local, words = "dispatch: {kind: local}", "dispatch: {kind: slurm, partition: main}"
    assert local in profile
    (tmp_path / "smoke-slurm.yaml").write_text(
        profile.replace(local, words).replace("batch_size: 16}", "batch_size: 16, bundle: 4}")
    )
    command = ["experiments/table3c.yaml", "--profile", str(tmp_path / "smoke-slurm.yaml"), *CHOSEN]
    before = len(queued(cluster))

    handed_over = door(tmp_path, *command, "--reports", str(tmp_path / "reports"), "--detach")
    assert handed_over.returncode == 0, handed_over.stderr
    status = door(tmp_path, "status")
    assert "submitted" in status.stdout and "slurm job" in status.stdout, status.stdout + status.stderr

    attached = door(tmp_path, *command, "--reports", str(tmp_path / "reports"))
    assert attached.returncode == 0, attached.stdout + attached.stderr
    (report,) = (tmp_path / "reports").glob("table3c*.md")  # rows were chosen, so it has a name of its own
    assert "Two-stage" in report.read_text()
    assert len(queued(cluster)) > before
    store = Store(tmp_path / "results")
    assert all(len(store.attempts(record)) == 1 for record in store.records())

    after = len(queued(cluster))
    again = door(tmp_path, *command, "--reports", str(tmp_path / "reports"))
    assert again.returncode == 0 and len(queued(cluster)) == after
