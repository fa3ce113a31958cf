"""Table 3(c) on the cluster, at the smoke scale: the command a person types, from the queue to the report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.store import Store
from tests.cluster.conftest import known_ids, queued, until

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


def on_slurm(folder: Path, more: str = "") -> list[str]:
    """The profile smoke for this cluster, as options. more: of its dispatch block."""
    profile = (REPOSITORY / "experiments" / "profiles" / "smoke.yaml").read_text()
    local, words = "dispatch: {kind: local}", f"dispatch: {{kind: slurm, partition: main{more}}}"
    assert local in profile
    path = folder / "smoke-slurm.yaml"
    path.write_text(profile.replace(local, words).replace("batch_size: 16}", "batch_size: 16, bundle: 4}"))
    return ["--profile", str(path)]


def test_table_3c_is_made_on_the_cluster_and_a_second_run_asks_it_nothing(cluster, tmp_path):
    command = ["experiments/table3c.yaml", *on_slurm(tmp_path), *CHOSEN]
    before = known_ids(cluster)

    handed_over = door(tmp_path, *command, "--reports", str(tmp_path / "reports"), "--detach")
    assert handed_over.returncode == 0, handed_over.stderr
    status = door(tmp_path, "status")
    assert "submitted" in status.stdout and "slurm job" in status.stdout, status.stdout + status.stderr

    attached = door(tmp_path, *command, "--reports", str(tmp_path / "reports"))
    assert attached.returncode == 0, attached.stdout + attached.stderr
    (report,) = (tmp_path / "reports").glob("table3c*.md")  # rows were chosen, so it has a name of its own
    assert "Two-stage" in report.read_text()
    assert known_ids(cluster) - before
    store = Store(tmp_path / "results")
    assert all(len(store.attempts(record)) == 1 for record in store.records())

    after = known_ids(cluster)
    again = door(tmp_path, *command, "--reports", str(tmp_path / "reports"))
    assert again.returncode == 0 and known_ids(cluster) <= after


def test_a_later_shell_sees_why_a_cell_waits_takes_it_out_of_the_queue_and_runs_one_job_again(cluster, tmp_path):
    held, before = on_slurm(tmp_path, ", sbatch: {hold: true}"), len(queued(cluster, "PD"))
    reports = ["--reports", str(tmp_path / "reports")]
    handed_over = door(tmp_path, "experiments/table3c.yaml", *held, *CHOSEN, *reports, "--detach")
    assert handed_over.returncode == 0, handed_over.stderr
    waiting = len(queued(cluster, "PD")) - before
    why = door(tmp_path, "why", "Stage 1 Only/mmvp", "experiments/table3c.yaml", *held)
    assert why.returncode == 0 and "submitted" in why.stdout and "held by its user" in why.stdout, why.stdout + why.stderr
    cancelled = door(tmp_path, "cancel")
    assert cancelled.returncode == 0 and "out of the cluster's queue" in cancelled.stdout, cancelled.stderr
    until(lambda: len(queued(cluster, "PD")) == before)
    assert waiting > 3

    data = next(record for record in Store(tmp_path / "results").records() if record.kind == "data")
    again = door(tmp_path, "retry", data.key[:12], *on_slurm(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    assert Store(tmp_path / "results").is_done(data)
    logs = door(tmp_path, "logs", data.key[:12])
    assert logs.returncode == 0 and "done after" in logs.stdout and "slurm job" in logs.stdout
