"""Each kind of fault, tried so many times; every function returns a `Tally`."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.store import State, Store, StoreError
from tests.faults import work
from tests.faults.injection import Injection, die, refuse
from tests.faults.work import Promise, Tally, ended, forked

KILLED = "killed, then continued"
ERRNOS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, "EMFILE": errno.EMFILE}


def roots(folder: Path, name: str) -> Iterator[Path]:
    """Fresh stores, one at a time; each is removed when the next is asked for."""
    number = 0
    while True:
        root = folder / f"{name}-{number}"
        yield root
        shutil.rmtree(root, ignore_errors=True)
        number += 1


def kills_inside_writes(promise: Promise, folder: Path, every: int = 1) -> Tally:
    """SIGKILL at every step of every write that the harness makes."""
    tally, root = Tally("killed inside a write"), roots(folder, "write")
    for at in range(1, len(promise.steps) + 1, every):
        code = work.disturbed(where := next(root), promise.jobs, Injection(at, die))
        tally.count(KILLED if code == -signal.SIGKILL else "finished before the kill")
        promise.check(tally, where, f"killed at step {at} ({promise.steps[at - 1]})")
    return tally.done()


def kills_at_random(promise: Promise, folder: Path, times: int, seed: int = 0) -> Tally:
    """SIGKILL after a random time, up to four times in a row on one store."""
    tally, root, draw = Tally("killed at a random moment"), roots(folder, "random"), random.Random(seed)
    began = time.monotonic()
    assert ended(forked(partial(work.work, next(root), promise.jobs))) == work.ALL_DONE
    lasts = time.monotonic() - began
    while tally.ways.get(KILLED, 0) < times:
        where = next(root)
        for _ in range(draw.randint(1, 4)):
            pid = forked(partial(work.work, where, promise.jobs))
            time.sleep(draw.uniform(0, 0.7 * lasts))
            os.kill(pid, signal.SIGKILL)
            tally.count(KILLED if ended(pid) == -signal.SIGKILL else "finished before the kill")
        promise.check(tally, where, f"random kill {tally.tried}")
    return tally.done()


def failing_writes(promise: Promise, folder: Path, errnos: Sequence[str] = tuple(ERRNOS), every: int = 1) -> Tally:
    """Each step of each write fails once, with each error."""
    tally, root = Tally("a write fails once (" + ", ".join(errnos) + ")"), roots(folder, "fail")
    for name in errnos:
        for at in range(1, len(promise.steps) + 1, every):
            code = work.disturbed(where := next(root), promise.jobs, Injection(at, refuse(ERRNOS[name])))
            ways = {0: "no job failed", 1: "a job failed, then continued", work.REFUSED: "refused in one line, then continued"}
            tally.count(ways.get(code, f"ended with {code}"))
            if code not in ways:
                tally.broken.append(f"{name} at step {at} ({promise.steps[at - 1]}): the worker ended with {code}")
            promise.check(tally, where, f"{name} at step {at} ({promise.steps[at - 1]})")
    return tally.done()


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


WAYS: dict[str, Callable[[Path], object]] = {
    "deleted": os.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped": _flipped,
    "null": lambda path: path.write_text("null"),
    "{}": lambda path: path.write_text("{}"),
    "a list": lambda path: path.write_text("[1]"),
    "a folder": _instead(os.mkdir),
    "a dangling link": _instead(lambda path: path.symlink_to("nowhere")),
    "a pipe": _instead(os.mkfifo),
}


def damaged_files(promise: Promise, folder: Path, every: int = 1) -> Tally:
    """Every file of a finished store, damaged in every way. A file either is known to be damaged, or makes no difference."""
    tally, root = Tally("a file is damaged"), roots(folder, "damage")
    whole = folder / "undisturbed"
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file() and not path.is_symlink())
    cases = [(name, way) for name in names for way in WAYS if ".locks" not in name]
    for name, way in cases[::every]:
        where = next(root)
        shutil.copytree(whole, where, symlinks=True)
        if way == "cut" and (where / name).stat().st_size < 2 or way == "a bit flipped" and not (where / name).stat().st_size:
            continue
        WAYS[way](where / name)
        _judge(promise, tally, where, f"{name}: {way}")
    return tally.done()


def exchanged_outputs(promise: Promise, folder: Path) -> Tally:
    """out/, DONE.json and spec.json of every two jobs of a kind change places."""
    tally, root = Tally("two jobs' files exchanged"), roots(folder, "exchange")
    whole, jobs = folder / "undisturbed", list(promise.jobs)
    for i, first in enumerate(jobs):
        for second in (job for job in jobs[i + 1 :] if job.kind == first.kind):
            for name in ("attempts/1/out", "DONE.json", "spec.json", "attempts"):
                where = next(root)
                shutil.copytree(whole, where, symlinks=True)
                one, two = (Store(where).folder(job) / name for job in (first, second))
                for old, new in ((one, where / "kept"), (two, one), (where / "kept", two)):
                    old.rename(new)
                _judge(promise, tally, where, f"{name} of {first.name} and {second.name}")
    return tally.done()


def _judge(promise: Promise, tally: Tally, where: Path, what: str) -> None:
    """A damaged job that is detected is set aside and recomputed; damage that is not detected must not change any result."""
    store = Store(where)
    try:
        statuses = store.statuses(promise.jobs)
        damaged = [job for job in promise.jobs if statuses[job.key].state is State.DAMAGED]
        if any("\n" in statuses[job.key].reason for job in damaged):
            tally.broken.append(f"{what}: more than one line")
        told = work.results(where, promise.jobs)
    except (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        tally.count("an error")
        tally.broken.append(f"{what}: {error!r}")
        return
    wrong = [key for key, text in told.items() if text != promise.expected[key]]
    if wrong:
        tally.broken.append(f"{what}: a wrong result without an error")
    tally.count("named in one line, set aside, recomputed" if damaged else "no effect on any result")
    before = sum(1 for _ in where.glob("*/*/attempts/*"))
    if damaged and ended(forked(lambda: work.work(where, promise.jobs))) == work.ALL_DONE:
        tally.broken.append(f"{what}: recomputed unasked")
    if damaged and sum(1 for _ in where.glob("*/*/attempts/*")) != before:
        tally.broken.append(f"{what}: an attempt was begun on a damaged job")
    for job in damaged:
        store.set_aside(store.folder(job))
    promise.check(tally, where, what)


@contextmanager
def clock_off_by(seconds: float) -> Iterator[None]:
    real = time.time
    try:
        time.time = lambda: real() + seconds
        yield
    finally:
        time.time = real


def clock_jumps(promise: Promise, folder: Path) -> Tally:
    """Killed half-way under one clock, continued under another."""
    tally, root = Tally("the clock jumps while it is killed and continued"), roots(folder, "clock")
    day = 86_400.0
    for before in (-3650 * day, -day, -60.0, 60.0, day, 3650 * day):
        for at in (len(promise.steps) // 4, len(promise.steps) // 2):
            where = next(root)
            with clock_off_by(before):
                work.disturbed(where, promise.jobs, Injection(at, die))
            tally.count(KILLED)
            promise.check(tally, where, f"clock off by {before:.0f} s, killed at step {at}")
    return tally.done()


def many_workers(promise: Promise, folder: Path, numbers: Sequence[int] = (2, 4, 8), times: int = 1) -> Tally:
    """Workers that do the same jobs at once, half of them killed at random; each job is done once."""
    tally, root, draw = Tally("several workers at once, half of them killed"), roots(folder, "many"), random.Random(1)
    for number in numbers:
        for _ in range(times):
            where = next(root)

            def action(where: Path = where) -> int:
                for _ in range(200):  # until the others are done: what they hold is theirs
                    if work.work(where, promise.jobs) == work.ALL_DONE:
                        return 0
                    time.sleep(0.02)
                return 1

            pids = [forked(action) for _ in range(number)]
            for pid in pids[::2]:
                time.sleep(draw.uniform(0, 0.1))
                os.kill(pid, signal.SIGKILL)
            codes = [ended(pid) for pid in pids]
            tally.count(f"{number} workers")
            if any(code not in (0, -signal.SIGKILL) for code in codes):
                tally.broken.append(f"{number} workers ended with {codes}")
            promise.check(tally, where, f"{number} workers")
    return tally.done()
