"""One pass over the store looks at each finished job once, and misses nothing that others finish meanwhile."""

from __future__ import annotations

import os

from benchmarks.invented import leave
from harness.jobs import Job
from harness.store import Store, integrity
from harness.tracking.fingerprint import fingerprint
from tests.harness.dispatch import kinds  # noqa: F401 - its kinds have versions


def job_of(name: str) -> Job:
    return Job("count", {"steps": 1, "name": name}, slug=name)


def test_a_finished_job_is_looked_at_once_in_one_look_and_its_done_file_again_after_it(tmp_path, monkeypatch):
    store, job = Store(tmp_path), job_of("a")
    leave(store, job)
    stamped: list[str] = []
    stamp = integrity.stamp
    monkeypatch.setattr(integrity, "stamp", lambda path: (stamped.append(str(path)), stamp(path))[1])
    with store.one_look():
        assert store.is_done(job)
        before = len(stamped)
        assert store.is_done(job) and store.done(job) and not store.damage(job)
        assert len(stamped) == before, "no file is looked at again"
    (store.folder(job) / "DONE.json").write_text("{")
    with store.one_look():
        assert "DONE.json" in store.damage(job)


def test_what_mlflow_is_compared_with_takes_the_times_of_finished_jobs_from_the_look_and_is_the_same_without(tmp_path, monkeypatch):
    store, seen, unseen = Store(tmp_path), job_of("seen"), job_of("unseen")
    for job in (seen, unseen):
        leave(store, job)
    expected = fingerprint(store)
    with store.one_look():
        assert store.is_done(seen) and fingerprint(store) == expected
        asked: list[str] = []
        stat, exists = os.stat, os.path.exists
        monkeypatch.setattr(os, "stat", lambda path, *rest, **more: (asked.append(str(path)), stat(path, *rest, **more))[1])
        monkeypatch.setattr(os.path, "exists", lambda path: (asked.append(str(path)), exists(path))[1])
        assert fingerprint(store) == expected
        monkeypatch.undo()
        assert not [path for path in asked if seen.name in path] and [path for path in asked if unseen.name in path]
    os.utime(store.folder(seen) / "DONE.json", (1, 1))
    assert fingerprint(store) != expected


def test_what_another_process_finishes_during_a_look_is_found(tmp_path):
    store, late = Store(tmp_path), job_of("late")
    with store.one_look():
        assert not store.is_done(late)
        leave(Store(tmp_path), late)
        assert store.is_done(late) and late.key in store.seen_done()
    assert not store.seen_done(), "and nothing is believed once the look is over"


def test_an_input_is_compared_by_digest_even_during_a_look(tmp_path):
    store, job = Store(tmp_path), job_of("a")
    leave(store, job)
    with store.one_look():
        path = store.outputs(job) / "summary.json"
        path.write_text("[]")
        assert store.examined(job, loading=True).damage


def test_what_is_made_of_a_look_is_made_once(tmp_path):
    store, made = Store(tmp_path), []
    with store.one_look():
        with store.one_look():
            assert store.kept("trainings", lambda: made.append(1)) is None
        store.kept("trainings", lambda: made.append(2))
    store.kept("trainings", lambda: made.append(3))
    assert made == [1, 3]


def test_files_that_lie_among_the_kinds_folders_are_no_jobs(tmp_path):
    store, job = Store(tmp_path), job_of("a")
    leave(store, job)
    (tmp_path / "README.md").write_text("what lies here")
    (tmp_path / "count" / "notes.txt").write_text("mine")
    assert list(store.job_folders()) == [store.folder(job)] == [record.folder for record in store.records()]
