"""The pretended scheduler in the place of SLURM."""

from __future__ import annotations

import pytest
from submitit.slurm import slurm as submitit_slurm

from harness.dispatch.slurm import submission as slurm_submission
from tests.harness.dispatch.slurm.pretended import Cluster


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(submitit_slurm, "SlurmExecutor", cluster.executor)
    monkeypatch.setattr(slurm_submission, "copy_code", lambda target: target.mkdir())
    return cluster
