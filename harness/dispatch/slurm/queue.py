"""What the scheduler says about jobs: one squeue for all of them, then one sacct for those it has forgotten.

Knows nothing about the store. A scheduler id alone names nothing: ids begin again after a cluster's state is lost, so a
job is known by id *and* name, and names are unique to a submission. Silence of the scheduler is never read as an end.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.store import Owner, files

Command = Callable[[list[str]], str]
"""Runs a scheduler command and returns its output. Raises SchedulerSilent if the scheduler does not answer."""

POLL_SECONDS = 2.0
"""How long an answer from squeue stays valid."""
PROVISIONAL_SECONDS = 30.0
"""Grace period for NODE_FAIL and PREEMPTED: a job shows these states briefly while it is requeued."""
LOST_SECONDS = 30.0
"""A job unknown to the scheduler counts as lost after this."""
SETTLE_SECONDS = 2.0
"""Time after a job's end by which its last files are assumed to be visible here."""

PROVISIONAL = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"})
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"})
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
"""Every other state in squeue (RUNNING, COMPLETING, SUSPENDED, ...) means that the job holds resources."""

STUCK = {
    "DependencyNeverSatisfied": "a job it needs failed",
    "JobHeldUser": "held by its user (scontrol release)",
    "JobHeldAdmin": "held by an administrator",
    "job_requeued_in_held_state": "requeued and held (scontrol release)",
    "PartitionNodeLimit": "asks for more nodes than the partition allows",
    "PartitionTimeLimit": "asks for more time than the partition allows",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "BadConstraints": "no node meets its constraints",
    "AssocGrpGRES": "the account's GPUs are used up",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "QOSMaxWallDurationPerJobLimit": "asks for more time than the QOS allows",
    "AssocMaxWallDurationPerJobLimit": "asks for more time than the account allows",
    "MaxMemPerLimit": "asks for more memory than the partition allows",
    "QOSMaxMemoryPerJob": "asks for more memory than the QOS allows",
    "AssocMaxMemPerJob": "asks for more memory than the account allows",
}
"""Pending reasons that waiting will not resolve, in words."""
TOO_MUCH = frozenset(name for name, words in STUCK.items() if re.match("asks for more (time|memory)", words))
"""Those that a smaller request would avoid."""
OUT_OF_MEMORY = re.compile(r"oom.kill|out of memory", re.IGNORECASE)
OOM_KILL = re.compile(r"slurmstepd: error: .*oom.kill", re.IGNORECASE)
"""How SLURM logs that the kernel killed a process of the job for its memory."""
STOPPED = re.compile(r"\b(User defined signal 2|Terminated)(?: \(core dumped\))?\s*(?:srun .*)?$", re.MULTILINE)
"""How a log ends if a signal arrived before Python could catch it: time limit, preemption or a person."""
FAILED_BY_ITSELF = "with exit code"
"""Printed for the rank that failed; the others, ended because of it, print "Terminated"."""
REFUSED = re.compile("|".join(re.escape(os.strerror(number)) for number in sorted(files.PASSING_ERRORS)))
"""What a log says if the shared folder could not be written for a while: the disk is full, read-only or gone."""
LAUNCH_FAILED = "launch failed requeued held"
"""Reason of a job that its node failed to start (slow, or its daemon died): held until somebody releases it."""


class SchedulerSilent(RuntimeError):
    """The scheduler gave no answer: it is down, restarting or unreachable."""


