"""What a cluster does to a job, and that the result is that of an undisturbed run: requeue, nodes, scheduler, memory."""

from __future__ import annotations

import json
import os
import signal

import pytest

from harness.dispatch.slurm.queue import Phase
from harness.dispatch.slurm.task import Assignment, perform
from harness.jobs import Graph, Job
from harness.spec.profile import Resources
from harness.store import State, Store, leases
from tests.cluster import kinds
from tests.cluster.cluster import CGROUPS
from tests.cluster.conftest import (
    background,
    counting,
    drive,
    entry,
    quick_queue,
    result,
    scheduler_id,
    show,
    step,
    until,
)
from tests.cluster.kinds import expected

pytestmark = pytest.mark.cluster


def undisturbed(root, *jobs: Job) -> bool:
    return all(json.loads(result(root, job)) == expected(job) for job in jobs)


def resumed(root, job: Job) -> bool:
    return "resumed at step" in Store(root).winner(job).log.read_text()


def test_requeued_failed_and_killed_jobs_resume_and_end_like_undisturbed_ones(cluster, tmp_path):
    names, gate = ("by-hand", "failed-node", "killed"), tmp_path / "gate"
    by_hand, on_failed_node, killed = (counting(20, name=name, gate=str(gate)) for name in names)
    child = Job("digest", {}, {"x": on_failed_node}, "child")
    driver = background(Graph([by_hand, child, killed]), tmp_path)
    failed: list[str] = []

    def fail_its_node() -> None:
        failed.append(entry(cluster, scheduler_id(tmp_path, on_failed_node))[3])
        cluster.fail_node(failed[0])
        assert not show(Graph([child]), tmp_path)[on_failed_node.name].startswith("failed"), "NODE_FAIL is provisional"

    def running(job: Job) -> bool:
        """Whether it is at work now; the failure of a node takes along whatever runs there."""
        attempt = Store(tmp_path).attempts(job)[-1]
        at_work = attempt.failure is None and attempt.owner.alive()
        return step(tmp_path, job) >= 3 and at_work and entry(cluster, attempt.owner.scheduler_id)[1] == "RUNNING"

    faults = {
        by_hand: lambda: cluster.run("scontrol", "requeue", scheduler_id(tmp_path, by_hand)),
        killed: lambda: os.kill(Store(tmp_path).attempts(killed)[-1].owner.pid, signal.SIGKILL),
        on_failed_node: fail_its_node,
    }
    while faults:  # in whatever order they get going
        job = until(lambda: next((ready for ready in faults if step(tmp_path, ready) and running(ready)), None))
        faults.pop(job)()
    gate.touch()
    until(lambda: len(Store(tmp_path).attempts(on_failed_node)) > 1)
    cluster.resume_node(failed[0])

    outcome = driver.end()
    assert outcome.complete, [str(problem) for problem in outcome.problems]
    assert undisturbed(tmp_path, by_hand, on_failed_node, killed)
    assert all(resumed(tmp_path, job) for job in (by_hand, on_failed_node, killed))
    store = Store(tmp_path)
    attempt, restart = store.done(by_hand)["fence"]
    assert attempt >= 2 and restart >= 1, "another attempt, in another start of the same scheduler job"
    assert len(store.attempts(child)) == 1, "the child waited for the parent that was requeued"


def test_the_time_limit_leads_to_a_checkpoint_and_back_into_the_queue(cluster, tmp_path):
    job = counting(300)
    needs, early = Resources(memory_gb=0.3, minutes=1), {"signal": "USR2@59", "nodelist": cluster.node_names[0]}
    driver = background(Graph([job]), tmp_path, resources=lambda kind: needs, sbatch=early)
    spare = counting(120, name="spare")
    low = background(Graph([spare]), tmp_path, partition="spare", sbatch={"nodelist": cluster.node_names[-1]})
    until(lambda: step(tmp_path, spare) >= 3)
    assert entry(cluster, scheduler_id(tmp_path, spare))[3] == cluster.node_names[-1]
    alone = ["--partition=urgent", f"--nodelist={cluster.node_names[-1]}", "--exclusive", "--output=/dev/null"]
    cluster.run("sbatch", *alone, "--wrap=sleep 1")
    assert low.end().complete and undisturbed(tmp_path, spare) and resumed(tmp_path, spare), "preempted and resumed"
    assert driver.end().complete and undisturbed(tmp_path, job) and resumed(tmp_path, job)
    assert Store(tmp_path).attempts(job)[0].failure.cause == "interrupted"


def test_a_time_limit_without_progress_is_retried_once_with_twice_the_time(cluster, tmp_path):
    job = Job("stuck", {"minutes": 1})
    child = Job("digest", {}, {"x": job}, "child")
    needs = Resources(memory_gb=0.3, minutes=1)
    outcome = drive(Graph([child]), tmp_path, resources=lambda kind: needs, sbatch={"signal": "USR2@59"})
    assert outcome.complete, [str(problem) for problem in outcome.problems]
    assert result(tmp_path, job) == "2"
    assert [attempt.failure.cause for attempt in Store(tmp_path).attempts(job) if attempt.failure] == ["timeout"]


@pytest.mark.skipif(not os.access(CGROUPS / "memory", os.W_OK), reason="memory limits need version 1 cgroups")
def test_running_out_of_host_memory_is_retried_once_with_twice_the_memory(cluster, tmp_path):
    fits_twice, never = Job("hog", {"mib": 300}, slug="fits-twice"), Job("hog", {"mib": 900}, slug="never")
    needs = Resources(memory_gb=0.2, minutes=10)
    outcome = drive(Graph([fits_twice, never]), tmp_path, resources=lambda kind: needs)
    causes = {
        job.slug: [attempt.failure.cause for attempt in Store(tmp_path).attempts(job) if attempt.failure]
        for job in (fits_twice, never)
    }
    assert causes == {"fits-twice": ["memory"], "never": ["memory", "memory"]}
    assert outcome.statuses[fits_twice.key].state is State.DONE
    assert "more memory than it asked for" in outcome.statuses[never.key].reason


