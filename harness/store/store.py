"""The store: finds jobs by key, tells their status, begins attempts, publishes results exactly once."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.jobs import Job
from harness.places import results_option
from harness.store import done as done_file
from harness.store import files, integrity, outputs
from harness.store.attempts import Attempt, attempts_of, create_attempt
from harness.store.done import Damaged
from harness.store.files import StoreError
from harness.store.integrity import NOT_DONE, Finding
from harness.store.lookup import folder_named
from harness.store.owners import Owner, Scheduler, host_name
from harness.store.records import Record, record_of
from harness.store.states import State, Status

T = TypeVar("T")


@dataclass
class Look:
    """One pass over the store. done: key → what was found of a finished job. jobs: key → that job. times_ns: a finished job's
    folder → the mtime of its DONE.json. kept: name → what `Store.kept` made."""

    done: dict[str, Finding] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    times_ns: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


class Held(StoreError):
    """Somebody else has the job."""


class AlreadyDone(StoreError):
    """The job is done; there is nothing to begin."""


class Store:
    """A results folder. Reading creates nothing; the folder appears with the first job.

    schedulers: name → a function that says whether the scheduler still knows an owner.
    """

    def __init__(self, root: Path | str, schedulers: Mapping[str, Scheduler] | None = None) -> None:
        self.root = Path(root).absolute()
        self.schedulers: dict[str, Scheduler] = dict(schedulers or {})
        self._folders: dict[tuple[str, str], str] = {}
        """Kind and 12 digits of a key → the job's folder. As text: making a `Path` takes longer than looking at the folder."""
        self._listed: dict[str, int] = {}
        """Kind → its folder's mtime when it was last listed."""
        self._examined: dict[str, tuple[object, Finding]] = {}
        """Job's folder → stamps of DONE.json and spec.json, and what was found then: this object checks each job once."""
        self._look: Look | None = None

    # Finding

    def folder(self, job: Job) -> Path:
        """Where the job lives or would live. Jobs of one key share the folder, named after the first one's slug."""
        return Path(self._place(job))

    def find(self, kind: str, key: str) -> Path | None:
        """The folder of a job by kind and key; None when the store has none."""
        found = self._find(kind, key)
        return Path(found) if found else None

    def _place(self, job: Job | Record) -> str:
        if isinstance(job, Record):
            return str(job.folder)
        return self._find(job.kind, job.key) or f"{self.root}/{job.kind}/{job.name}"

    def _find(self, kind: str, key: str) -> str | None:
        known = self._folders.get((kind, key[:12]))
        if known is None:
            self._list(kind, changed=True)
            known = self._folders.get((kind, key[:12]))
        return known

    def _list(self, kind: str, changed: bool = False) -> None:
        """changed: only if the folder's mtime has changed."""
        try:
            time_ns = os.stat(self.root / kind).st_mtime_ns
            if changed and self._listed.get(kind) == time_ns:
                return
            entries = list(os.scandir(self.root / kind))
        except (FileNotFoundError, NotADirectoryError):
            return
        self._listed[kind] = time_ns
        for entry in entries:
            if not entry.name.startswith("."):
                self._folders[kind, entry.name.rpartition("-")[2]] = f"{self.root}/{kind}/{entry.name}"

    def refresh(self, kinds: Iterable[str]) -> None:
        """Look for folders that others created since the last call."""
        for kind in set(kinds):
            self._list(kind)

    def ensure(self, job: Job) -> Path:
        """The job's folder, with its spec.json. Raises StoreError when it cannot be written or belongs to another key."""
        return self.ensure_all([job])[job.key]

    def ensure_all(self, jobs: Iterable[Job]) -> dict[str, Path]:
        """The same for many jobs, by key, listing folders only once."""
        jobs = list(jobs)
        if any((job.kind, job.key12) not in self._folders for job in jobs):
            with files.writing(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                with self.lock("folders"):
                    self.refresh(job.kind for job in jobs)
                    for job in jobs:
                        if (job.kind, job.key12) not in self._folders:
                            folder = self.root / job.kind / job.name
                            folder.mkdir(parents=True, exist_ok=True)
                            self._folders[job.kind, job.key12] = str(folder)
        found = {job.key: Path(self._folders[job.kind, job.key12]) for job in jobs}
        missing = {found[job.key] / "spec.json": spec for job in jobs if (spec := self._unwritten(job, found[job.key]))}
        with files.writing(self.root):
            for path in missing:
                if not os.path.lexists(path):  # a new folder: notes on an earlier one of this name do not apply
                    Path(self._note(path.parent)).unlink(missing_ok=True)
            files.write_many(missing)
        return found

    @staticmethod
    def _unwritten(job: Job, folder: Path) -> dict[str, Any] | None:
        """What spec.json should hold but does not; None if it is right, or damaged."""
        record = record_of(job)
        try:
            there = Record.read(folder)
        except Damaged:
            return None
        except StoreError:
            return None if os.path.lexists(folder / done_file.NAME) else record
        if there.key == job.key and not os.path.lexists(folder / done_file.NAME):
            told = files.read_json(folder / "spec.json")
            if told["inputs"] != record["inputs"]:
                return {**record, "slug": there.slug}  # the same content may be at another path now
        return None

    def ensure_writable(self) -> None:
        """Raises StoreError, in one line, when results could not be written: before any compute is spent."""
        with files.writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            files.write_json(probe, {"time": time.time()})
            probe.unlink(missing_ok=True)  # another driver in this process may probe at the same time

    def record(self, key: str, kind: str | None = None) -> Record:
        """The job that a person means by a name, a key or its beginning. Raises StoreError that says what was found instead."""
        return Record.read(folder_named(self.root, key, kind))

    def job_names(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of every folder that has a spec.json, in this order."""
        finished = self._look.times_ns if self._look is not None else {}
        for kind in sorted(self.root.glob("[!.]*")):
            home = str(kind)
            for name in sorted(os.listdir(kind)) if kind.is_dir() else ():
                if f"{home}/{name}" in finished or os.path.exists(f"{home}/{name}/spec.json"):
                    yield kind.name, name

    def job_folders(self) -> Iterator[Path]:
        """Their folders."""
        return (self.root / kind / name for kind, name in self.job_names())

    def records(self) -> Iterator[Record]:
        """Every job in the store, except those with a damaged spec.json (see `damaged_specs`)."""
        for folder in self.job_folders():
            try:
                yield Record.read(folder)
            except StoreError:
                continue

    def damaged_specs(self) -> dict[Path, str]:
        """Job's folder → what is wrong with its spec.json."""
        found = {}
        for folder in sorted(self.root.glob("[!.]*/*/")):
            key12 = folder.name.rpartition("-")[2]
            there = os.path.lexists(folder / "spec.json")
            if len(key12) == 12 and (there or os.path.lexists(folder / done_file.NAME)):
                try:
                    if not Record.read(folder).key.startswith(key12):
                        found[folder] = "spec.json is that of another job"
                except StoreError as error:
                    found[folder] = str(error).removeprefix(f"{folder}/") if there else "spec.json is missing"
        return found

    # Where a job stands

    def examined(self, job: Job | Record, *, loading: bool = False, afresh: bool = False) -> Finding:
        """Whether the job is done, and its outputs intact. loading: a job is about to use them as input. afresh: compares
        digests, whatever earlier checks noted."""
        look = None if loading or afresh else self._look
        if look is not None and (seen := look.done.get(job.key)) is not None:
            return seen
        home = self._place(job)
        stamps = {name: integrity.stamp(f"{home}/{name}") for name in (done_file.NAME, "spec.json")}
        if not any(stamps.values()):
            return NOT_DONE
        known, found = self._examined.get(home, (None, NOT_DONE))
        if known != stamps or loading or afresh:
            reader = host_name() if loading else ""
            found = integrity.examine(home, job.key, self._note(home), stamps, reader=reader, afresh=afresh)
            self._examined[home] = stamps, found
        if look is not None and found.done is not None:
            look.done[job.key] = found
            if (of_done := stamps[done_file.NAME]) is not None:
                look.times_ns[home] = of_done[integrity.WRITTEN]
            if isinstance(job, Job):
                look.jobs[job.key] = job
        return found

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Inside, a job that was found done is not checked again: for a pass over the whole store that runs nothing.

        Jobs that others finish meanwhile are still found; a finished job does not become unfinished.
        """
        before = self._look
        self._look = before or Look()
        try:
            yield
        finally:
            self._look = before

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """`make()`; inside `one_look` only once for each name."""
        if self._look is None:
            return make()
        if name not in self._look.kept:
            self._look.kept[name] = make()
        return self._look.kept[name]

    def seen_done(self) -> Mapping[str, Job]:
        """Key → the jobs that this look found done."""
        return self._look.jobs if self._look is not None else {}

    def done_ns(self, kind: str, name: str) -> int:
        """The mtime of a job's DONE.json. Raises FileNotFoundError where there is none."""
        home = f"{self.root}/{kind}/{name}"
        seen = self._look.times_ns.get(home) if self._look is not None else None
        return os.stat(f"{home}/{done_file.NAME}").st_mtime_ns if seen is None else seen

    def _note(self, home: Path | str) -> str:
        """The file that says what the last check of the job in `home` saw."""
        _, kind, name = str(home).rsplit("/", 2)
        return f"{self.root}/.checks/{kind}-{name.rpartition('-')[2]}.json"

    def damage(self, job: Job | Record) -> str:
        """What is wrong with the job's outputs, and the remedy, in one line; "" if nothing."""
        found = self.examined(job).damage
        return found and self.remedied(self._home(job), found)

    def remedied(self, home: Path, damage: str) -> str:
        """The damage in the job's folder `home` with what to do, in one line."""
        key12, where = home.name.rpartition("-")[2], f"{home.parent.name}/{home.name}"
        remedy = "take it away" if damage.endswith(integrity.ADDED) else "put it back"
        return f"{where}/{damage}; {remedy}, or set the job aside and make it anew: run.py retry {key12} --damaged{results_option(self.root, 'DIR')}"

    def is_done(self, job: Job | Record) -> bool:
        """Whether it is done and whole."""
        return self.examined(job).done is not None

    def done(self, job: Job | Record) -> dict[str, Any] | None:
        """The content of DONE.json: key, attempt, fence, outputs, seconds, finished, versions, code, checksum; None when the
        job is not done, or damaged."""
        return self.examined(job).done

    def outputs(self, job: Job | Record, *, loading: bool = False) -> Path:
        """The out/ folder of the attempt that won. Raises StoreError when the job is not done, Damaged when it is not whole.

        loading: a job is about to use it as input; then digests are compared, once on each host.
        """
        found = self.examined(job, loading=loading)
        if found.damage:
            raise Damaged(f"damaged: {self.damage(job)}")
        if found.done is None:
            raise StoreError(f"{self._home(job)}: not done, so it has no outputs")
        return self._home(job) / "attempts" / str(found.done["attempt"]) / "out"

    def set_aside(self, folder: Path) -> Path:
        """Move a damaged job's folder aside, so that the job can run again; returns the new place. Raises StoreError."""
        number, home = 1, self.root / ".damaged" / folder.parent.name
        while os.path.lexists(place := home / f"{folder.name}-{number}"):
            number += 1
        with files.writing(home):
            home.mkdir(parents=True, exist_ok=True)
            files.renamed(folder, place)
            Path(self._note(folder)).unlink(missing_ok=True)
        self._folders.pop((folder.parent.name, folder.name.rpartition("-")[2]), None)
        return place

    def attempts(self, job: Job | Record) -> list[Attempt]:
        """Oldest first."""
        return attempts_of(self._home(job))

    def winner(self, job: Job | Record) -> Attempt | None:
        done = self.done(job)
        return Attempt(self._home(job) / "attempts" / str(done["attempt"])) if done else None

    def _home(self, job: Job | Record) -> Path:
        return Path(self._place(job))

    def status(self, job: Job) -> Status:
        return self.statuses([job])[job.key]

    def state(self, job: Job) -> State:
        return self.status(job).state

    def statuses(self, jobs: Iterable[Job]) -> dict[str, Status]:
        """Where every job stands, parents included; by key."""
        jobs = list(jobs)
        self.refresh(job.kind for job in jobs)
        found: dict[str, Status] = {}
        in_hand: dict[str, str] | None = None
        for job in jobs:
            self._status(job, found)
        for job in jobs:
            if found[job.key].state not in (State.DONE, State.RUNNING, State.DAMAGED):
                if in_hand is None:
                    in_hand = self._keys_in_hand()
                if job.key in in_hand:
                    found[job.key] = Status(State.SUBMITTED, in_hand[job.key], found[job.key].attempt)
        return found

    def _status(self, job: Job, found: dict[str, Status]) -> Status:
        if job.key not in found:
            examined = self.examined(job)
            if examined.damage:
                found[job.key] = Status(State.DAMAGED, self.damage(job))
            elif examined.done is not None:
                found[job.key] = Status(State.DONE)
            else:
                parents = [(parent, self._status(parent, found)) for parent in job.parents]
                found[job.key] = self._unfinished(job, parents)
        return found[job.key]

    def _unfinished(self, job: Job, parents: list[tuple[Job, Status]]) -> Status:
        newest = next(reversed(self.attempts(job)), None)
        alive = newest.alive(self.schedulers) if newest else False
        if newest and alive:
            return Status(State.RUNNING, str(newest.owner), newest)
        if newest and alive is None:
            return Status(State.RUNNING, self._unseen(newest, job.key12), newest)
        if self.is_done(job):  # published while we looked
            return Status(State.DONE)
        failure = newest.failure if newest else None
        if failure and failure.cause != "interrupted":
            return Status(State.FAILED, str(failure), newest)
        for parent, status in parents:
            if status.state in (State.FAILED, State.BLOCKED, State.DAMAGED):
                return Status(State.BLOCKED, f"parent {parent.name} {status.state}", newest)
        if any(status.state is not State.DONE for _, status in parents):
            return Status(
                State.MISSING, "waits for " + ", ".join(p.name for p, s in parents if s.state is not State.DONE)
            )
        if newest:
            reason = str(failure) if failure else f"{newest.owner} is gone" if "owner" in newest.claim else "no owner"
            return Status(State.INTERRUPTED, reason, newest)
        return Status(State.READY)

    def _unseen(self, attempt: Attempt, key12: str) -> str:
        minutes = (time.time() - attempt.last_beat) / 60
        return f"{attempt.owner}, which cannot be checked from here; last sign of life {minutes:.0f} min ago" + (
            f"; if it is gone: run.py release {key12}{results_option(self.root, 'DIR')}" if minutes > 2 else ""
        )

    def _keys_in_hand(self) -> dict[str, str]:
        """Key → the live worker or queued job that will run it."""
        from harness.store.leases import leases

        return {
            key: str(lease.owner) for lease in leases(self) if lease.alive(self.schedulers) for key in lease.remaining
        }

    # Working

    def begin_attempt(
        self, job: Job | Record, owner: Owner | None = None, *, number: int | None = None, **facts: Any
    ) -> Attempt:
        """Claim the job. number: refuse unless this is exactly the next attempt. facts: stored in the claim.

        Raises AlreadyDone or Held, and StoreError when the folder cannot be written.
        """
        home = self._home(job)
        if self.is_done(job):
            raise AlreadyDone(f"{home}: already done")
        if damage := self.damage(job):
            raise Damaged(f"damaged: {damage}")
        newest = next(reversed(attempts_of(home)), None)
        if newest is not None and newest.alive(self.schedulers) is not False:
            raise Held(f"{home}: held by {newest.owner}")
        following = newest.number + 1 if newest else 1
        if number is not None and number != following:
            raise Held(f"{home}: attempt {number} was asked for, but {following} comes next")
        with files.writing(home):
            attempt = create_attempt(home, following, owner or Owner.here(), **facts)
        if attempt is None:
            raise Held(f"{home}: somebody else began attempt {following}")
        if self.is_done(job):  # another worker published between our check and our claim
            shutil.rmtree(attempt.path, ignore_errors=True)
            raise AlreadyDone(f"{home}: already done")
        return attempt

    def superseded(self, attempt: Attempt) -> bool:
        """Whether another attempt came after this one: then its results no longer count."""
        return attempt.released or attempts_of(attempt.job_folder)[-1].number > attempt.number

    def publish(self, attempt: Attempt, *, seconds: float, **facts: Any) -> bool:
        """Make the attempt's out/ the job's result. False if a later attempt has begun or another one has won.

        Whatever is in out/ is on the disk before DONE.json appears. facts: versions and code, stored in DONE.json.
        """
        home = attempt.job_folder
        with files.writing(home):
            files.patiently(lambda: files.sync_tree(attempt.out))
            record = done_file.seal(
                {
                    "key": Record.read(home).key,
                    "attempt": attempt.number,
                    "fence": [attempt.number, attempt.claim.get("owner", {}).get("restart", 0)],
                    "outputs": outputs.describe(attempt.out),
                    "curves": outputs.describe_curves(attempts_of(home)),
                    "seconds": round(seconds, 3),
                    "finished": time.time(),
                    **facts,
                }
            )
            if self.superseded(attempt) or not files.patiently(lambda: files.link_json(home / done_file.NAME, record)):
                return False
        integrity.remember(home, record, self._note(home))
        self._tidy(attempt)
        return True

    def _tidy(self, winner: Attempt) -> None:
        """After DONE: create the link for people; remove checkpoints, outputs of other attempts, and files of killed
        processes."""
        home = winner.job_folder
        link = home / f".out-{os.getpid()}"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(winner.out.relative_to(home))
            link.rename(home / "out")
        except OSError:
            link.unlink(missing_ok=True)
        for attempt in attempts_of(home):
            shutil.rmtree(attempt.checkpoints, ignore_errors=True)
            if attempt.number != winner.number:
                shutil.rmtree(attempt.out, ignore_errors=True)
        for leaving in home.glob("attempts/.new-*"):
            shutil.rmtree(leaving, ignore_errors=True)
        for leaving in home.glob(".DONE.json.*"):
            leaving.unlink(missing_ok=True)

    def resume_point(self, job: Job | Record) -> Path | None:
        """The complete checkpoint of the highest step over all attempts; of equal steps, the latest attempt's."""
        found = [(step, one.number, path) for one in self.attempts(job) for step, path in one.complete_checkpoints()]
        return max(found)[2] if found else None

    def keep_only(self, job: Job | Record, kept: Path | None) -> None:
        """Removes all other checkpoints of earlier attempts, such as one that a kill left half-written: none is read again, and
        at 7B each takes 100 GB."""
        for other in (path for attempt in self.attempts(job) for path in attempt.checkpoints.glob("checkpoint-*")):
            if other != kept:
                shutil.rmtree(other, ignore_errors=True)

    def release(self, job: Job | Record) -> Attempt:
        """Declare the newest attempt's owner gone, once a person has checked. Raises StoreError if it is alive here."""
        newest = next(reversed(self.attempts(job)), None)
        if newest is None:
            raise StoreError(f"{self._home(job)}: nobody holds it")
        if newest.alive(self.schedulers):
            raise StoreError(f"{self._home(job)}: {newest.owner} is alive; stop it first, nothing was released")
        with files.writing(self._home(job)):
            files.write_json(newest.path / "released.json", {"time": time.time(), "by": Owner.here().record()})
        return newest

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process at a time holds this name; the kernel releases it when its holder ends."""
        home = self.root / ".locks"
        with files.writing(home):
            home.mkdir(parents=True, exist_ok=True)
            file = files.opened(home / name, "a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
