"""What the SLURM driver asks for after a job ran out of what it had, and what it then gives up."""

from __future__ import annotations

from harness.dispatch.driver.loop import Driver
from harness.dispatch.driver.progress import Silent
from harness.dispatch.slurm.limits import limits_of, no_more, scale_of
from harness.dispatch.slurm.request import Limits, Scale
from harness.jobs import Job
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import State, Store, leases
from tests.harness.dispatch.slurm.pretended import NEEDS, PARTITIONS, driver_of, failed, job_of, put, slurm_owner, tend


def test_a_larger_request_stays_within_the_partition_and_the_partition_is_asked_once(cluster, tmp_path):
    jobs = [job_of(name) for name in "abc"]
    driver = driver_of(cluster, tmp_path, *jobs)
    failed(driver.store, jobs[0], "memory", memory_gb=4)
    failed(driver.store, jobs[1], "timeout", minutes=60)
    tend(driver)
    asked = {(chosen["mem"], chosen["time"]) for chosen, _, _ in cluster.requests}
    assert asked == {("4GB", 60), ("6GB", 60), ("4GB", 120)}
    assert sum(words[0] == "scontrol" for words in cluster.commands) == 1


def test_a_first_request_is_never_made_smaller_and_asks_no_partition(cluster, tmp_path):
    tend(driver_of(cluster, tmp_path, job_of(), needs=Resources(memory_gb=100, minutes=9999)))
    assert (cluster.requests[0][0]["mem"], cluster.requests[0][0]["time"]) == ("100GB", 9999)
    assert not cluster.commands


def test_a_job_that_ran_out_of_all_its_partition_allows_is_given_up(cluster, tmp_path):
    job, other = job_of(), job_of("b")
    driver = driver_of(cluster, tmp_path, job, other)
    failed(driver.store, job, "memory", memory_gb=6)
    tend(driver)
    assert [count for _, _, count in cluster.requests] == [1], "the other one is submitted"
    assert "its partition allows no more" in driver.run.retries.given_up(job) and not driver.run.problem
    final = Driver(driver.run, driver, Silent()).final(job.key, driver.store.status(job))
    assert final.state is State.FAILED and "no more memory" in final.reason and "6 GiB" in final.reason


def test_a_refused_larger_request_gives_up_its_jobs_and_not_the_run(cluster, tmp_path):
    job, child = job_of(), Job("digest", {}, {"x": job_of()}, "child")
    driver = driver_of(cluster, tmp_path, child)
    failed(driver.store, job, "memory", memory_gb=4)
    cluster.refusal = "Requested node configuration is not available"
    tend(driver)
    assert "the request for more was refused: sbatch: error: Requested node" in driver.run.retries.given_up(job)
    assert not driver.run.problem and not leases.leases(driver.store)
    tend(driver)
    assert len(cluster.requests) == 1 and driver.unsubmitted == 0

    fresh = driver_of(cluster, tmp_path, job_of("b"))
    tend(fresh)
    assert "sbatch refuses a count job" in fresh.run.problem, "the profile's own request"


def test_a_larger_request_that_is_accepted_but_not_allowed_is_withdrawn(cluster, tmp_path):
    grown, plain = job_of("grown"), job_of("plain")
    driver = driver_of(cluster, tmp_path, grown, plain)
    failed(driver.store, grown, "timeout", minutes=60)
    for job, id_ in ((grown, "7"), (plain, "8")):
        put(driver.store, job, slurm_owner(id_))
    cluster.lines = [f"{id_}|PENDING|0|PartitionTimeLimit|vr-s-count|" for id_ in "78"]
    statuses = driver.look()
    assert ["scancel", "--quiet", "7"] in cluster.commands
    assert "asks for more time than the partition allows" in driver.run.retries.given_up(grown)
    assert statuses[plain.key].state is State.SUBMITTED and not driver.run.retries.given_up(plain)


def test_a_partitions_limits_are_read():
    assert limits_of(PARTITIONS, SlurmDispatch()) == Limits(6.0, 2880)
    assert limits_of(PARTITIONS, SlurmDispatch(partition="short")) == Limits(None, 90)
    assert limits_of(PARTITIONS, SlurmDispatch(partition="short,main")) == Limits(None, 2880)
    assert limits_of(PARTITIONS, SlurmDispatch(partition="free")) == limits_of("", SlurmDispatch()) == Limits()


def test_a_person_who_asks_for_more_is_not_held_to_what_ran_out(tmp_path):
    store, job = Store(tmp_path), job_of()
    failed(store, job, "timeout", minutes=60)
    attempts = store.attempts(job)
    assert scale_of(attempts) == Scale(minutes=2)
    assert no_more(attempts, NEEDS, Limits(minutes=60)) and not no_more(attempts, NEEDS, Limits(minutes=90))
    assert not no_more(attempts, Resources(minutes=90), Limits(minutes=90))
