"""A bundle carries results to somebody else, who can tell whether a byte of it was changed."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from harness.jobs import Job, Source
from harness.store import Damaged, Store, StoreError, bundle, files
from harness.store.jobs import is_whole, stored_jobs

BASE = Source("/home/somebody/models/base", "ba5e")


def finished(store: Store, kind: str, n: int, inputs: dict | None = None) -> Job:
    job = Job(kind, {"n": n}, {"init": BASE} if inputs is None else inputs, f"{kind}{n}")
    store.ensure(job)
    attempt = store.begin_attempt(job)
    (attempt.out / "samples.jsonl").write_text(json.dumps({"n": n}) + "\n")
    (attempt.out / "weights").mkdir()
    (attempt.out / "weights" / "w.bin").write_bytes(bytes([n]) * 5000)
    files.append(attempt.metrics, '{"time": 1, "step": 1, "total": 1, "values": {}}\n')
    assert store.publish(attempt, seconds=2.0, versions={"torch": "2"}, code={"commit": "c0de"})
    return job


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def answers(store: Store) -> list[Job]:
    training = finished(store, "train", 1)
    return [finished(store, "evaluate", n, {"checkpoint": training}) for n in (2, 3)]


@pytest.fixture
def exported(store: Store, answers: list[Job], tmp_path: Path) -> Path:
    spec = tmp_path / "table.yaml"
    spec.write_text("table: 1\n")
    path = tmp_path / "out" / "bundle.zip"
    assert bundle.write(path, store, answers, {"table.yaml": spec}, {"tables": []}) == {"store": 2, "lineage": 1}
    return path


def rewritten(path: Path, change) -> None:
    """The same zip file with changed entries: change(name, content) -> content, or None to leave it out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if (new := change(name, content)) is not None:
                archive.writestr(name, new)


def checked(path: Path) -> list[str]:
    with bundle.opened(path) as (folder, _):
        return [damage for _, _, damage in bundle.check(folder)]


def imported(path: Path, jobs: list[Job], into: Store) -> bundle.Taken:
    with bundle.opened(path) as (folder, _):
        theirs = {record.key: record for record, _, _ in bundle.check(folder)}
        return bundle.take(folder, [(job, theirs[job.key]) for job in jobs], into, path.name)


def test_what_was_exported_is_whole_and_an_import_makes_it_the_others_result(exported, answers, tmp_path):
    other = Store(tmp_path / "other")
    assert checked(exported) == ["", ""]
    assert len(imported(exported, answers, other).new) == 2
    assert all(Store(other.root).is_done(job) for job in answers)
    assert (other.outputs(answers[0], loading=True) / "samples.jsonl").read_text() == '{"n": 2}\n'
    done = other.done(answers[0])
    assert done["imported"]["from"] == "bundle.zip" and done["code"] == {"commit": "c0de"}
    again = imported(exported, answers, other)
    assert (len(again.new), len(again.known)) == (0, 2)


def test_an_importing_store_knows_the_trainings_that_it_does_not_hold(exported, answers, tmp_path):
    """Which evaluations differ in their seeds alone, and with it the seed noise of a column, rests on what was trained."""
    theirs = Store(tmp_path / "theirs")
    with bundle.opened(exported) as (folder, _):
        records = [record for record, _, _ in bundle.check(folder)]
        bundle.take(folder, zip(stored_jobs(Store(folder / "store"), records), records, strict=True), theirs, "b.zip")
    found = {job.key: job for job in stored_jobs(theirs) if job.kind == "evaluate"}
    assert found.keys() == {job.key for job in answers} and all(map(is_whole, found.values()))
    training = found[answers[0].key].inputs["checkpoint"]
    assert not theirs.is_done(training) and theirs.attempts(training) == []


def test_a_training_is_named_with_its_digests_but_its_weights_stay_at_home(exported, store, answers, tmp_path):
    with zipfile.ZipFile(exported) as archive:
        names = archive.namelist()
        done = next(name for name in names if name.startswith("lineage/train/") and name.endswith("DONE.json"))
        assert "weights/" in json.loads(archive.read(done))["outputs"]
    assert not any("weights" in name for name in names if name.startswith("lineage/"))
    bundle.write(tmp_path / "all.zip", store, answers, {}, {}, everything=True)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert any(name.startswith("store/train/") and name.endswith("w.bin") for name in archive.namelist())


