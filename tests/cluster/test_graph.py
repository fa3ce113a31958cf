"""A whole graph through a real SLURM: handed over at once, attached to, blocked where a parent failed, cancelled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.dispatch.slurm import submission as slurm_submission
from harness.dispatch.slurm import watch
from harness.dispatch.slurm.queue import SlurmQueue
from harness.jobs import Graph, Job
from harness.spec.profile import Resources
from harness.store import State, Store, leases
from tests.cluster.conftest import (
    background,
    counting,
    drive,
    entry,
    known_ids,
    queued,
    quick_queue,
    result,
    scheduler_id,
    step,
    until,
)
from tests.cluster.kinds import expected
from tests.harness.dispatch import graphs

BUNDLES = "tests.cluster.bundles"
"""Never imported here: it replaces the real evaluations of the process that imports it."""

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]


def test_the_whole_graph_is_handed_over_at_once_and_the_same_command_attaches(cluster, tmp_path):
    graph, before = graphs.diamond(steps=10), known_ids(cluster)
    outcome = drive(graph, tmp_path, detach=True, throttle=2, partition="main", sbatch={"comment": "a table"})
    assert outcome.detached and outcome.exit_code == 0 and not outcome.problems

    mine = [words for words in queued(cluster) if words[0] not in before]
    arrays = {words[0].partition("_")[0] for words in mine}
    assert len(mine) == len(graph) and len(arrays) == 5, "one first, an array of three, three arrays of two"
    shown = cluster.run("scontrol", "show", "job", *sorted(arrays)[-1:])
    assert "Dependency=afterok:" in shown and "Comment=a table" in shown and "ArrayTaskThrottle=2" in shown
    statuses = Store(tmp_path, {"slurm": SlurmQueue().alive}).statuses(graph)
    assert {status.state for status in statuses.values()} <= {State.SUBMITTED, State.RUNNING, State.DONE}

    queue = quick_queue()
    outcome = drive(graph, tmp_path, queue=queue)
    assert outcome.complete and not outcome.problems
    assert len(known_ids(cluster) - before) == len(graph), "nothing was submitted again"
    assert queue.calls.get("sacct", 0) <= 1, "a cluster without accounting is asked for it once"
    store = Store(tmp_path)
    assert all(len(store.attempts(job)) == 1 for job in graph)
    done = store.done(next(iter(graph)))
    assert done["code"]["commit"] and done["fence"] == [1, 0]


def test_nothing_is_left_of_a_submission_when_its_jobs_are_done(cluster, tmp_path):
    assert drive(Graph([Job("nothing", {})]), tmp_path).complete
    assert not leases.leases(Store(tmp_path))
    assert not list(slurm_submission.home(Store(tmp_path)).iterdir())


def test_dependents_of_a_failed_job_end_as_blocked_and_nothing_stays_in_the_queue(cluster, tmp_path):
    bad = Job("raise", {}, slug="bad")
    child = Job("digest", {"i": 1}, {"x": bad}, "child")
    grandchild = Job("digest", {"i": 2}, {"x": child}, "grandchild")
    good = counting(2)
    outcome = drive(Graph([grandchild, good]), tmp_path)
    states = {job.slug: outcome.statuses[job.key].state for job in (bad, child, grandchild, good)}
    assert states == {"bad": "failed", "child": "blocked", "grandchild": "blocked", "count": "done"}
    lines = {problem.job.slug: str(problem) for problem in outcome.problems}
    assert "ZeroDivisionError: the arm divides by zero" in lines["bad"] and "traceback.txt" in lines["bad"]
    assert f"parent {bad.name} failed" in lines["child"]
    assert len(Store(tmp_path).attempts(bad)) == 1, "an exception in our code is not tried again"
    until(lambda: not queued(cluster, "PD,R"))


def test_a_refused_request_is_one_line_that_names_where_to_look(cluster, tmp_path):
    outcome = drive(Graph([Job("nothing", {})]), tmp_path, partition="nowhere")
    assert outcome.exit_code == 1
    assert "invalid partition" in outcome.notes[0] and "dispatch" in outcome.notes[0]


def test_a_job_that_never_begins_says_so_and_why(cluster, tmp_path):
    job = Job("nothing", {})
    outcome = drive(Graph([job]), tmp_path, setup=("echo no such module >&2; exit 3",))
    assert outcome.statuses[job.key].state is State.FAILED
    assert "failed before it began: no such module" in str(outcome.problems[0])


def test_queued_jobs_run_the_code_they_were_submitted_with(cluster, tmp_path):
    checkout, results = tmp_path / "checkout", tmp_path / "results"
    slurm_submission.copy_code(checkout)
    (checkout / "models" / "marker.py").write_text("VERSION = 1\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from harness.jobs import Graph, Job; from tests.cluster import conftest\n"
        f"conftest.drive(Graph([Job('code', {{}})]), Path({str(results)!r}), detach=True, sbatch={{'hold': True}})"
    )
    environment = {**os.environ, "PYTHONPATH": f"{checkout}:{REPOSITORY}"}
    subprocess.run([sys.executable, "-c", program], cwd=checkout, env=environment, check=True, timeout=240)
    (checkout / "models" / "marker.py").write_text("VERSION = 2\n")
    job = Job("code", {})
    cluster.run("scontrol", "release", leases.leases(Store(results))[0].owner.scheduler_id)
    until(lambda: Store(results).is_done(job))
    assert result(results, job) == "1"


def test_several_processes_join_as_ranks_of_one_job_and_see_all_its_gpus(cluster, tmp_path):
    job = Job("ranks", {})
    needs = Resources(processes=2, gpus=2, memory_gb=0.5, minutes=10)
    assert drive(Graph([job]), tmp_path, resources=lambda kind: needs).complete
    words = [json.loads((Store(tmp_path).outputs(job) / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [word["RANK"] for word in words] == ["0", "1"] and {word["WORLD_SIZE"] for word in words} == {"2"}
    assert {word["CUDA_VISIBLE_DEVICES"] for word in words} == {"0,1"}
    assert len({(word["MASTER_ADDR"], word["MASTER_PORT"]) for word in words}) == 1
    assert len(Store(tmp_path).attempts(job)) == 1


def test_a_rank_that_fails_ends_the_job_and_its_own_words_are_the_reason(cluster, tmp_path):
    job = Job("ranks", {"fails": 1})
    needs = Resources(processes=2, memory_gb=0.5, minutes=10)
    outcome = drive(Graph([job]), tmp_path, resources=lambda kind: needs)
    (attempt,) = Store(tmp_path).attempts(job)
    assert (attempt.failure.cause, attempt.failure.message) == ("code", "rank 1: a rank breaks")
    assert "rank 1: a rank breaks" in outcome.statuses[job.key].reason
    assert "ZeroDivisionError" in attempt.failure.traceback.read_text()
    until(lambda: not queued(cluster, "PD,R"))


def test_the_tasks_of_an_evaluation_share_its_attempt_and_nothing_else(cluster, tmp_path):
    job = Job("evaluate", {})
    needs = Resources(processes=3, memory_gb=1, minutes=10)
    assert drive(Graph([job]), tmp_path, resources=lambda kind: needs, plugins=[BUNDLES]).complete
    assert json.loads(result(tmp_path, job)) == [f"{rank} of 3, WORLD_SIZE None" for rank in (1, 2)]
    assert len(Store(tmp_path).attempts(job)) == 1


def test_evaluations_of_one_checkpoint_share_a_process_and_one_that_fails_does_not_take_the_others_along(
    cluster, tmp_path
):
    checkpoint, before = counting(1), known_ids(cluster)
    jobs = [Job("evaluate", {"i": i, "fails": i == 1}, {"checkpoint": checkpoint}, f"evaluate{i}") for i in range(4)]
    needs = Resources(memory_gb=0.3, minutes=10, bundle=3)
    outcome = drive(Graph(jobs), tmp_path, resources=lambda kind: needs, plugins=[BUNDLES])
    assert [outcome.statuses[job.key].state for job in jobs] == ["done", "failed", "done", "done"]
    words = [json.loads(result(tmp_path, jobs[i])) for i in (0, 2, 3)]
    assert sorted(word["asked"] for word in words) in ([1, 1, 2], [1, 1, 3], [1, 2, 3])
    assert len({word["process"] for word in words}) == 2
    assert len(known_ids(cluster) - before) == 3, "the checkpoint, a bundle of three, one of one"
    assert [len(Store(tmp_path).attempts(job)) for job in jobs] == [1, 1, 1, 1]


def test_two_drivers_at_once_submit_every_job_once(cluster, tmp_path):
    graph, before = graphs.diamond(steps=5), known_ids(cluster)
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.cluster import conftest; from tests.harness.dispatch import graphs\n"
        f"sys.exit(conftest.drive(graphs.diamond(steps=5), Path({str(tmp_path)!r})).exit_code)"
    )
    drivers = [subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY) for _ in range(2)]
    assert [driver.wait(240) for driver in drivers] == [0, 0]
    assert len(known_ids(cluster) - before) == len(graph)
    assert all(len(Store(tmp_path).attempts(job)) == 1 for job in graph)


def test_a_job_cancelled_by_hand_stays_cancelled_until_somebody_asks_again(cluster, tmp_path):
    job = counting(40)
    child = Job("digest", {}, {"x": job}, "child")
    other = counting(3, name="other")
    driver = background(Graph([child, other]), tmp_path)
    until(lambda: step(tmp_path, job) >= 1)
    cluster.run("scancel", scheduler_id(tmp_path, job))
    outcome = driver.end()
    assert outcome.statuses[other.key].state is State.DONE
    assert "cancelled in the scheduler" in outcome.statuses[job.key].reason
    assert outcome.statuses[child.key].state is State.BLOCKED
    assert Store(tmp_path).resume_point(job) is not None, "the signal left a checkpoint"

    assert drive(Graph([child]), tmp_path).complete
    assert json.loads(result(tmp_path, job)) == expected(job)
    assert "resumed at step" in Store(tmp_path).winner(job).log.read_text()


def test_a_waiting_job_cancelled_by_hand_is_not_submitted_again_by_the_same_driver(cluster, tmp_path):
    job = Job("nothing", {})
    driver = background(Graph([job]), tmp_path, sbatch={"hold": True})
    lease = until(lambda: next((found for found in leases.leases(Store(tmp_path)) if found.owner.scheduler_id), None))
    cluster.run("scancel", lease.owner.scheduler_id)
    assert "cancelled in the scheduler" in driver.end().statuses[job.key].reason


def test_cancel_takes_a_graph_out_of_the_queue(cluster, tmp_path):
    job = counting(100)
    child = Job("digest", {}, {"x": job}, "child")
    drive(Graph([child]), tmp_path, detach=True)
    id_ = scheduler_id(tmp_path, job)
    store = Store(tmp_path, {"slurm": SlurmQueue().alive})
    assert sorted(watch.cancel(store, [job.key, child.key])) == sorted([job.key, child.key])
    until(lambda: entry(cluster, id_)[1] == "CANCELLED")
    until(lambda: {State.INTERRUPTED, State.MISSING} == {store.state(job), store.state(child)})
