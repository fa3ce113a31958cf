"""What the last check noted spares reading DONE.json again, and never stands for a file that may be another."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.invented import leave
from harness.jobs import Job
from harness.store import Store, files, integrity
from harness.store import done as done_file
from tests.harness.dispatch import kinds  # noqa: F401 - its kinds have versions

SECOND = 10**9


def finished(store: Store, name: str = "a") -> Job:
    job = Job("count", {"steps": 1, "name": name}, slug=name)

    def write(out: Path) -> None:
        (out / "result.json").write_text(json.dumps({"name": name}))
        (out / "images").mkdir()
        (out / "images" / "0.bin").write_bytes(b"pixels")

    leave(store, job, write)
    return job


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Of which jobs DONE.json was read, and which outputs were compared."""
    seen: list[str] = []
    done, compare = done_file.read, integrity.compare
    monkeypatch.setattr(done_file, "read", lambda home, key: seen.append("DONE.json") or done(home, key))
    monkeypatch.setattr(integrity, "compare", lambda home, record: seen.append("outputs") or compare(home, record))
    return seen


def again(store: Store) -> Store:
    return Store(store.root)


def note_of(store: Store, job: Job) -> Path:
    return Path(store._note(store.folder(job)))


def changed(path: Path) -> None:
    """Another letter in a file, of the same length and time of writing."""
    text, times = path.read_text(), path.stat()
    path.write_text(text.replace("d9f20", "d9f21").replace("pixels", "pixelz").replace('"a"', '"b"'))
    assert path.read_text() != text and path.stat().st_size == times.st_size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_finished_job_that_did_not_change_costs_one_file(store, read):
    job = finished(store)
    written = json.loads((store.folder(job) / "DONE.json").read_text())
    assert again(store).done(job) == written and read == []


def test_an_edited_done_file_is_damage_whatever_was_noted(store):
    job = finished(store)
    assert again(store).is_done(job)
    changed(store.folder(job) / "DONE.json")
    assert "was edited: its checksum is another" in again(store).damage(job)


@pytest.mark.parametrize("old, new", [('"attempt": 1', '"attempt": 2'), ('"d9f20', '"d9f21'), ('"seal": "', '"seal": "0'), ('"damage": ""', '"damage": "x"')])
def test_a_note_that_was_changed_says_nothing_and_is_written_anew(store, read, old, new):
    job = finished(store)
    note, done = note_of(store, job), again(store).done(job)
    before = note.read_text()
    note.write_text(before.replace(old, new))
    assert note.read_text() != before
    assert again(store).done(job) == done and read == ["DONE.json", "outputs"]
    assert note.read_text() == before
    assert again(store).done(job) == done and len(read) == 2


def test_a_note_of_an_earlier_version_still_holds_and_gains_the_record(store, read):
    job = finished(store)
    note, done = note_of(store, job), again(store).done(job)
    now = json.loads(note.read_text())
    note.write_text(json.dumps({name: now[name] for name in ("stamps", "members", "loaded", "damage")}, indent=1))
    assert again(store).done(job) == done and read == ["DONE.json"], "no outputs are compared"
    assert json.loads(note.read_text()) == now and again(store).done(job) == done and len(read) == 1


def test_a_record_without_a_seal_is_not_taken(store, read):
    job = finished(store)
    note, done = note_of(store, job), again(store).done(job)
    now = json.loads(note.read_text())
    del now["seal"]
    now["record"]["attempt"] = 7
    note.write_text(json.dumps(now))
    assert again(store).done(job) == done and read == ["DONE.json"]


def test_verify_and_loading_read_the_done_file_itself(store, monkeypatch):
    job = finished(store)
    path = store.folder(job) / "DONE.json"
    stamp = integrity.stamp
    known = {str(path): stamp(path)}
    changed(path)
    monkeypatch.setattr(integrity, "stamp", lambda path: known.get(str(path)) or stamp(path))  # a bit rotted: no time tells of it
    assert again(store).is_done(job), "from what was noted when it was whole"
    assert "its checksum is another" in again(store).examined(job, afresh=True).damage
    assert "its checksum is another" in again(store).examined(job, loading=True).damage


