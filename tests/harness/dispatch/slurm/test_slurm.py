"""The SLURM backend without a cluster: how a scheduler's words are read, what is asked of it, what it may decide."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.dispatch.slurm import submission as slurm_submission
from harness.dispatch.slurm.queue import Phase, SchedulerSilent, SlurmQueue, cancel, compressed, expand, why
from harness.dispatch.slurm.request import Scale, parameters, sbatch_words, setup_lines, signal_seconds, stop_lead
from harness.dispatch.slurm.task import others, seconds_of, what_next
from harness.spec.profile import Resources, SlurmDispatch
from harness.store import Owner, Store, leases


class Scheduler:
    """Says what it is told to, at a clock that tests move."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.past: list[str] | None = None
        self.down = False
        self.now = 1000.0

    def __call__(self, words: list[str]) -> str:
        if self.down or (words[0] == "sacct" and self.past is None):
            raise SchedulerSilent(f"{words[0]}: no answer")
        return "\n".join(self.lines if words[0] == "squeue" else self.past or [])


@pytest.fixture
def scheduler():
    return Scheduler()


@pytest.fixture
def queue(scheduler):
    return SlurmQueue(command=scheduler, clock=lambda: scheduler.now, poll_seconds=0.0)


def at(queue, scheduler, seconds: float, id_: str = "7_1", name: str = "vr-a-train"):
    """Where the job stands so many seconds later."""
    scheduler.now += seconds
    queue.look(force=True)
    return queue.standing(id_, name)


def test_one_call_answers_for_all_jobs_and_is_good_for_a_while(scheduler):
    queue = SlurmQueue(command=scheduler, clock=lambda: scheduler.now, poll_seconds=2.0)
    scheduler.lines = [f"{i}|RUNNING|0|None|vr-a-train|" for i in range(1000)]
    for i in range(1000):
        assert queue.alive(Owner(scheduler="slurm", scheduler_id=str(i), scheduler_name="vr-a-train"))
    assert queue.calls == {"squeue": 1}
    scheduler.now += 2
    queue.look()
    assert queue.calls == {"squeue": 2}


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("PENDING", Phase.WAITING),
        ("REQUEUED", Phase.WAITING),
        ("REQUEUE_HOLD", Phase.WAITING),
        ("RUNNING", Phase.RUNNING),
        ("COMPLETING", Phase.RUNNING),
        ("SUSPENDED", Phase.RUNNING),
        ("CONFIGURING", Phase.RUNNING),
        ("COMPLETED", Phase.ENDED),
        ("FAILED", Phase.ENDED),
        ("CANCELLED", Phase.ENDED),
        ("TIMEOUT", Phase.ENDED),
        ("OUT_OF_MEMORY", Phase.ENDED),
        ("NODE_FAIL", Phase.RUNNING),
        ("PREEMPTED", Phase.RUNNING),
    ],
)
def test_every_state_has_a_phase_and_ends_count_once_files_may_be_visible(scheduler, queue, state, phase):
    scheduler.lines = [f"7_1|{state}|0|None|vr-a-train|"]
    assert at(queue, scheduler, 0).phase is (Phase.RUNNING if phase is Phase.ENDED else phase)
    assert at(queue, scheduler, 5).phase is phase


def test_a_job_that_its_node_could_not_start_is_told_from_one_that_a_person_holds(scheduler, queue):
    scheduler.lines = ["7_1|PENDING|0|launch failed requeued held|vr-a-train|"]
    standing = at(queue, scheduler, 0)
    assert standing.launch_failed and "scontrol release" in standing.reason
    scheduler.lines = ["7_1|PENDING|0|JobHeldUser|vr-a-train|"]
    assert not at(queue, scheduler, 5).launch_failed


