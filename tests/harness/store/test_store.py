"""Claims, attempts, publication: what must hold however processes race and die."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.jobs import Job
from harness.kinds import KINDS, Kind
from harness.store import AlreadyDone, Held, Owner, State, Store, StoreError, files, leases
from harness.store.attempts import create_attempt
from harness.store.owners import FRESH_SECONDS

KINDS.setdefault("digest", Kind("digest", print))
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def job():
    return Job("digest", {"a": 1}, slug="first")


@pytest.fixture
def gone():
    """The owner of a process that has ended."""
    process = subprocess.Popen(["sleep", "60"])
    owner = Owner.here(process.pid)
    process.kill()
    process.wait()
    return owner


def finish(store, attempt, text="{}"):
    (attempt.out / "result.json").write_text(text)
    return store.publish(attempt, seconds=1.0)


def test_a_job_goes_through_its_states(store, job, gone):
    child = Job("digest", {"b": 1}, {"x": job}, "second")
    assert store.state(job) is State.READY and store.state(child) is State.MISSING
    assert not store.root.exists(), "looking creates nothing"
    store.ensure(job)
    attempt = store.begin_attempt(job)
    assert store.state(job) is State.RUNNING
    attempt.fail("code", "ValueError", "no such arm", "Traceback")
    assert store.status(job).reason == "ValueError: no such arm" and store.state(job) is State.FAILED
    assert store.state(child) is State.BLOCKED and f"parent {job.name} failed" in store.status(child).reason
    store.begin_attempt(job, gone)
    assert store.state(job) is State.INTERRUPTED and "is gone" in store.status(job).reason
    assert finish(store, store.begin_attempt(job))
    assert store.state(job) is State.DONE and store.state(child) is State.READY
    assert json.loads((store.outputs(job) / "result.json").read_text()) == {}
    with pytest.raises(AlreadyDone):
        store.begin_attempt(job)


def test_two_slugs_of_one_key_are_one_job(store, job):
    other = Job("digest", {"a": 1}, slug="another name")
    assert store.ensure(job) == Store(store.root).ensure(other)
    finish(store, store.begin_attempt(job))
    assert Store(store.root).state(other) is State.DONE


def test_a_live_owner_keeps_its_job(store, job):
    store.ensure(job)
    process = subprocess.Popen(["sleep", "60"])
    try:
        store.begin_attempt(job, Owner.here(process.pid))
        with pytest.raises(Held):
            store.begin_attempt(job)
        with pytest.raises(StoreError, match="is alive; stop it first"):
            store.release(job)
    finally:
        process.kill()
        process.wait()
    assert store.begin_attempt(job).number == 2


def test_a_recycled_process_id_is_not_the_owner(store, job):
    store.ensure(job)
    me = Owner.here()
    store.begin_attempt(job, replace(me, start_time=me.start_time - 1))
    assert store.state(job) is State.INTERRUPTED
    assert store.begin_attempt(job).number == 2


def test_another_boot_of_this_host_owns_nothing_once_its_heartbeat_has_ceased(store, job):
    store.ensure(job)
    attempt = store.begin_attempt(job, replace(Owner.here(), boot="another-boot-id"))
    assert store.state(job) is State.RUNNING, "it may be another machine with our host name"
    with pytest.raises(Held):
        store.begin_attempt(job)
    os.utime(attempt.path / "claim.json", (1, time.time() - 2 * FRESH_SECONDS))
    assert store.state(job) is State.INTERRUPTED
    assert store.begin_attempt(job).number == 2


def test_a_lease_of_another_boot_of_this_host_counts_while_its_worker_renews_it(store):
    leases.write(store, leases.Lease("a", replace(Owner.here(), boot="another-boot-id"), None, "plan"))
    path = leases.path_of(store, "a")
    os.utime(path, (1, time.time() - 2 * FRESH_SECONDS))
    assert not leases.read(store, "a").alive()
    leases.beat(store, "a")
    assert leases.read(store, "a").alive()


def test_another_hosts_claim_is_only_taken_after_release(store, job):
    store.ensure(job)
    attempt = store.begin_attempt(job, replace(Owner.here(), host="elsewhere", boot="x"))
    os.utime(attempt.path / "claim.json", (1, time.time() - 3600))
    status = store.status(job)
    assert status.state is State.RUNNING and f"run.py release {job.key12}" in status.reason
    with pytest.raises(Held, match="elsewhere"):
        store.begin_attempt(job)
    store.release(job)
    assert store.begin_attempt(job).number == 2
    assert not finish(store, attempt), "the released owner comes back too late"


def test_a_late_twin_discards_its_output(store, job, gone):
    store.ensure(job)
    twin = store.begin_attempt(job, gone)
    second = store.begin_attempt(job)
    assert finish(store, second, '{"by": 2}')
    twin.out.mkdir(exist_ok=True)
    assert not finish(store, twin, '{"by": 1}')
    assert json.loads((store.outputs(job) / "result.json").read_text()) == {"by": 2}
    assert store.done(job)["fence"] == [2, 0]


def _race(root: str) -> int:
    try:
        attempt = Store(root).begin_attempt(Job("digest", {"a": 1}, slug="first"))
    except (Held, AlreadyDone):
        return 0
    time.sleep(0.05)
    return attempt.number


def test_of_many_processes_one_gets_the_job(store, job):
    store.ensure(job)
    with ProcessPoolExecutor(8) as pool:
        numbers = list(pool.map(_race, [str(store.root)] * 40))
    assert sorted(numbers)[-2:] == [0, 1]


def test_an_attempt_number_is_given_once(store, job):
    folder = store.ensure(job)
    assert create_attempt(folder, 1, Owner.here()) is not None
    assert create_attempt(folder, 1, Owner.here()) is None
    assert sorted(os.listdir(folder / "attempts")) == ["1"]


def test_a_stale_grant_is_refused(store, job, gone):
    store.ensure(job)
    store.begin_attempt(job, gone)
    with pytest.raises(Held, match="attempt 1 was asked for, but 2 comes next"):
        store.begin_attempt(job, number=1)


def test_the_newest_whole_checkpoint_is_where_the_next_attempt_resumes(store, job, gone):
    store.ensure(job)
    first, second = store.begin_attempt(job, gone), store.begin_attempt(job)
    for attempt, step, whole in ((first, 100, True), (first, 300, False), (second, 200, True), (second, 50, True)):
        folder = attempt.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "COMPLETE").touch()
    kept = store.resume_point(job)
    assert kept == second.checkpoints / "checkpoint-200"
    store.keep_only(job, kept)
    assert sorted(first.job_folder.glob("attempts/*/checkpoints/*")) == [kept], "half-written and older ones go"
    finish(store, second)
    assert store.resume_point(job) is None and not first.out.exists(), "after DONE checkpoints and losers' outputs go"
    assert (store.folder(job) / "out").resolve() == second.out.resolve()


def test_a_torn_last_line_is_left_and_a_torn_middle_line_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st{"step": 2}\n{"step": 3}\n{"step"')
    rows, offset = files.read_lines(path)
    assert [row["step"] for row in rows] == [1, 3]
    with path.open("a") as file:
        file.write(": 4}\n")
    assert files.read_lines(path, offset)[0] == [{"step": 4}]
    assert files.last_line(path) == {"step": 4}
    assert files.read_lines(tmp_path / "none")[0] == []


def test_a_killed_writer_leaves_the_old_json_or_the_new_one(tmp_path):
    path = tmp_path / "claim.json"
    files.write_json(path, {"n": -1, "pad": "x" * 200_000})
    script = (
        "import sys; from pathlib import Path; from harness.store import files\n"
        "for n in range(10**9): files.write_json(Path(sys.argv[1]), {'n': n, 'pad': 'x' * 200_000}, durable=False)"
    )
    for moment in (0.3, 0.5, 0.6):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=REPOSITORY)
        time.sleep(moment)
        process.kill()
        process.wait()
        assert len(files.read_json(path)["pad"]) == 200_000


def test_of_many_publications_one_counts(tmp_path):
    path = tmp_path / "DONE.json"
    with ProcessPoolExecutor(8) as pool:
        won = list(pool.map(files.link_json, [path] * 32, range(32)))
    assert sum(won) == 1 and files.read_json(path) == won.index(True)


def test_keys_are_found_by_their_beginning(store, job):
    folder = store.ensure(job)
    assert store.record(job.key[:6]).folder == folder
    with pytest.raises(StoreError, match="no such job"):
        store.record("ffff")


def test_a_beginning_that_says_too_little_names_some_of_the_jobs_it_fits(store, job):
    name = store.ensure(job).name
    (store.root / "mlartifacts" / job.key[:32]).mkdir(parents=True)
    assert store.record(job.key[:6]).folder.name == name, "a folder of MLflow's is no job"
    with pytest.raises(StoreError, match=f'"{job.key[:2]}": one job has a key that begins so \\({name}\\); write more of it, at least 4 digits'):
        store.record(job.key[:2])
    with pytest.raises(StoreError, match=f"is no job's whole name; did you mean one of {name}"):
        store.record(name[:-8])
    for number in range(9):
        (store.root / job.kind / f"other-{number}-{job.key[:4]}{number:08}").mkdir()
    with pytest.raises(StoreError, match=r"10 jobs have keys that begin so \(.* and 5 more\); write more of it"):
        store.record(job.key[:4])


def test_a_lease_of_a_dead_worker_counts_for_nothing(store, job, gone):
    store.ensure(job)
    lease = leases.Lease("a", gone, None, "plan", remaining=(job.key,))
    leases.write(store, lease)
    assert store.state(job) is State.READY
    leases.update(store, "a", owner=Owner.here())
    assert store.state(job) is State.SUBMITTED


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_ends_in_one_line_and_leaves_nothing_half_written(tmp_path, job):
    with mounted(tmp_path / "small", "size=64k"):
        store = Store(tmp_path / "small")
        store.ensure(job)
        attempt = store.begin_attempt(job)
        with pytest.raises(OSError) as full, (attempt.out / "big").open("wb") as file:
            file.write(b"x" * 10**6)
        assert full.value.errno == errno.ENOSPC
        with pytest.raises(StoreError, match="no space left to write .* free some or choose another results folder"):
            store.ensure_writable()
        (attempt.out / "big").unlink()
        assert finish(store, attempt), "the same attempt goes on once there is room"
        assert not list(store.root.rglob(".DONE*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_store_is_said_in_one_line_and_can_still_be_read(tmp_path, job):
    with mounted(tmp_path / "small", "size=1m"):
        store = Store(tmp_path / "small")
        store.ensure(job)
        finish(store, store.begin_attempt(job))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "small")], check=True)
        assert Store(store.root).state(job) is State.DONE
        with pytest.raises(StoreError) as error:
            store.ensure_writable()
        assert str(error.value).startswith(str(store.root)) and "\n" not in str(error.value)
        assert "make it writable or choose another results folder" in str(error.value)


def test_several_drivers_of_one_process_may_ask_at_once_whether_the_store_can_be_written(store):
    with ThreadPoolExecutor(4) as pool:
        for asked in [pool.submit(store.ensure_writable) for _ in range(400)]:
            asked.result()
    assert not list(store.root.iterdir())


def test_a_disk_that_refuses_for_a_moment_is_waited_for():
    tries = []

    def publish() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EROFS, "Read-only file system")
        return "published"

    assert files.patiently(publish) == "published"


def test_looking_at_a_hundred_finished_jobs_takes_milliseconds(store):
    jobs = [Job("digest", {"n": n}, slug="many") for n in range(100)]
    for job in jobs:
        store.ensure(job)
        finish(store, store.begin_attempt(job))
    started = time.perf_counter()
    statuses = Store(store.root).statuses(jobs)
    assert time.perf_counter() - started < 0.2
    assert {status.state for status in statuses.values()} == {State.DONE}


class mounted:
    """A small file system at `path` meanwhile."""

    def __init__(self, path: Path, options: str) -> None:
        self.path, self.options = path, options

    def __enter__(self) -> None:
        self.path.mkdir()
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", self.options, "none", str(self.path)], check=False)
        if result.returncode:
            pytest.skip("this root may not mount")

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


def test_many_jobs_cost_one_look_at_a_folder_not_one_each(store, monkeypatch):
    looks = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": looks.append(path) or scandir(path))
    jobs = [Job("digest", {"n": n}, slug="many") for n in range(50)]
    folders = store.ensure_all(jobs)
    assert all(json.loads((folders[job.key] / "spec.json").read_text())["key"] == job.key for job in jobs)
    others = [Job("digest", {"m": n}, slug="absent") for n in range(50)]
    store.statuses(jobs + others)
    assert not any(store.is_done(job) for job in others)
    assert len(looks) <= 4
    late = Job("digest", {"m": 0}, slug="late")
    Store(store.root).ensure(late)
    assert store.folder(others[0]).name.startswith("late-"), "what another process made later is found"