def test_a_copied_store_is_compared_once_and_a_removed_folder_is_forgotten(store, read, tmp_path):
    job, gone = finished(store), finished(store, "b")
    shutil.copytree(store.root, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy" / "count" / gone.name)
    assert Store(tmp_path / "copy").done(job) and read == ["DONE.json", "outputs"]
    assert Store(tmp_path / "copy").done(job) and len(read) == 2
    assert Store(tmp_path / "copy").done(gone) is None and not Store(tmp_path / "copy").damage(gone)


def test_a_copy_of_another_job_under_the_name_of_this_one_is_damage(store):
    job, other = finished(store), finished(store, "b")
    shutil.rmtree(store.folder(job))
    shutil.move(store.folder(other), store.folder(job))
    shutil.copyfile(note_of(store, other), note_of(store, job))
    assert "is that of another job" in again(store).damage(job)


def test_a_store_that_cannot_be_written_is_read_in_full_each_time(store, read, monkeypatch):
    job = finished(store)
    note_of(store, job).unlink()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files, "replace_bytes", refused)
    assert again(store).done(job) and again(store).done(job) and read == ["DONE.json", "outputs"] * 2
    changed(store.outputs(job) / "result.json")
    assert "result.json differs" in again(store).damage(job)


def test_drivers_that_look_at_the_same_time_find_the_same_and_leave_whole_notes(store, read):
    jobs = [finished(store, f"job{n}") for n in range(12)]
    records = [again(store).done(job) for job in jobs]
    changed_one = store.outputs(jobs[3]) / "images" / "0.bin"
    shutil.rmtree(store.root / ".checks")
    changed(changed_one)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: [again(store).examined(job) for job in jobs], range(8)))
    for one in found:
        assert [(finding.done, bool(finding.damage)) for finding in one] == [
            (None if n == 3 else record, n == 3) for n, record in enumerate(records)
        ]
    read.clear()
    assert [again(store).done(job) for job in jobs] == [None if n == 3 else record for n, record in enumerate(records)]
    assert read == [] and not list((store.root / ".checks").glob(".*"))


class WholeSeconds:
    """A file system that counts times in whole seconds, and its clock."""

    def __init__(self, monkeypatch) -> None:
        self.now = time.time_ns() // SECOND * SECOND
        self.wrote: dict[str, int] = {}
        stamp, read_bytes, replace = integrity.stamp, files.read_bytes, files.replace_bytes

        def written(path: Path, content: bytes, **how: bool) -> None:
            replace(path, content, **how)
            self.wrote[str(path)] = self.now

        monkeypatch.setattr(integrity, "stamp", lambda path: (s := stamp(path)) and [s[0], self.now_of(path), self.now_of(path), s[3], s[4]])
        monkeypatch.setattr(files, "read_bytes", lambda path: (read_bytes(path)[0], self.now_of(path)))
        monkeypatch.setattr(files, "replace_bytes", written)

    def now_of(self, path: Path | str) -> int:
        return self.wrote.setdefault(str(path), self.now)


@pytest.fixture
def clock(monkeypatch) -> Iterator[WholeSeconds]:
    return WholeSeconds(monkeypatch)


@pytest.mark.parametrize("name", ["DONE.json", "attempts/1/out/result.json", "attempts/1/out/images/0.bin"])
def test_a_file_changed_in_the_second_in_which_it_was_noted_is_found_where_times_are_whole_seconds(store, clock, name):
    job = finished(store)
    assert again(store).is_done(job)
    changed(store.folder(job) / name)
    assert again(store).damage(job)
    clock.now += 5 * SECOND
    assert again(store).damage(job)


def test_where_times_are_whole_seconds_a_job_is_compared_once_more_and_then_the_note_holds(store, clock, read):
    job = finished(store)
    clock.now += 5 * SECOND
    assert again(store).is_done(job) and read == ["DONE.json", "outputs"]
    assert again(store).is_done(job) and len(read) == 2


def test_where_only_the_done_file_is_as_young_as_the_note_the_outputs_are_not_compared(store, clock, read):
    """A checkpoint of many gigabytes is digested for longer than that before DONE.json is written."""
    job = finished(store)
    for path in store.outputs(job).rglob("*"):
        clock.wrote[str(path)] -= 60 * SECOND
    for path in (store.outputs(job), store.folder(job) / "spec.json"):
        clock.wrote[str(path)] -= 60 * SECOND
    integrity.remember(store.folder(job), done_file.read(store.folder(job), job.key), note_of(store, job))
    read.clear()
    clock.now += 5 * SECOND
    assert again(store).is_done(job) and read == ["DONE.json"]
    assert again(store).is_done(job) and len(read) == 1


def test_the_seal_is_that_of_what_follows_it(store):
    job = finished(store)
    text = note_of(store, job).read_bytes()
    assert json.loads(text)["seal"] == hashlib.sha256(text[len('{"seal": "') + 64 + len('", ') :]).hexdigest()
