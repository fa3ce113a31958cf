"""Which of the scheduler's refusals are waited for, and how often a job is begun again."""

from __future__ import annotations

from typing import Any

import pytest

from harness.dispatch.driver.retry import Retries
from harness.dispatch.slurm.limits import Backoff, later
from harness.jobs import Job
from harness.store import Store, leases
from tests.harness.dispatch.slurm.pretended import POLICY, driver_of, failed, job_of, tend


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: {POLICY}", False),
        (f"sbatch: error: AssocMaxWallDurationPerJobLimit\nsbatch: error: {POLICY}", False),
        (f"sbatch: error: QOSMaxNodePerJobLimit\nsbatch: error: {POLICY}", False),
        (POLICY, False),
        ("Batch job submission failed: Invalid partition name specified", False),
        (f"sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: {POLICY}", True),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: {POLICY}", True),
        ("Batch job submission failed: Socket timed out on send/recv operation", True),
        ("Unable to contact slurm controller (connect failure)", True),
        ("Batch job submission failed: Resource temporarily unavailable", True),
    ],
)
def test_only_what_passes_is_tried_again(text, expected):
    assert later(text) is expected


def test_a_refusal_that_may_pass_is_waited_for_longer_each_time(cluster, tmp_path):
    driver = driver_of(cluster, tmp_path, job_of())
    cluster.refusal = "AssocMaxSubmitJobLimit"
    tend(driver)
    tend(driver)
    assert len(cluster.requests) == 1 and driver.unsubmitted and not driver.run.problem
    backoff, waits = Backoff(), []
    for _ in range(7):
        backoff.refused()
        waits.append(backoff.seconds)
    assert waits == [2, 4, 8, 16, 32, 60, 60] and backoff.waiting
    driver.backoff.until, cluster.refusal = 0.0, ""
    tend(driver)
    assert leases.leases(driver.store)[0].owner.scheduler_id == "20_0" and not driver.backoff.seconds


# Retries


def test_a_driver_that_missed_an_attempt_counts_it(tmp_path):
    store, job = Store(tmp_path), job_of()
    second = Retries(store)
    store.ensure(job)
    first = store.begin_attempt(job)
    assert second.grant(job, store.status(job)) == 0, "it runs"
    first.fail("timeout", "TimeLimit", "too long")
    failed(store, job, "timeout")
    assert second.grant(job, store.status(job)) == 0 and second.given_up(job)


def test_attempts_before_a_run_do_not_count_in_it(tmp_path):
    store, job = Store(tmp_path), job_of()
    child = Job("digest", {}, {"x": job}, "child")
    failed(store, job, "timeout")
    running = store.begin_attempt(job)
    failed(store, child, "interrupted")
    retries = Retries(store)
    for _ in range(2):
        assert retries.grant(job, store.status(job)) == 0
        retries.grant(child, store.status(child))
    running.fail("timeout", "TimeLimit", "too long")
    assert retries.grant(job, store.status(job)) == 3, "once more: the first was another run's"
    assert retries._histories[child.key].seen == 1


def test_grants_are_looked_up_again_once_nobody_else_submits(cluster, tmp_path, monkeypatch):
    job = job_of()
    driver = driver_of(cluster, tmp_path, job)
    statuses, lock = driver.look(), driver.store.lock

    def meanwhile(name: str) -> Any:
        if name == "slurm":
            failed(driver.store, job, "code")  # another driver's attempt, begun and ended since we looked
        return lock(name)

    monkeypatch.setattr(driver.store, "lock", meanwhile)
    driver.begin(statuses)
    assert not cluster.requests and driver.run.retries.given_up(job)