def run_command(words: list[str], seconds: float = 30.0) -> str:
    """Standard output. Raises SchedulerSilent, with what the command said, on failure and after `seconds`."""
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SchedulerSilent(f"{words[0]}: no answer in {seconds:.0f} s") from None
    except FileNotFoundError:
        raise SchedulerSilent(f"{words[0]}: no such command; is this a login node of a SLURM cluster?") from None
    if done.returncode:
        raise SchedulerSilent(f"{words[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


class Phase(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"
    """The scheduler answers, but has not known the job for a while."""
    UNKNOWN = "unknown"
    """Cannot be told now."""

    @property
    def over(self) -> bool:
        return self in (Phase.ENDED, Phase.LOST)


@dataclass(frozen=True)
class Entry:
    """One line of squeue or sacct. id: "123" or "123_4"."""

    id: str
    state: str
    restarts: int = 0
    reason: str = ""
    name: str = ""


@dataclass(frozen=True)
class Standing:
    """Where a scheduler job stands. state: the scheduler's word. reason: for people, "" when there is none.

    for_parents: waits for jobs that its request named. launch_failed: held because its node did not start it. too_much:
    waits because it asks for more than is allowed.
    """

    phase: Phase
    state: str = ""
    reason: str = ""
    restarts: int = 0
    for_parents: bool = False
    launch_failed: bool = False
    too_much: bool = False


@dataclass
class SlurmQueue:
    """A snapshot of the queue, from which all questions are answered. `look` renews it, at most every `poll_seconds`,
    with one squeue and, for jobs that squeue has forgotten, one sacct."""

    command: Command = run_command
    patience_seconds: float = 3.0
    """How long `look` waits for squeue. A later answer is used at the next call."""
    clock: Callable[[], float] = time.time
    poll_seconds: float = POLL_SECONDS
    provisional_seconds: float = PROVISIONAL_SECONDS
    lost_seconds: float = LOST_SECONDS
    settle_seconds: float = SETTLE_SECONDS
    silent_since: float | None = None
    """When the scheduler stopped answering; None while it answers."""
    calls: dict[str, int] = field(default_factory=dict)
    """Command → how often it was run."""

    _entries: dict[str, Entry] = field(default_factory=dict)
    _looked: float = 0.0
    _answered: bool = False
    _pending: _Call | None = None
    _asked: dict[tuple[str, str], bool] = field(default_factory=dict)
    _past: dict[tuple[str, str], Entry] = field(default_factory=dict)
    _first_seen: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _sacct_again: float = 0.0

    def look(self, force: bool = False) -> None:
        """Renew the snapshot if it is older than `poll_seconds`."""
        now = self.clock()
        if not force and now - self._looked < self.poll_seconds:
            return
        self._looked = now
        if self._pending is None:
            words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", SQUEUE_FORMAT]
            self._pending = _Call(self._run, words)
        try:
            text = self._pending.answer(self.patience_seconds if self.silent_since is None else 0.1)
        except SchedulerSilent:
            self._pending, self.silent_since = None, self.silent_since or now
            return
        if text is None:
            self.silent_since = self.silent_since or now
            return
        self._pending, self.silent_since, self._answered = None, None, True
        self._entries = {entry.id: entry for entry in parse_squeue(text)}
        self._ask_accounting(now)

    def standing(self, scheduler_id: str, name: str, submitted: float = 0.0) -> Standing:
        """Where the job stands by the newest snapshot. submitted: Unix seconds; a job is not lost when it is this
        new."""
        self._asked.setdefault((scheduler_id, name), True)
        if self.silent_since is not None or not self._answered:
            return Standing(Phase.UNKNOWN, "", "the scheduler does not answer")
        entry = self._entries.get(scheduler_id)
        if entry is None or entry.name != name:
            entry = self._past.get((scheduler_id, name))
        if entry is None:
            return self._absent(scheduler_id, name, submitted)
        self._first_seen.pop((scheduler_id, name, "absent"), None)
        if entry.state in WAITING:
            if entry.reason.replace("_", " ").startswith(LAUNCH_FAILED):
                words = "its node did not start it (scontrol release)"
                return Standing(Phase.WAITING, entry.state, words, entry.restarts, launch_failed=True)
            reason = STUCK.get(entry.reason, "")
            return Standing(
                Phase.WAITING,
                entry.state,
                reason,
                entry.restarts,
                for_parents=entry.reason == "Dependency",
                too_much=entry.reason in TOO_MUCH,
            )
        if entry.state in PROVISIONAL or entry.state in ENDED:
            patience = self.provisional_seconds if entry.state in PROVISIONAL else self.settle_seconds
            over = self._age(scheduler_id, name, f"{entry.state} {entry.restarts}") >= patience
            return Standing(Phase.ENDED if over else Phase.RUNNING, entry.state, entry.reason, entry.restarts)
        return Standing(Phase.RUNNING, entry.state, "", entry.restarts)

    def busy(self, beginning: str) -> bool:
        """Whether a job whose name begins like this waits or runs; looks at once. False while nobody can tell."""
        self.look(force=True)
        return self.silent_since is None and any(
            entry.name.startswith(beginning) and entry.state not in ENDED for entry in self._entries.values()
        )

    def waiting(self, beginning: str) -> list[str] | None:
        """Ids of jobs that wait and whose name begins like this; looks at once. None while nobody can tell."""
        self.look(force=True)
        if self.silent_since is not None:
            return None
        entries = self._entries.values()
        return [entry.id for entry in entries if entry.name.startswith(beginning) and entry.state in WAITING]

    def alive(self, owner: Owner) -> bool | None:
        """For `Store.schedulers`: whether an owner's job is still in the scheduler's hands; looks when it is time."""
        self.look()
        standing = self.standing(owner.scheduler_id, owner.scheduler_name)
        if standing.phase is Phase.UNKNOWN:
            return None
        if standing.phase.over:
            return False
        return not owner.pid or standing.restarts <= owner.restart  # a process of an earlier start is gone

    def _absent(self, scheduler_id: str, name: str, submitted: float) -> Standing:
        new = self.clock() - submitted < self.lost_seconds
        if new or self._age(scheduler_id, name, "absent") < self.lost_seconds:
            return Standing(Phase.RUNNING, "", "the scheduler does not know it (yet)")
        return Standing(Phase.LOST, "", "the scheduler has forgotten it")

    def _age(self, scheduler_id: str, name: str, what: str) -> float:
        now = self.clock()
        return now - self._first_seen.setdefault((scheduler_id, name, what), now)

    def _ask_accounting(self, now: float) -> None:
        """One sacct for every job that was asked about and that squeue has forgotten; ends are remembered."""
        forgotten = [
            (id_, name)
            for id_, name in self._asked
            if (id_, name) not in self._past and (id_ not in self._entries or self._entries[id_].name != name)
        ]
        if not forgotten or now < self._sacct_again:
            return
        ids = sorted({id_.partition("_")[0] for id_, _ in forgotten})
        try:
            text = self._run(["sacct", "-X", "-n", "-P", "-o", "JobID,State,JobName", "-j", ",".join(ids)])
        except SchedulerSilent:
            self._sacct_again = now + 300  # no accounting, or it is down: files and squeue suffice
            return
        self._sacct_again = now + 5
        for entry in parse_sacct(text):
            if (entry.id, entry.name) in self._asked and entry.state in ENDED | PROVISIONAL:
                self._past[entry.id, entry.name] = entry

    def _run(self, words: list[str]) -> str:
        self.calls[words[0]] = self.calls.get(words[0], 0) + 1
        return self.command(words)


class _Call:
    """A command in a thread of its own: a scheduler that is down lets squeue hang for half a minute."""

    def __init__(self, run: Command, words: list[str]) -> None:
        self._text: str | None = None
        self._error: SchedulerSilent | None = None
        self._thread = threading.Thread(target=self._ask, args=(run, words), daemon=True)
        self._thread.start()

    def _ask(self, run: Command, words: list[str]) -> None:
        try:
            self._text = run(words)
        except SchedulerSilent as error:
            self._error = error

    def answer(self, seconds: float) -> str | None:
        """What the command said; None when it still runs. Raises SchedulerSilent."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return self._text


SQUEUE_FORMAT = "--Format=JobArrayID:|,State:|,RestartCnt:|,Reason:|,Name:|"


def parse_squeue(text: str) -> Iterator[Entry]:
    """Lines "id|state|restarts|reason|name|". Other lines are ignored."""
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) >= 5 and words[0]:
            yield Entry(words[0], words[1].split()[0], int(words[2] or 0), words[3], words[4])


def parse_sacct(text: str) -> Iterator[Entry]:
    """Lines "id|state|name"; array elements that never began come as one line, "12_[3-5,8%2]"."""
    for line in text.splitlines():
        words = line.strip().split("|")
        if len(words) >= 3 and words[1]:
            for id_ in expand(words[0]):
                yield Entry(id_, words[1].split()[0].rstrip("+"), 0, "", words[2])


def expand(scheduler_id: str) -> list[str]:
    """["12_3", "12_4", "12_5", "12_8"] for "12_[3-5,8%2]"."""
    main, bracket, rest = scheduler_id.partition("_[")
    if not bracket:
        return [scheduler_id]
    found = []
    for part in rest.rstrip("]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += [f"{main}_{index}" for index in range(int(first), int(last or first) + 1)]
    return found


def cancel(
    scheduler_ids: Iterable[str], command: Command = run_command, chunk: int = 500, *, only_waiting: bool = False
) -> None:
    """scancel, many ids a call. Ids that have ended are no error. Raises SchedulerSilent."""
    ids, options = list(scheduler_ids), ["--quiet", *(["--state=PENDING"] if only_waiting else [])]
    for start in range(0, len(ids), chunk):
        try:
            command(["scancel", *options, *compressed(ids[start : start + chunk])])
        except SchedulerSilent as error:
            if "Invalid job id" not in str(error):
                raise


def compressed(scheduler_ids: Collection[str]) -> list[str]:
    """["12_[0,3]", "15"] for 12_0, 12_3 and 15."""
    arrays: dict[str, list[str]] = {}
    for id_ in scheduler_ids:
        main, _, index = id_.partition("_")
        arrays.setdefault(main, []).extend([index] if index else [])
    return [f"{main}_[{','.join(indices)}]" if indices else main for main, indices in arrays.items()]


def why(state: str, last: str, *, begun: bool, any_begun: bool) -> tuple[str, str, str]:
    """(cause, type, message) of a job that ended without a word of its own; cause "" where trying again is free, with a
    message where it was stopped before it began.

    begun: whether this job was. any_begun: whether any of its bundle was: then the others only did not get their turn.
    last: the end of its scheduler log: under srun an out-of-memory kill reads FAILED, and only the log tells.
    """
    if any_begun and not begun:
        return "", "", ""
    if state == "OUT_OF_MEMORY" or (state == "FAILED" and OUT_OF_MEMORY.search(last)):
        return "memory", "OutOfMemory", "killed by the scheduler for using more memory than it asked for; raise memory_gb of its kind in the profile"
    if state in ("TIMEOUT", "DEADLINE"):
        return "timeout", "TimeLimit", "killed at its time limit, before it could write a checkpoint"
    if state == "FAILED" and not begun:
        words = [line.strip() for line in last.splitlines() if line.strip()]
        if not words or REFUSED.search(last):
            said = words[-1][:300] if words else "its log could not be written; can its node see and write the results folder?"
            return "storage", "JobNotBegun", f"the scheduler's job failed before it began: {said}"
        end = "\n".join(words[-5:])
        if (stopped := STOPPED.search(end)) and FAILED_BY_ITSELF not in end:
            return "", "JobNotBegun", f"the scheduler's job was stopped before it began: {stopped.group(1)}"
        return "code", "JobNotBegun", f"the scheduler's job failed before it began: {words[-1][:300]}"
    return "", "", ""


def killed_for_memory(state: str, last: str) -> bool:
    """Whether the scheduler itself says so, by the job's state or in its log: not what some program may have printed."""
    return state == "OUT_OF_MEMORY" or (state == "FAILED" and bool(OOM_KILL.search(last)))


def last_words(log: Path, size: int = 4000) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
