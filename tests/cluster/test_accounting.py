"""The same with accounting: jobs that squeue has forgotten are still known to sacct."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.dispatch.slurm.queue import Phase
from harness.jobs import Graph, Job
from harness.store import State, Store, leases
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import background, counting, drive, quick_queue, scheduler_id, start, step, until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    before = dict(os.environ)
    yield from start(tmp_path_factory.mktemp("slurm"), nodes=2, accounting=True, prefix="an")
    os.environ.update({name: before[name] for name in ("SLURM_CONF",) if name in before})


def test_a_graph_runs_and_a_job_that_squeue_forgot_is_looked_up_in_the_accounts(accounted, tmp_path):
    bad, good = Job("raise", {}, slug="bad"), Job("nothing", {})
    queue = quick_queue(lost_seconds=3600)
    outcome = drive(Graph([bad, good]), tmp_path, queue=queue)
    assert [outcome.statuses[job.key].state for job in (bad, good)] == [State.FAILED, State.DONE]
    owner = Store(tmp_path).attempts(bad)[0].owner
    told = f"{owner.scheduler_name}|FAILED"  # the name comes some seconds late; a controller that stops earlier takes it along
    words = ("sacct", "-X", "-n", "-P", "-o", "JobName,State", "-j", owner.scheduler_id)
    until(lambda: told in accounted.run(*words, check=False))
    accounted.stop_controller()
    accounted.start_controller(forget=True)
    accounted.wait_for_nodes()

    def standing():
        queue.look()
        return queue.standing(owner.scheduler_id, owner.scheduler_name)

    until(lambda: standing().phase is Phase.ENDED)
    assert standing().state == "FAILED"
    assert queue.standing(owner.scheduler_id, "vr-somebody-else").phase is not Phase.ENDED


def test_a_job_cancelled_while_the_scheduler_forgot_it_is_read_from_the_accounts(accounted, tmp_path):
    job = counting(100, gate=str(tmp_path / "gate"))  # at work until it is cancelled
    driver = background(Graph([job]), tmp_path, queue=quick_queue(lost_seconds=60, settle_seconds=15))
    until(lambda: step(tmp_path, job) >= 2)
    id_ = scheduler_id(tmp_path, job)
    words = ("sacct", "-X", "-n", "-P", "-o", "JobName,State", "-j", id_)
    # the accounts learn of a job some seconds late; of one that ended before that they never learn the name
    until(lambda: accounted.run(*words, check=False).startswith("vr-"))
    accounted.run("scancel", id_)
    until(lambda: "|CANCELLED" in accounted.run(*words, check=False))  # a controller that stops earlier takes it along
    until(lambda: Store(tmp_path).attempts(job)[0].failure)  # the job says so itself, perhaps after the accounts did
    accounted.stop_controller()
    accounted.start_controller(forget=True)
    accounted.wait_for_nodes()
    assert "cancelled in the scheduler" in driver.end().statuses[job.key].reason
    assert not leases.leases(Store(tmp_path))