def test_node_fail_is_believed_only_when_it_stays(scheduler, queue):
    scheduler.lines = ["7_1|NODE_FAIL|0|None|vr-a-train|"]
    assert at(queue, scheduler, 0).phase is at(queue, scheduler, 20).phase is Phase.RUNNING
    scheduler.lines = ["7_1|PENDING|1|BeginTime|vr-a-train|"]
    assert at(queue, scheduler, 1).phase is Phase.WAITING
    scheduler.lines = ["7_1|NODE_FAIL|1|None|vr-a-train|"]
    assert at(queue, scheduler, 60).phase is Phase.RUNNING, "a second failure has its own patience"
    assert at(queue, scheduler, 31).phase is Phase.ENDED


def test_a_silent_scheduler_says_nothing_about_any_job(scheduler, queue):
    assert queue.standing("7_1", "vr-a-train").phase is Phase.UNKNOWN, "nobody has looked yet"
    scheduler.lines = ["7_1|RUNNING|0|None|vr-a-train|"]
    at(queue, scheduler, 0)
    scheduler.down = True
    assert at(queue, scheduler, 3600).phase is Phase.UNKNOWN
    assert queue.alive(Owner(scheduler="slurm", scheduler_id="7_1", scheduler_name="vr-a-train")) is None
    assert queue.silent_since == 4600
    scheduler.down = False
    assert at(queue, scheduler, 1).phase is Phase.RUNNING and queue.silent_since is None


def test_a_command_that_hangs_does_not_hold_up_the_driver(scheduler):
    go = threading.Event()

    def hangs(words):
        go.wait(10)
        return "7_1|RUNNING|0|None|vr-a-train|"

    queue = SlurmQueue(command=hangs, poll_seconds=0.0, patience_seconds=0.05)
    queue.look()
    assert queue.standing("7_1", "vr-a-train").phase is Phase.UNKNOWN
    queue.look()
    assert queue.calls == {"squeue": 1}, "a second call would only pile up"
    go.set()
    queue.patience_seconds = 5.0
    queue._pending._thread.join()
    queue.look()
    assert queue.standing("7_1", "vr-a-train").phase is Phase.RUNNING


def test_an_id_under_another_name_is_another_job(scheduler, queue):
    scheduler.lines = ["7_1|RUNNING|0|None|vr-b-train|"]
    assert at(queue, scheduler, 0).phase is Phase.RUNNING, "not lost at once"
    assert at(queue, scheduler, 31).phase is Phase.LOST
    assert at(queue, scheduler, 0, name="vr-b-train").phase is Phase.RUNNING


def test_accounting_is_asked_once_for_all_forgotten_jobs_and_remembered(scheduler, queue):
    scheduler.past = ["7_[1-3]|CANCELLED by 0|vr-a-train", "8|FAILED|vr-other", "9|FAILED|vr-a-train"]
    for id_ in ("7_1", "7_3", "8", "9"):
        at(queue, scheduler, 0, id_)
    scheduler.now += 6
    queue.look(force=True)
    calls = queue.calls["sacct"]
    standings = {id_: at(queue, scheduler, 31, id_) for id_ in ("7_1", "7_3", "9")}
    assert {standing.state for standing in standings.values()} == {"CANCELLED", "FAILED"}
    assert at(queue, scheduler, 40, "8").phase is Phase.LOST, "the 8 that accounting knows has another name"
    assert queue.calls["sacct"] <= calls + 6


def test_a_cluster_without_accounting_is_asked_for_it_rarely(scheduler, queue):
    for _ in range(100):
        at(queue, scheduler, 1)
    assert queue.calls["sacct"] == 1


def test_a_process_of_an_earlier_start_of_a_job_is_gone(scheduler, queue):
    scheduler.lines = ["7_1|RUNNING|2|None|vr-a-train|"]
    queue.look(force=True)
    job = {"scheduler": "slurm", "scheduler_id": "7_1", "scheduler_name": "vr-a-train"}
    assert queue.alive(Owner(host="n1", pid=5, restart=1, **job)) is False
    assert queue.alive(Owner(host="n1", pid=5, restart=2, **job)) is True
    assert queue.alive(Owner(**job)) is True, "the job as such"


