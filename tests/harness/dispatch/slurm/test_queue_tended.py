"""What the SLURM driver does with leases, stuck jobs and jobs that nobody waits for any more."""

from __future__ import annotations

import os
import time

from harness.dispatch.slurm import watch as slurm_watch
from harness.store import State, leases
from tests.harness.dispatch.slurm.pretended import DEAD, ELSEWHERE, driver_of, job_of, put, said, slurm_owner, tend


def test_a_lease_that_promises_nothing_more_goes_with_its_job(cluster, tmp_path):
    driver = driver_of(cluster, tmp_path, job_of())
    lease = leases.write(driver.store, leases.Lease("s-1", slurm_owner("7"), None, ".slurm/s", ()))
    cluster.lines = ["7|RUNNING|0|None|vr-s-count|"]
    driver.look()
    assert leases.read(driver.store, lease.id)
    cluster.lines = ["7|COMPLETED|0|None|vr-s-count|"]
    driver.look()
    assert not leases.leases(driver.store)


def test_a_stuck_job_is_told_once_and_those_with_one_reason_together(cluster, tmp_path):
    jobs = [job_of(name) for name in "abc"]
    driver = driver_of(cluster, tmp_path, *jobs)
    for job in jobs:
        put(driver.store, job, slurm_owner(job.slug))
    cluster.lines = [f"{name}|PENDING|0|JobHeldUser|vr-s-count|" for name in "ab"]
    cluster.lines += ["c|PENDING|0|launch failed requeued held|vr-s-count|"]
    driver.look()
    assert not said(driver), "it may be stuck for a moment only"
    driver.watch.stuck_seconds = 0.0
    for _ in range(3):
        driver.look()
    assert len(said(driver)) == 2
    assert any("and 1 more: held by its user" in text for text in said(driver))
    assert any("its node did not start it" in text for text in said(driver))


def test_a_dependency_that_a_person_asked_for_is_waited_for(cluster, tmp_path):
    job = job_of()
    driver = driver_of(cluster, tmp_path, job, sbatch={"dependency": "afterok:99"})
    driver.watch.free_seconds = -1.0
    put(driver.store, job, slurm_owner("7"))
    cluster.lines = ["7|PENDING|0|Dependency|vr-s-count|"]
    driver.look()
    driver.look()
    assert not cluster.commands


# Leases that were never handed over


def test_what_a_dead_driver_had_not_noted_is_taken_out_of_the_queue(cluster, tmp_path):
    dead, noted = job_of("dead"), job_of("noted")
    driver = driver_of(cluster, tmp_path, dead, noted)
    put(driver.store, dead, DEAD, started=time.time())
    put(driver.store, noted, slurm_owner("10_1"))
    cluster.lines = [f"10_{i}|PENDING|0|Priority|vr-s-count|" for i in range(2)]
    cluster.lines += ["11|PENDING|0|Priority|vr-t-count|", "12|RUNNING|0|None|vr-s-count|"]
    statuses = driver.look()
    assert cluster.commands == [["scancel", "--quiet", "--state=PENDING", "10_[0]"]]
    assert statuses[dead.key].state is State.READY and statuses[noted.key].state is State.SUBMITTED


def test_an_unseen_driver_has_ten_minutes_to_submit(cluster, tmp_path):
    job = job_of()
    driver = driver_of(cluster, tmp_path, job)
    put(driver.store, job, ELSEWHERE)
    assert driver.look()[job.key].state is State.SUBMITTED
    put(driver.store, job, ELSEWHERE, started=time.time() - slurm_watch.UNSUBMITTED_SECONDS - 1)
    assert driver.look()[job.key].state is State.READY


def test_a_driver_inside_a_job_is_not_taken_for_what_it_submits(cluster, tmp_path, monkeypatch):
    for name, value in {
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_NAME": "shell",
        "SLURM_CONF": "/c",
        "SLURM_NTASKS": "4",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    job = job_of()
    driver = driver_of(cluster, tmp_path, job)
    put(driver.store, job, driver.me)
    cluster.lines = ["5|RUNNING|0|None|shell|"]
    assert not slurm_watch.submitted(leases.leases(driver.store)[0])
    assert slurm_watch.cancel(driver.store, [job.key]) == []
    tend(driver)
    seen = {name for name in cluster.requests[0][1] if name.startswith(("SLURM_", "SBATCH_"))}
    assert seen == {"SLURM_CONF", "SBATCH_ACCOUNT"} and os.environ["SLURM_NTASKS"] == "4"
