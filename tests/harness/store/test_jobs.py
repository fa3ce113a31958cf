"""Jobs as the store's spec.json files tell them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from harness.cli import main
from harness.jobs import Job, Known
from harness.kinds import KINDS, Kind
from harness.store import Store
from harness.store.jobs import is_whole, stored_jobs

KINDS.setdefault("digest", Kind("digest", print))


@pytest.fixture
def chain(tmp_path):
    store = Store(tmp_path)
    parent = Job("digest", {"n": 1}, slug="parent")
    child = Job("digest", {"n": 2}, {"x": parent}, "child")
    store.ensure_all([parent, child])
    return store, parent, child


def test_stored_jobs_are_the_jobs_that_were_planned(chain):
    store, parent, child = chain
    assert set(stored_jobs(store)) == {parent, child} and all(map(is_whole, stored_jobs(store)))
    (found,) = stored_jobs(store, [store.record(child.key)])
    assert found == child and found.inputs == {"x": parent} and found.slug == "child"
    assert stored_jobs(store, []) == []


def test_a_job_whose_parent_is_gone_has_its_key_and_is_not_whole(chain):
    store, parent, child = chain
    shutil.rmtree(store.folder(parent))
    (found,) = stored_jobs(store)
    assert found.key == child.key and not is_whole(found)


def test_a_damaged_parent_is_listed_once_with_its_whole_key(chain):
    store, parent, child = chain
    (store.folder(parent) / "spec.json").write_text("{")
    found = {job.key: job for job in stored_jobs(store)}
    assert set(found) == {parent.key, child.key} and isinstance(found[parent.key], Known)


def test_a_job_of_another_version_is_known_by_kind_and_key_alone(chain, monkeypatch):
    store, parent, child = chain
    monkeypatch.setitem(KINDS, "digest", replace(KINDS["digest"], version=2))
    assert {job.key for job in stored_jobs(store)} == {parent.key, child.key}
    assert all(isinstance(job, Known) and not is_whole(job) for job in stored_jobs(store))
    monkeypatch.delitem(KINDS, "digest")
    assert {job.key for job in stored_jobs(store)} == {parent.key, child.key}


def test_retry_does_not_begin_a_job_of_another_version(chain, monkeypatch, capsys):
    store, _, child = chain
    monkeypatch.setitem(KINDS, "digest", replace(KINDS["digest"], version=2))
    assert main(["retry", child.key[:12], "--results", str(store.root)]) == 2
    assert f"digest {child.name}: was made by another version of this program; run.py FILE computes it again" in capsys.readouterr().err