def test_a_job_sees_its_own_earlier_start_as_gone_and_its_later_one_as_there(queue):
    job = {"host": "n1", "pid": 5, "scheduler": "slurm", "scheduler_id": "7", "scheduler_name": "x"}
    assert others(Owner(restart=0, **job), Owner(restart=1, **job), queue) is False
    assert others(Owner(restart=2, **job), Owner(restart=1, **job), queue) is True


def test_a_stuck_job_says_why_in_words(scheduler, queue):
    scheduler.lines = ["7_1|PENDING|0|PartitionTimeLimit|vr-a-train|", "8|PENDING|0|Priority|vr-a-train|"]
    assert at(queue, scheduler, 0).reason == "asks for more time than the partition allows"
    assert at(queue, scheduler, 0, "8").reason == ""


def test_array_ids_are_read_and_written_in_ranges():
    assert expand("12_[3-5,8%2]") == ["12_3", "12_4", "12_5", "12_8"]
    assert expand("12_4") == ["12_4"] and expand("12") == ["12"]
    assert compressed(["12_0", "12_3", "15"]) == ["12_[0,3]", "15"]
    asked: list[list[str]] = []
    cancel((f"12_{i}" for i in range(1200)), command=lambda words: asked.append(words) or "")
    assert len(asked) == 3


# Requests

PAPER = Resources(cpus=12, gpus=8, processes=8, memory_gb=800, minutes=2880, deepspeed="zero3")


def test_the_papers_training_asks_for_one_node_with_a_task_for_each_gpu():
    dispatch = SlurmDispatch(partition="a800", account="lab", qos="long", constraint="ib", sbatch={"mail_type": "END"})
    words = sbatch_words(PAPER, dispatch, "train")
    for word in (
        "--job-name=train", "--partition=a800", "--account=lab", "--qos=long", "--constraint=ib", "--nodes=1",
        "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=12", "--mem=800GB", "--time=2880",
        "--signal=USR2@600", "--kill-on-invalid-dep=yes", "--requeue", "--mail-type=END",
    ):  # fmt: skip
        assert word in words


