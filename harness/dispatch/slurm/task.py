"""What runs inside a SLURM job: jobs of the graph, from claim to DONE.json, and what to do when it is told to stop.

Every rank of a multi-process job runs `perform`. Rank 0 owns the attempt; the others wait for its message and only
compute. A scheduler may start the same job twice, so nothing here relies on being alone: the store decides.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.dispatch.slurm.queue import SchedulerSilent, SlurmQueue, run_command
from harness.kinds import kind_of
from harness.store import AlreadyDone, Attempt, Held, Owner, Record, Store, StoreError, files, leases
from harness.worker.attempt import AttemptRun, Context, Ending, Stop, resolve_inputs, run_attempt
from harness.worker.causes import cause_of, one_line
from harness.worker.orders import Order
from harness.worker.process import Worker, catch_stop_signals
from models.run import Interrupted

HELD_LOOK_SECONDS = 1.0
DISK_SECONDS = 60.0
"""How long a job retries its claim when the store cannot be written."""


class NotDone(RuntimeError):
    """Ends the scheduler's job with an error, so that jobs that need its result do not start."""


@dataclass(frozen=True)
class Assignment:
    """root: of the store. folders: of the jobs, from there, done in turn. lease: its id. code: provenance of the
    submitted code.

    parent_seconds: how long a parent's result may take to become visible here after the parent's end.
    """

    root: str
    folders: tuple[str, ...]
    lease: str
    submission: str
    settings: Mapping[str, Any]
    plugins: tuple[str, ...] = ()
    code: Mapping[str, Any] | None = None
    processes: int = 1
    parent_seconds: float = 30.0


def perform(task: Assignment) -> str:
    """How the jobs ended. Raises NotDone when a result is not there."""
    stop = catch_stop_signals()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for module in task.plugins:
        importlib.import_module(module)
    me = Owner.here()
    store = Store(task.root, {"slurm": lambda owner: others(owner, me, queue)})
    queue = SlurmQueue(poll_seconds=20)
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    records = [Record.read(store.root / folder) for folder in task.folders]
    if task.processes > 1 and kind_of(records[0].kind).processes == "ranks":  # in a group, lmms-eval would join shards
        join_processes()
    if rank:
        return follow(store, task, stop, rank)
    noted(lambda: report(store, task, me))
    kept: dict[str, Any] = {}
    endings: dict[str, Ending] = {}
    for i, record in enumerate(records):
        endings[record.name] = one(store, record, task, stop, kept)
        print(f"{record.name}: {endings[record.name].outcome} {endings[record.name].message}".rstrip(), flush=True)
        if task.processes > 1 and endings[record.name].outcome == "code":
            break  # it may be the echo of another process's kill, which the scheduler tells whoever reads the lease
        if left := tuple(record.key for record in records[i + 1 :]):
            noted(partial(leases.update, store, task.lease, remaining=left))
    else:
        noted(lambda: leases.drop(store, task.lease))
    if bad := [f"{name}: {ending.outcome}: {ending.message}" for name, ending in endings.items() if not ending.well]:
        raise NotDone("; ".join(bad))
    return ", ".join(ending.outcome for ending in endings.values())


def one(store: Store, record: Record, task: Assignment, stop: Stop, kept: dict[str, Any]) -> Ending:
    """One job. Raises NotDone when the whole task has to leave: it was told to stop, or a parent is missing."""
    newest = next(reversed(store.attempts(record)), None)
    if newest and newest.failure and newest.failure.cause != "interrupted" and newest.claim.get("lease") == task.lease:
        return Ending(newest.failure.cause, newest.failure.message)  # before the task was requeued
    wait_for_parents(store, record, task)
    attempt = begin(store, record, task, stop)
    if attempt is None:
        return Ending("done", "already")
    before = store.resume_point(record)
    files.patiently(lambda: announce(store, task, attempt, before))
    noted(lambda: leases.update(store, task.lease, current=record.key))
    from harness.worker.provenance import versions

    ending = run_attempt(
        store,
        record,
        attempt,
        resources=task.settings,
        kept=kept,
        stop=stop,
        provenance={"code": dict(task.code or {}), "versions": versions()},
        ranks=ranks_of(task),
    )
    if ending.outcome == "interrupted" and stop.requested:
        after_stop(store, record, task, attempt, stop, progressed=store.resume_point(record) != before)
    return ending


