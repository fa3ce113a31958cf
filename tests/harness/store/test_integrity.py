"""What a finished job left is checked when it is used, and damage is said in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.jobs import Job
from harness.kinds import KINDS, Kind
from harness.store import Damaged, State, Store, StoreError, files, integrity, outputs
from harness.store.done import seal

KINDS.setdefault("digest", Kind("digest", print))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def finished(store: Store, n: int, inputs: dict[str, Job] | None = None) -> Job:
    job = Job("digest", {"n": n}, inputs or {}, f"job{n}")
    store.ensure(job)
    attempt = store.begin_attempt(job)
    (attempt.out / "result.json").write_text(json.dumps({"n": n}))
    (attempt.out / "images").mkdir()
    for i in range(3):
        (attempt.out / "images" / f"{i}.bin").write_bytes(bytes([n, i]) * 50)
    files.append(attempt.metrics, '{"time": 1, "step": 1, "total": 1, "values": {}}\n')
    assert store.publish(attempt, seconds=1.0)
    return job


def again(store: Store) -> Store:
    """As another process sees it."""
    return Store(store.root)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """In place, with its old times."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 0x01
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def holding(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    write.__name__ = f"holding_{text or 'nothing'}"
    return write


WAYS = [emptied, cut, flipped, a_folder, a_dangling_link, a_pipe, holding("null"), holding("{}"), holding("[1]")]
FILES = [
    "DONE.json",
    "spec.json",
    "attempts/1/out/result.json",
    "attempts/1/out/images/1.bin",
    "attempts/1/metrics.jsonl",
]


@pytest.mark.parametrize("way", [*WAYS, os.unlink], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", FILES)
def test_every_damage_of_every_file_is_one_line_and_stops_what_depends_on_it(store, name, way):
    job = finished(store, 1)
    child = Job("digest", {"n": 2}, {"x": job}, "child")
    store.ensure(child)
    assert again(store).state(job) is State.DONE and again(store).state(child) is State.READY
    way(store.folder(job) / name)
    statuses = again(store).statuses([child, job])
    assert statuses[job.key].state is State.DAMAGED
    line = statuses[job.key].reason
    assert "\n" not in line and line.startswith(f"digest/{job.name}/") and f"run.py retry {job.key12} --damaged" in line
    assert name.removesuffix("/1.bin") in line and str(store.root) not in line
    assert statuses[child.key].state is State.BLOCKED and f"parent {job.name} damaged" in statuses[child.key].reason
    with pytest.raises(Damaged):
        again(store).outputs(job, loading=True)
    with pytest.raises(Damaged):
        again(store).begin_attempt(job)


def test_outputs_of_two_jobs_that_were_exchanged_are_both_damaged(store):
    first, second = finished(store, 1), finished(store, 2)
    one, two = (store.folder(job) / "attempts" / "1" / "out" for job in (first, second))
    for old, new in ((one, one.with_name("kept")), (two, one), (one.with_name("kept"), two)):
        old.rename(new)
    assert set(map(again(store).state, (first, second))) == {State.DAMAGED}


def test_another_jobs_done_file_is_damage_even_with_another_jobs_outputs(store):
    first, second = finished(store, 1), finished(store, 2)
    shutil.rmtree(store.folder(first))
    shutil.copytree(store.folder(second), store.folder(first), symlinks=True)
    assert f"another job ({second.key12})" in again(store).damage(first)


def test_an_edited_record_is_damage_though_it_fits_the_edited_outputs(store):
    job = finished(store, 1)
    out, done = store.outputs(job), store.folder(job) / "DONE.json"
    (out / "result.json").write_text('{"n": 7}')
    done.write_text(json.dumps({**json.loads(done.read_text()), "outputs": outputs.describe(out)}))
    assert "its checksum is another" in again(store).damage(job)


def test_a_record_lost_from_a_copied_store_is_damage_and_a_folder_removed_whole_is_a_fresh_start(store, tmp_path):
    lost, removed = finished(store, 1), finished(store, 2)
    assert again(store).is_done(lost) and again(store).is_done(removed)
    shutil.copytree(store.root, tmp_path / "copy", symlinks=True)
    copy = Store(tmp_path / "copy")
    (copy.folder(lost) / "DONE.json").unlink()
    shutil.rmtree(copy.folder(removed))
    copy = Store(tmp_path / "copy")
    copy.ensure_all([lost, removed])
    copy = Store(tmp_path / "copy")
    assert "DONE.json is missing" in copy.damage(lost)
    assert copy.damage(removed) == "" and not copy.is_done(removed)


def test_what_was_added_to_the_outputs_is_damage(store):
    job = finished(store, 1)
    (store.outputs(job) / "model-00002.safetensors").write_bytes(b"x")
    assert "was not there when the job was done; take it away, or" in again(store).damage(job)


def test_a_finished_job_without_its_spec_is_damage_and_is_not_passed_over(store):
    job = finished(store, 1)
    (store.folder(job) / "spec.json").unlink()
    assert "/spec.json is missing; put it back, or" in again(store).damage(job)
    assert again(store).damaged_specs() == {store.folder(job): "spec.json is missing"}


def test_a_file_in_the_place_of_the_outputs_is_called_a_file(store):
    job = finished(store, 1)
    out = store.outputs(job)
    shutil.rmtree(out)
    out.write_text("")
    assert "/out is a file instead of a folder; put it back, or" in again(store).damage(job)


def test_a_file_touched_or_copied_is_compared_once_and_remembered(store, monkeypatch, tmp_path):
    job = finished(store, 1)
    compared = []
    compare = integrity.compare
    monkeypatch.setattr(integrity, "compare", lambda *a: compared.append(1) or compare(*a))
    assert again(store).is_done(job) and not compared, "publishing remembers what it wrote"
    os.utime(store.outputs(job) / "result.json")
    assert again(store).is_done(job) and again(store).is_done(job) and len(compared) == 1
    shutil.copytree(store.root, tmp_path / "copy", symlinks=True)
    copy = Store(tmp_path / "copy")
    assert copy.is_done(job) and Store(copy.root).is_done(job) and len(compared) == 2


def test_a_job_that_loads_outputs_compares_digests_once_on_each_host(store, monkeypatch):
    job = finished(store, 1)
    compared = []
    compare = integrity.compare
    monkeypatch.setattr(integrity, "compare", lambda *a: compared.append(1) or compare(*a))
    for host in ("a", "a", "b", "b", "a"):
        monkeypatch.setattr("harness.store.store.host_name", lambda host=host: host)
        again(store).outputs(job, loading=True)
    assert len(compared) == 2


def test_rot_that_no_time_tells_of_is_found_on_loading_and_from_then_on_by_everybody(store, monkeypatch):
    job = finished(store, 1)
    monkeypatch.setattr(integrity, "stamp", lambda path, stamp=integrity.stamp: (s := stamp(path)) and [s[0], 1, 1, 1, s[4]])
    note = again(store)._note(store.folder(job))
    integrity.remember(store.folder(job), store.done(job), note)
    flipped(store.outputs(job) / "result.json")
    assert again(store).is_done(job), "size alone does not tell"
    with pytest.raises(Damaged):
        again(store).outputs(job, loading=True)
    assert again(store).state(job) is State.DAMAGED


def test_a_damaged_file_that_is_put_back_makes_the_job_whole_again(store):
    job = finished(store, 1)
    path = store.outputs(job) / "result.json"
    content = path.read_bytes()
    emptied(path)
    assert again(store).state(job) is State.DAMAGED
    path.write_bytes(content)
    assert again(store).state(job) is State.DONE


def test_a_damaged_job_that_is_set_aside_can_run_again_and_nothing_is_deleted(store):
    job = finished(store, 1)
    emptied(store.outputs(job) / "result.json")
    place = again(store).set_aside(store.folder(job))
    assert (place / "DONE.json").is_file()
    assert again(store).state(job) is State.READY
    assert finished(again(store), 1) == job and again(store).state(job) is State.DONE


@pytest.mark.parametrize("taken", [("checksum",), ("key",), ("key", "checksum"), ("key", "checksum", "curves")])
def test_a_seal_that_was_taken_off_is_damage(store, taken):
    job = finished(store, 1)
    done = store.folder(job) / "DONE.json"
    done.write_text(json.dumps({name: value for name, value in json.loads(done.read_text()).items() if name not in taken}))
    assert "lacks its key or its checksum" in again(store).damage(job)


def test_a_pipe_in_place_of_a_lock_is_one_line_and_nobody_waits(store):
    finished(store, 1)
    (store.root / ".locks" / "folders").unlink()
    os.mkfifo(store.root / ".locks" / "folders")
    with pytest.raises(StoreError, match="is a pipe or a socket"):
        finished(again(store), 2)


def test_the_seal_does_not_depend_on_the_order_of_fields_nor_on_how_numbers_are_written():
    assert seal({"a": 1.0, "b": [1, 2]})["checksum"] == seal({"b": [1, 2], "a": 1})["checksum"]


def test_lines_that_a_late_twin_appends_to_its_metrics_are_no_damage(store):
    job = finished(store, 1)
    files.append(store.winner(job).metrics, '{"time": 2, "step": 2, "total": 2, "values": {}}\n')
    assert again(store).state(job) is State.DONE


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", ["claim.json", "failure.json"])
def test_an_attempt_whose_notes_are_damaged_is_taken_over(store, name, way):
    job = Job("digest", {"n": 1}, {}, "one")
    store.ensure(job)
    attempt = store.begin_attempt(job)
    attempt.fail("code", "ValueError", "no such arm")
    way(attempt.path / name)
    status = again(store).status(job)
    assert status.state in (State.INTERRUPTED, State.FAILED) and "\n" not in status.reason
    assert again(store).begin_attempt(job).number == 2


def test_a_folder_that_was_removed_whole_is_no_damage(store):
    job = finished(store, 1)
    shutil.rmtree(store.folder(job))
    assert again(store).state(job) is State.READY
    again(store).ensure(job)
    assert again(store).state(job) is State.READY
    assert finished(again(store), 1) == job


def test_one_jobs_damaged_spec_does_not_hide_the_others(store):
    first, second = finished(store, 1), finished(store, 2)
    (store.folder(first) / "spec.json").write_text("{")
    assert [record.key for record in again(store).records()] == [second.key]
    assert list(again(store).damaged_specs()) == [store.folder(first)]
    with pytest.raises(StoreError):
        again(store).record(first.key)


@pytest.mark.parametrize("content", ['{"stamps": 3, "damage": 5, "members": [], "loaded": 7}', '{"stamps": {}}', "[]", "{", ""])
def test_a_spoiled_note_of_the_last_check_is_made_again(store, content):
    job = finished(store, 1)
    (note,) = (store.root / ".checks").iterdir()
    before = note.read_text()
    note.write_text(content)
    assert again(store).is_done(job) and again(store).outputs(job, loading=True)
    assert json.loads(note.read_text())["stamps"] == json.loads(before)["stamps"]


def test_a_file_where_a_folder_of_jobs_should_be_is_named(store):
    finished(store, 1)
    shutil.rmtree(store.root / "digest")
    (store.root / "digest").write_text("")
    with pytest.raises(StoreError, match=r"results/digest\S*: Not a directory; take it away, or choose") as caught:
        again(store).ensure(Job("digest", {"n": 2}, {}, "job2"))
    assert "\n" not in str(caught.value)