def test_an_evaluation_by_several_processes_asks_for_a_task_and_a_gpu_for_each():
    needs = Resources(cpus=4, gpus=4, processes=4, memory_gb=200, minutes=60)
    words = sbatch_words(needs, SlurmDispatch(), "evaluate")
    assert {"--nodes=1", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=4", "--mem=200GB"} <= set(words)


def test_submitit_accepts_every_request():
    from submitit.slurm.slurm import _make_sbatch_string

    dispatch = SlurmDispatch(partition="p", throttle=3, sbatch={"signal": "USR2@30", "no-requeue": True, "hold": False})
    chosen = parameters(PAPER, dispatch, "n", Scale(memory=2, minutes=2))
    text = _make_sbatch_string(command="true", folder="f", map_count=9, **chosen)
    assert "--array=0-8%3" in text and "--time=5760" in text and "--mem=1600GB" in text
    assert "--signal=USR2@30" in text and "hold" not in text and "srun" in text and "--kill-on-bad-exit=1" in text


def test_the_order_to_stop_comes_early_enough_for_a_checkpoint():
    assert [signal_seconds(minutes) for minutes in (1, 60, 2880)] == [30, 180, 600]
    assert stop_lead(SlurmDispatch(), 60) == 180
    assert stop_lead(SlurmDispatch(sbatch={"signal": "USR2@45"}), 60) == 45


def test_jobs_look_for_our_packages_in_their_snapshot_first():
    lines = setup_lines(SlurmDispatch(setup=("module load cuda",)), Path("/s/code"), 4, {"PYTHONPATH": "/mine"})
    assert lines[0] == "module load cuda"
    assert any(line.startswith("export PYTHONPATH=/s/code:/mine:") for line in lines)
    assert "export PYTHONSAFEPATH=1" in lines and "export OMP_NUM_THREADS=4" in lines


# Decisions

RUNNING = {"JobState": "RUNNING", "PreemptTime": "None", "RunTime": "00:10:00", "TimeLimit": "01:00:00"}
ENDING = {**RUNNING, "RunTime": "00:57:00"}


@pytest.mark.parametrize(
    ("signal", "facts", "progressed", "what"),
    [
        ("SIGUSR2", ENDING, True, "requeue"),
        ("SIGUSR2", ENDING, False, "timeout"),
        ("SIGUSR2", RUNNING, False, "requeue"),
        ("SIGUSR2", {**ENDING, "PreemptTime": "2026-01-01T00:00:00"}, False, "requeue"),
        ("SIGTERM", {**RUNNING, "PreemptTime": "2026-01-01T00:00:00"}, False, "requeue"),
        ("SIGTERM", {**RUNNING, "JobState": "CANCELLED"}, True, "leave"),
        ("SIGTERM", {**RUNNING, "JobState": "COMPLETING"}, True, "leave"),
        ("SIGTERM", {**RUNNING, "JobState": "PREEMPTED"}, True, "leave"),
        ("SIGTERM", {}, True, "requeue"),
    ],
)
def test_a_stopped_job_queues_again_only_where_the_scheduler_would_not(signal, facts, progressed, what):
    assert what_next(signal, facts, progressed, stop_lead=180) == what


def test_slurm_times_are_read():
    assert seconds_of("2-03:04:05") == 2 * 86400 + 3 * 3600 + 4 * 60 + 5
    assert seconds_of("10-00:00:00") == 864000 and seconds_of("00:01:30") == 90
    assert seconds_of("UNLIMITED") is None and seconds_of(None) is None


def test_a_job_that_ended_without_a_word_is_explained_by_the_scheduler_or_its_log():
    def cause(state, last="", begun=True, any_begun=True):
        return why(state, last, begun=begun, any_begun=any_begun)[0]

    assert cause("OUT_OF_MEMORY") == "memory"
    assert cause("FAILED", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.0") == "memory"
    assert cause("TIMEOUT") == "timeout"
    assert cause("FAILED") == cause("NODE_FAIL") == cause("COMPLETED", begun=False, any_begun=False) == ""
    assert cause("OUT_OF_MEMORY", begun=False) == "", "another job of its bundle was killed"
    text = why("FAILED", "ModuleNotFoundError: no module named x\n", begun=False, any_begun=False)
    assert text[0] == "code" and text[2].endswith("no module named x")
    refused = why("FAILED", "OSError: [Errno 28] No space left on device\n", begun=False, any_begun=False)
    silent = why("FAILED", "", begun=False, any_begun=False)
    assert refused[0] == silent[0] == "storage", "the disk may be writable again later"
    assert refused[2].endswith("No space left on device") and "its log could not be written" in silent[2]


# Submissions


def test_a_submission_holds_the_code_and_goes_with_its_last_lease(tmp_path, monkeypatch):
    store = Store(tmp_path)
    submission = slurm_submission.Submission.create(store, code={"commit": "c"})
    assert (submission.code / "harness" / "jobs.py").exists() and (submission.code / "models" / "config.py").exists()
    assert not list(submission.code.rglob("*.safetensors"))
    assert slurm_submission.clear(store, []) == [], "its driver may not have written its leases yet"
    monkeypatch.setattr(slurm_submission, "YOUNG_SECONDS", 0.0)
    lease = leases.Lease("a", Owner(), None, f".slurm/{submission.id}", ("k",))
    assert slurm_submission.clear(store, [lease]) == []
    assert slurm_submission.clear(store, []) == [submission.id] and not submission.folder.exists()