def test_a_bundle_names_no_folder_of_the_machine_that_made_it(exported):
    with zipfile.ZipFile(exported) as archive:
        assert not any(b"/home/somebody" in archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize("ending", ["samples.jsonl", "DONE.json", "spec.json", "metrics.jsonl", "table.yaml"])
def test_a_changed_byte_in_any_file_is_noticed(exported, ending):
    rewritten(exported, lambda name, content: content.replace(b"2", b"7") + b" " if name.endswith(ending) else content)
    with pytest.raises(Damaged, match="differs from its digest"):
        checked(exported)


def test_a_result_edited_together_with_the_manifests_digests_is_noticed(exported):
    import hashlib

    from harness.identity import digest

    new = b'{"n": 99}\n'

    def change(name, content):
        if name.endswith("samples.jsonl"):
            return new
        if name == bundle.MANIFEST:
            text = json.loads(content)
            for file, entry in text["files"].items():
                if file.endswith("samples.jsonl"):
                    entry.update(sha256=hashlib.sha256(new).hexdigest(), bytes=len(new))
            del text["checksum"]
            return json.dumps({**text, "checksum": digest(text)}).encode()
        return content

    rewritten(exported, change)
    assert all("samples.jsonl" in damage for damage in checked(exported))


def test_a_manifest_without_its_checksum_or_with_another_is_refused(exported):
    rewritten(exported, lambda name, content: content.replace(b'"time"', b'"time "') if name == bundle.MANIFEST else content)
    with pytest.raises(Damaged, match="was edited"):
        checked(exported)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "store/../../outside", "a\\b"])
def test_a_file_that_would_land_outside_is_refused(exported, name):
    with zipfile.ZipFile(exported, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(Damaged, match="lists"):
        checked(exported)


def test_a_link_inside_is_refused(exported):
    with zipfile.ZipFile(exported) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(exported, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            if name.endswith("samples.jsonl"):
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content)
    with pytest.raises(Damaged, match="plain file"):
        checked(exported)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut"])
def test_what_is_no_bundle_is_one_line(tmp_path, content):
    path = tmp_path / "odd.zip"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not a bundle"):
        checked(path)
    with pytest.raises(StoreError, match="no such file"):
        checked(tmp_path / "none.zip")


def test_a_damaged_job_is_not_exported_and_nothing_is_left_behind(store, answers, tmp_path):
    (store.outputs(answers[0]) / "samples.jsonl").write_text("{}\n")
    with pytest.raises(Damaged, match="nothing was exported"):
        bundle.write(tmp_path / "out" / "b.zip", Store(store.root), answers, {}, {})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_job_with_other_outputs_here_is_kept_as_it_is(exported, answers, tmp_path):
    other = Store(tmp_path / "other")
    training = finished(other, "train", 1)
    mine = Job("evaluate", {"n": 2}, {"checkpoint": training}, "evaluate2")
    other.ensure_all([mine])
    attempt = other.begin_attempt(mine)
    (attempt.out / "samples.jsonl").write_text("mine\n")
    other.publish(attempt, seconds=1.0)
    taken = imported(exported, answers, other)
    assert (len(taken.new), len(taken.other)) == (1, 1)
    assert (other.outputs(mine) / "samples.jsonl").read_text() == "mine\n"


def test_a_registration_goes_along_and_does_not_replace_one_that_is_there(store, answers, tmp_path):
    home = store.root / bundle.REGISTERED / "table--p"
    home.mkdir(parents=True)
    (home / "0.json").write_text('{"theirs": 1}')
    bundle.write(tmp_path / "b.zip", store, answers, {}, {}, registered=["table--p"])
    fresh, mine = Store(tmp_path / "fresh"), Store(tmp_path / "mine")
    (mine.root / bundle.REGISTERED / "table--p").mkdir(parents=True)
    (mine.root / bundle.REGISTERED / "table--p" / "0.json").write_text('{"mine": 1}')
    for one in (fresh, mine):
        imported(tmp_path / "b.zip", answers, one)
    assert (fresh.root / bundle.REGISTERED / "table--p" / "0.json").read_text() == '{"theirs": 1}'
    assert (mine.root / bundle.REGISTERED / "table--p" / "0.json").read_text() == '{"mine": 1}'