def others(owner: Owner, me: Owner, queue: SlurmQueue) -> bool | None:
    """Whether another owner is still there, seen from inside a job. An earlier start of this very job is not."""
    if (owner.scheduler_id, owner.scheduler_name) == (me.scheduler_id, me.scheduler_name):
        return owner.restart > me.restart
    return queue.alive(owner)


def report(store: Store, task: Assignment, me: Owner) -> None:
    """Record that the lease belongs to this scheduler job, in case the driver died before it could."""
    lease = leases.read(store, task.lease)
    mine = replace(me, host="", boot="", pid=0, start_time=0, restart=0)
    if lease is not None and lease.owner != mine:
        leases.update(store, task.lease, owner=mine)


def noted(note: Callable[[], object]) -> None:
    """A lease only saves duplicate work, so failing to write it is no reason to fail the job."""
    try:
        note()
    except (OSError, StoreError) as error:
        print(f"the lease was not updated: {error}", file=sys.stderr, flush=True)


def wait_for_parents(store: Store, record: Record, task: Assignment) -> None:
    """The scheduler's dependency is not enough: it also starts children of jobs that it has forgotten."""
    give_up = time.monotonic() + task.parent_seconds
    for upstream in record.inputs.values():
        while upstream.kind and not store.is_done(store.record(upstream.key, upstream.kind)):
            if time.monotonic() > give_up:
                noted(lambda: leases.drop(store, task.lease))
                name = store.record(upstream.key, upstream.kind).name
                raise NotDone(f"{record.name}: not begun, because its parent {name} is not done")
            time.sleep(0.5)


def begin(store: Store, record: Record, task: Assignment, stop: Stop) -> Attempt | None:
    """The claim, once nobody else has it and it can be written; None if the result is there."""
    folder = str(record.folder.relative_to(store.root))
    order = Order(record.key, record.kind, folder, 0, resources=task.settings)
    give_up = time.monotonic() + DISK_SECONDS
    while True:
        try:
            return store.begin_attempt(
                record,
                lease=task.lease,
                micro_batch=Worker.micro_batch(order, record),
                resources=dict(task.settings),
            )
        except AlreadyDone:
            return None
        except Held as error:
            if stop.requested:
                raise NotDone(f"{record.name}: stopped while it waited: {error}") from None
            print(f"waiting: {error}", file=sys.stderr, flush=True)
        except StoreError as error:
            if stop.requested or time.monotonic() > give_up:
                raise
            print(f"waiting: {error}", file=sys.stderr, flush=True)
        time.sleep(HELD_LOOK_SECONDS)


# Being told to stop


def after_stop(
    store: Store, record: Record, task: Assignment, attempt: Attempt, stop: Stop, *, progressed: bool
) -> None:
    """Requeue the job, or leave that to whoever stopped it. Always raises NotDone."""
    job = os.environ.get("SLURM_JOB_ID", "")
    what = what_next(stop.signal, own_facts(job), progressed, float(task.settings.get("stop_lead") or 0))
    if what == "timeout":
        message = f"stopped by the time limit of {task.settings.get('minutes')} min before it reached a new checkpoint"
        attempt.fail("timeout", "TimeLimit", message)
        noted(lambda: leases.drop(store, task.lease))
        raise NotDone(f"{record.name}: {message}")
    if what == "requeue":
        try:
            run_command(["scontrol", "requeue", job])
        except SchedulerSilent as error:
            raise NotDone(f"{record.name}: interrupted, and could not be requeued: {error}") from None
        raise NotDone(f"{record.name}: interrupted by {stop.signal}, requeued")
    raise NotDone(f"{record.name}: interrupted by {stop.signal}")