def test_a_child_that_starts_without_its_parent_notices_and_leaves(cluster, tmp_path):
    """afterok on an id that SLURM has forgotten counts as fulfilled."""
    from submitit.slurm.slurm import SlurmExecutor

    parent = counting(3)
    child = Job("digest", {}, {"x": parent}, "child")
    store = Store(tmp_path)
    folders = {job.key: str(store.ensure(job).relative_to(store.root)) for job in (parent, child)}
    task = Assignment(str(tmp_path), (folders[child.key],), "none", "none", {}, (kinds.PLUGIN,), parent_seconds=0.5)
    executor = SlurmExecutor(tmp_path / "submitit")
    executor.update_parameters(time=10, mem="300MB", dependency="afterok:987654", stderr_to_stdout=True)
    job = executor.submit(perform, task)
    until(lambda: entry(cluster, job.job_id)[1] == "FAILED")
    assert f"not begun, because its parent {parent.name} is not done" in job.stdout()
    assert not store.attempts(child) and store.state(child) is State.MISSING


def test_while_the_scheduler_is_down_files_decide_and_nothing_is_called_failed(cluster, tmp_path):
    graph = Graph([counting(20, name="a"), Job("digest", {}, {"x": counting(20, name="b")}, "behind")])
    drive(graph, tmp_path, detach=True)
    running = [job for job in graph if job.kind == "count"]
    for job in running:
        until(lambda job=job: step(tmp_path, job) >= 1)
    cluster.stop_controller(hard=True)
    try:
        driver = background(graph, tmp_path)
        until(lambda: all(Store(tmp_path).is_done(job) for job in running))
        assert not {"failed", "interrupted", "blocked"} & {text.split()[0] for text in show(graph, tmp_path).values()}
        until(lambda: driver.said)
        assert len(driver.said) == 1 and "scheduler does not answer" in driver.said[0]
    finally:
        cluster.start_controller()
        cluster.wait_for_nodes()
    assert driver.end().complete
    assert driver.said[-1] == "the scheduler answers again"
    assert all(len(Store(tmp_path).attempts(job)) == 1 for job in graph), "nothing ran twice"


def test_a_job_whose_parent_the_scheduler_brought_back_from_the_dead_does_not_wait_for_it(cluster, tmp_path):
    parent = counting(2)
    child = Job("digest", {}, {"x": parent}, "child")
    assert drive(Graph([child]), tmp_path).complete
    zombie = cluster.run("sbatch", "--hold", "--output=/dev/null", "--wrap=true").split()[-1]
    again = Job("digest", {"again": 1}, {"x": parent}, "again")
    driver = background(Graph([again]), tmp_path, sbatch={"dependency": f"afterok:{zombie}"})
    assert driver.end().complete
    assert entry(cluster, zombie)[1] == "PENDING"


def test_an_id_that_another_job_uses_again_is_not_taken_for_ours(cluster, tmp_path):
    job = Job("nothing", {})
    drive(Graph([job]), tmp_path, detach=True, sbatch={"hold": True})
    lease = leases.leases(Store(tmp_path))[0]
    foreign = ["sbatch", "--hold", "--output=/dev/null", "--wrap=sleep 1"]
    # the scheduler forgets our job, and somebody else's gets its id: here by giving our lease another job's id
    stolen = cluster.run(*foreign).split()[-1]
    cluster.run("scancel", lease.owner.scheduler_id)
    leases.write(Store(tmp_path), leases.replace(lease, owner=leases.replace(lease.owner, scheduler_id=stolen)))
    queue = quick_queue()
    queue.look()
    assert queue.standing(stolen, lease.owner.scheduler_name).phase is not Phase.WAITING, "it waits under another name"
    outcome = drive(Graph([job]), tmp_path)
    assert outcome.complete
    assert entry(cluster, stolen)[1] == "PENDING"


def test_a_scheduler_that_lost_its_queue_is_noticed_and_the_jobs_are_submitted_again(cluster, tmp_path):
    job = counting(30)
    driver = background(Graph([job]), tmp_path)
    until(lambda: step(tmp_path, job) >= 2)
    cluster.stop_controller(hard=True)
    cluster.start_controller(forget=True)
    cluster.wait_for_nodes()
    assert driver.end().complete and undisturbed(tmp_path, job)


def test_a_twin_on_a_node_that_lost_its_daemon_changes_nothing(cluster, tmp_path):
    gate = tmp_path / "gate"
    job = counting(60, gate=str(gate))
    driver = background(Graph([job]), tmp_path, sbatch={"nodelist": cluster.node_names[0]})
    until(lambda: step(tmp_path, job) >= 2)
    cluster.stop_node(cluster.node_names[0])  # the job itself goes on, but the scheduler will give it up
    id_ = scheduler_id(tmp_path, job)
    until(lambda: entry(cluster, id_)[1] in ("NODE_FAIL", "PENDING", "COMPLETING"))
    gate.touch()
    cluster.start_node(cluster.node_names[0])
    outcome = driver.end()
    assert outcome.complete and undisturbed(tmp_path, job)
    assert int(entry(cluster, id_)[2]) >= 1, "the scheduler did start it again"


def test_a_job_that_its_node_could_not_start_is_not_held_for_ever(cluster, tmp_path):
    job = Job("nothing", {})
    fault = cluster.fail_next_launch()
    assert drive(Graph([job]), tmp_path).complete
    assert not fault.exists() and len(Store(tmp_path).attempts(job)) == 1
