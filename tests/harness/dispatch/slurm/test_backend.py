"""What the SLURM driver does with refusals, endings, leases and submissions, with a scheduler that only pretends."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from submitit.core.utils import FailedJobError
from submitit.slurm import slurm as submitit_slurm

from harness.dispatch.driver.backend import GraphRun
from harness.dispatch.driver.loop import Driver
from harness.dispatch.driver.progress import Silent
from harness.dispatch.driver.retry import Retries
from harness.dispatch.slurm import submission as slurm_submission
from harness.dispatch.slurm import watch as slurm_watch
from harness.dispatch.slurm.backend import SlurmBackend
from harness.dispatch.slurm.limits import Backoff, later, limits_of, no_more, scale_of
from harness.dispatch.slurm.queue import SchedulerSilent, SlurmQueue, why
from harness.dispatch.slurm.request import Limits, Scale, parameters
from harness.dispatch.slurm.task import Assignment, NotDone, join_processes, perform
from harness.jobs import Graph, Job
from harness.spec import SpecError
from harness.spec.errors import validate
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import Owner, State, Store, leases
from harness.worker import provenance
from tests.harness.dispatch import kinds  # noqa: F401 - its kinds have versions

NEEDS = Resources(memory_gb=4, minutes=60)
DEAD = replace(Owner.here(), start_time=1)
ELSEWHERE = Owner(host="login2", boot="other boot", pid=7, start_time=1)
PARTITIONS = (
    "PartitionName=short Default=NO MaxTime=01:30:00 MaxMemPerNode=UNLIMITED State=UP\n"
    "PartitionName=main Default=YES MaxTime=2-00:00:00 MaxMemPerNode=6144 State=UP\n"
    "PartitionName=free Default=NO MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP\n"
)
POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@dataclass
class Cluster:
    """lines: of squeue. refusal: what sbatch answers, if it refuses. requests: (keywords, environment, elements)."""

    lines: list[str] = field(default_factory=list)
    refusal: str = ""
    requests: list[tuple[dict[str, Any], dict[str, str], int]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def __call__(self, words: list[str]) -> str:
        if words[0] == "squeue":
            return "\n".join(self.lines)
        if words[0] == "sacct":
            raise SchedulerSilent("no accounting")
        self.commands.append(words)
        return PARTITIONS if words[:3] == ["scontrol", "show", "partition"] else ""

    def executor(self, folder: Path) -> Any:
        chosen: dict[str, Any] = {}

        def map_array(function: Any, tasks: list[Any]) -> list[Any]:
            self.requests.append((chosen, dict(os.environ), len(tasks)))
            if self.refusal:
                raise FailedJobError(f"sbatch: error: {self.refusal}")
            id_, paths = len(self.requests) * 10, SimpleNamespace(stdout=Path(folder) / "log")
            self.lines += [f"{id_}_{i}|PENDING|0|Priority|{chosen['job_name']}|" for i in range(len(tasks))]
            return [SimpleNamespace(job_id=f"{id_}_{i}", paths=paths) for i in range(len(tasks))]

        return SimpleNamespace(update_parameters=chosen.update, map_array=map_array)


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(submitit_slurm, "SlurmExecutor", cluster.executor)
    monkeypatch.setattr(slurm_submission, "copy_code", lambda target: target.mkdir())
    return cluster


def driver_of(cluster: Cluster, root: Path, *jobs: Job, needs: Resources = NEEDS, **options: Any) -> SlurmBackend:
    queue = SlurmQueue(cluster, poll_seconds=0.0, settle_seconds=0.0)
    dispatch = SlurmDispatch(**options)
    said: list[str] = []
    run = GraphRun(
        Graph(list(jobs)), Store(root), resources=lambda kind: needs, forecast=None, plugins=(), say=said.append
    )
    return SlurmBackend(run, dispatch, queue)


def said(backend: SlurmBackend) -> list[str]:
    """What the person was told."""
    return backend.run.say.__self__  # type: ignore[attr-defined]


def tend(driver: SlurmBackend) -> None:
    driver.begin(driver.look())


def job_of(name: str = "a") -> Job:
    return Job("count", {"steps": 1, "name": name}, slug=name)


def failed(store: Store, job: Job, cause: str, **resources: float) -> None:
    """An attempt that ran out of what it had."""
    store.ensure(job)
    store.begin_attempt(job, owner=DEAD, resources=resources).fail(cause, cause, f"no more {cause}")


def put(store: Store, job: Job, owner: Owner, plan: str = ".slurm/s", **facts: Any) -> leases.Lease:
    store.ensure(job)
    return leases.write(store, leases.Lease(f"s-{job.slug}", owner, None, plan, (job.key,), **facts))


def slurm_owner(id_: str, name: str = "vr-s-count") -> Owner:
    return Owner(scheduler="slurm", scheduler_id=id_, scheduler_name=name)


# Larger requests


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


# Refusals


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


# Endings


@pytest.mark.parametrize(
    ("last", "cause", "begun"),
    [
        ("loading\nsrun: error: n1: task 0: User defined signal 2\n", "", "stopped before it began: User defined"),
        (
            "slurm_script: line 20: 99 Terminated   srun --unbuffered python\n",
            "",
            "stopped before it began: Terminated",
        ),
        ("Terminated workers are restarted\nModuleNotFoundError: x\n", "code", "failed before it began"),
        (
            "srun: error: n1: task 1: Exited with exit code 1\nsrun: error: n1: task 0: Terminated\n",
            "code",
            "failed before it began",
        ),
    ],
)
def test_a_signal_before_python_can_catch_it_is_an_interruption(last, cause, begun):
    found = why("FAILED", last, begun=False, any_begun=False)
    assert found[0] == cause and begun in found[2]


def test_a_job_that_never_began_leaves_the_end_of_its_log_and_is_not_tried_for_ever(cluster, tmp_path):
    job, log = job_of(), tmp_path / "log"
    driver = driver_of(cluster, tmp_path / "store", job)
    log.write_text("importing\nsrun: error: n1: task 0: User defined signal 2\n")
    cluster.lines = ["7|FAILED|0|NonZeroExitCode|vr-s-count|"]
    driver.run.retries.grant(job, driver.store.status(job))
    for i in range(1, 4):
        lease = put(driver.store, job, slurm_owner("7"), log=str(log))
        leases.drop(driver.store, lease.id)
        leases.write(driver.store, replace(lease, id=f"s-{i}"))
        status = driver.look()[job.key]
        driver.run.retries.grant(job, status)
        assert status.state is State.INTERRUPTED and status.attempt.number == i
        assert status.attempt.log.read_text() == log.read_text()
    assert "interrupted 3 times without progress" in driver.run.retries.given_up(job)


OOM_LOG = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0. Some of your processes may have been killed\n"


@pytest.mark.parametrize(
    ("state", "log", "cause"),
    [
        ("OUT_OF_MEMORY", "", "memory"),
        ("FAILED", OOM_LOG, "memory"),
        ("FAILED", "RuntimeError: CUDA out of memory, says a library that gave up later\n", "code"),
        ("COMPLETED", OOM_LOG, "code"),
    ],
)
def test_a_lost_connection_is_no_error_of_ours_where_the_scheduler_killed_the_other_process_for_memory(cluster, tmp_path, state, log, cause):
    job = job_of()
    driver, path = driver_of(cluster, tmp_path / "store", job), tmp_path / "log"
    path.write_text(log)
    driver.run.retries.grant(job, driver.store.status(job))
    lease = put(driver.store, job, slurm_owner("7"), log=str(path), current=job.key)
    cluster.lines = ["7|RUNNING|0|None|vr-s-count|"]
    attempt = driver.store.begin_attempt(job, owner=slurm_owner("7"), lease=lease.id)
    attempt.fail("code", "RuntimeError", "rank 1: connection reset by peer", "Traceback: reset", 8)
    assert driver.run.retries.grant(job, driver.look()[job.key]) == 0, "the scheduler has not said yet how it ended"
    cluster.lines = [f"7|{state}|0|None|vr-s-count|"]
    status = driver.look()[job.key]
    assert status.attempt.failure.cause == cause and "connection reset by peer" in status.reason
    assert status.attempt.failure.traceback.read_text() == "Traceback: reset"
    assert (driver.run.retries.grant(job, status) == 2) == (cause == "memory"), "again, with more memory"


@pytest.mark.parametrize(("processes", "left"), [(1, 0), (2, 1)])
def test_an_error_in_one_of_several_processes_waits_for_the_schedulers_word(tmp_path, monkeypatch, processes, left):
    store, job = Store(tmp_path), Job("raise", {}, slug="raise")
    lease = put(store, job, slurm_owner("7"))
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": str(processes), "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    folder = str(store.folder(job).relative_to(store.root))
    with pytest.raises(NotDone, match="divides by zero"):
        perform(Assignment(str(store.root), (folder,), lease.id, "s", NEEDS.model_dump(), processes=processes))
    kept = leases.read(store, lease.id)
    assert (kept.remaining if kept else ()) == (job.key,) * left


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


def test_ranks_join_by_their_own_job_whatever_they_inherited(monkeypatch):
    told: list[dict[str, Any]] = []
    environment = SimpleNamespace(export=lambda **options: told.append(options))
    monkeypatch.setattr("submitit.helpers.TorchDistributedEnvironment", lambda: environment)
    join_processes()
    assert told == [{"set_cuda_visible_devices": False, "overwrite": True}]


# Submissions


def test_a_live_drivers_code_stays_between_two_of_its_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_submission, "copy_code", lambda target: target.mkdir())
    store = Store(tmp_path)
    made = [slurm_submission.Submission.create(store, driver=o.record()) for o in (Owner.here(), ELSEWHERE, DEAD)]
    torn = slurm_submission.home(store) / "torn"
    torn.mkdir()
    assert slurm_submission.clear(store, []) == [], "all are young"
    monkeypatch.setattr(slurm_submission, "YOUNG_SECONDS", -1.0)
    assert set(slurm_submission.clear(store, [])) == {made[2].id, "torn"}
    assert made[0].code.is_dir() and made[1].code.is_dir()


def test_the_recorded_code_is_that_of_the_first_request(cluster, tmp_path, monkeypatch):
    driver = driver_of(cluster, tmp_path, job_of())
    answers = {"--show-toplevel": lambda root: os.fsencode(root)}
    monkeypatch.setattr(provenance, "_git", lambda root, *words: answers.get(words[-1], lambda root: b"edited since")(root))
    try:
        assert driver._submission().code.is_dir()
        assert driver.provenance["commit"] == "edited since"
    finally:
        provenance.code.cache_clear()


# The profile's own options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"job-name": "mine"}, ("job-name", "leave it out")),
        ({"--array": "0-3"}, ("--array",)),
        ({"ntasks_per_node": 2}, ("ntasks_per_node", "resources.KIND.processes")),
        ({"time": 60}, ("time", "resources.KIND.minutes")),
        ({"mem": "4GB"}, ("mem", "resources.KIND.memory_gb")),
        ({"export": "NONE"}, ("export", "dispatch.setup")),
        ({"signal": "B:USR2@59"}, ("signal B:USR2@59", "USR2@SECONDS")),
        ({"signal": "USR1@59"}, ("USR2@SECONDS",)),
        ({"dependency": "afterok:1?afterok:2"}, ("commas",)),
    ],
)
def test_options_that_the_driver_relies_on_are_refused_with_the_remedy(options, words):
    with pytest.raises(SpecError) as raised:
        validate(SlurmDispatch, {"sbatch": options}, lambda path, text: ".".join(map(str, path)))
    text = str(raised.value)
    assert text.startswith("sbatch") and "\n" not in text and all(word in text for word in words)


def test_other_options_are_the_users_and_a_dependency_is_one_more():
    free = {
        "hold": True,
        "comment": "x",
        "nodelist": "n1",
        "signal": "USR2@59",
        "mail_type": "END",
        "gres": "gpu:a800:8",
    }
    assert parameters(NEEDS, SlurmDispatch(sbatch=free), "n")["additional_parameters"].items() >= {
        ("hold", True), ("signal", "USR2@59"), ("mail-type", "END"), ("gres", "gpu:a800:8"),
    }  # fmt: skip
    own = SlurmDispatch(sbatch={"dependency": "afterok:9"})
    assert parameters(NEEDS, own, "n")["dependency"] == "afterok:9"
    both = parameters(NEEDS, own, "n", parents=("3_0", "3_1"))
    assert both["dependency"] == "afterok:9,afterok:3_0:3_1" and "dependency" not in both["additional_parameters"]
    assert "dependency" not in parameters(NEEDS, SlurmDispatch(), "n")