def what_next(signal: str, facts: Mapping[str, str], progressed: bool, stop_lead: float) -> str:
    """requeue, leave or timeout.

    facts: `scontrol show job` of the own job. stop_lead: seconds before the time limit at which SLURM signals; it may be
    a minute early. While the scheduler itself ends the job (cancelled, requeued by hand,
    preempted without grace) it also decides what becomes of it. In a grace period, and before the time limit, ending
    by ourselves would count as the end: then we ask to be requeued.
    """
    state = facts.get("JobState", "RUNNING")
    if state not in ("RUNNING", "CONFIGURING", "SUSPENDED"):
        return "leave"
    if facts.get("PreemptTime", "None") not in ("None", "Unknown", ""):
        return "requeue"
    if signal == "SIGUSR2" and not progressed and _near_end(facts, stop_lead + 65):
        return "timeout"
    return "requeue"


def _near_end(facts: Mapping[str, str], seconds: float) -> bool:
    """Whether at most `seconds` are left: then the signal came from the time limit, otherwise from a person."""
    ran, allowed = seconds_of(facts.get("RunTime")), seconds_of(facts.get("TimeLimit"))
    return ran is not None and allowed is not None and allowed - ran <= seconds


def seconds_of(text: str | None) -> float | None:
    """SLURM's [days-]hours:minutes:seconds; None for UNLIMITED and the like."""
    days, _, clock = (text or "").rpartition("-")
    words = [days or "0", *clock.split(":")]
    if len(words) != 4 or not all(word.isdigit() for word in words):
        return None
    return float(sum(int(word) * unit for word, unit in zip(words, (86400, 3600, 60, 1), strict=True)))


def own_facts(job: str) -> dict[str, str]:
    """What scontrol says about a job; {} if nothing."""
    try:
        text = run_command(["scontrol", "show", "job", "--oneliner", job])
    except SchedulerSilent:
        return {}
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


# Several processes


def ranks_of(task: Assignment) -> int:
    return int(os.environ.get("SLURM_NTASKS", task.processes)) if task.processes > 1 else 1


def join_processes() -> None:
    """MASTER_ADDR, RANK, WORLD_SIZE and so on, from SLURM's task layout. Every process sees all GPUs of its node.

    Values from where the job was submitted, perhaps inside another job, are overwritten."""
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def _announcement(store: Store, task: Assignment) -> Path:
    start = "-".join(os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"))
    return store.root / ".slurm" / task.submission / "ranks" / f"{start}.json"


def announce(store: Store, task: Assignment, attempt: Attempt, resume: Path | None) -> None:
    """Tell the other ranks which attempt this is and where it resumes."""
    if task.processes > 1:
        path = _announcement(store, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"attempt": attempt.number, "resume": str(resume) if resume else None})


def follow(store: Store, task: Assignment, stop: Stop, rank: int) -> str:
    """A rank other than 0. Any exception ends the whole job (srun --kill-on-bad-exit)."""
    record = Record.read(store.root / task.folders[0])
    while (word := files.read_json(_announcement(store, task))) is None:
        if store.is_done(record):
            return "done already"
        if stop.requested:
            return "stopped before it began"
        time.sleep(0.2)
    attempt = Attempt(record.folder / "attempts" / str(word["attempt"]))
    resume = Path(word["resume"]) if word["resume"] else None
    threads, device = int(task.settings.get("threads") or 1), str(task.settings.get("device") or "cpu")
    run = FollowerRun(attempt, resume, threads, device, stop, rank, ranks_of(task))
    micro_batch = attempt.claim.get("micro_batch")
    try:
        inputs = resolve_inputs(store, record)
        kind_of(record.kind).run(Context(run, record, inputs, task.settings, {}, micro_batch))
    except Interrupted:  # not raised: that would end rank 0 before it has asked to be requeued
        return f"rank {rank} was interrupted"
    except Exception as error:
        if store.is_done(record):  # rank 0 is done and has removed the files
            return "done already"
        if attempt.failure is None:  # record the cause here; rank 0 would only see that a rank is missing
            text = "".join(traceback.format_exception(error))
            attempt.fail(cause_of(error), type(error).__name__, f"rank {rank}: {one_line(error)}", text, micro_batch)
        raise
    return f"rank {rank} ended"


class FollowerRun(AttemptRun):
    """Reports nothing: rank 0 does."""

    def log(self, step: int, total: int, **values: float) -> None:
        pass
