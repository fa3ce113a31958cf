"""Tidying keeps whatever is asked for, given, named or in hand, and what these were made from."""

from __future__ import annotations

import pytest

from harness.jobs import Job, Source
from harness.store import Owner, Store, StoreError, tags
from harness.store.unneeded import delete, unneeded
from tests.harness.store.test_bundle import finished


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def names(store: Store, jobs: list[Job], wanted: list[Job]) -> list[str]:
    return [one.job.name for one in unneeded(store, jobs, wanted)]


def test_what_a_wanted_job_was_made_from_is_kept(store):
    training, other = finished(store, "train", 1), finished(store, "train", 2)
    answers = finished(store, "evaluate", 3, {"checkpoint": training})
    found = unneeded(store, [training, other, answers], [answers])
    assert [one.job for one in found] == [other]
    assert found[0].bytes > 5000 and found[0].seconds == 2.0


def test_a_tagged_job_and_its_training_are_kept_until_the_tag_goes(store):
    training = finished(store, "train", 1)
    answers = finished(store, "evaluate", 2, {"checkpoint": training})
    tags.write(store.root, "camera-ready", [answers.key], "for the paper")
    assert names(store, [training, answers], []) == []
    tags.remove(store.root, "camera-ready")
    assert len(names(store, [training, answers], [])) == 2


def test_what_was_adopted_or_imported_is_kept(store):
    for fact in ("adopted", "imported"):
        job = Job("train", {"from": fact}, {"init": Source("b", "b")}, fact)
        store.ensure(job)
        attempt = store.begin_attempt(job)
        (attempt.out / "w").write_text("w")
        store.publish(attempt, seconds=0.0, **{fact: {"from": "elsewhere"}})
        assert names(store, [job], []) == []


def test_a_job_that_somebody_works_on_is_not_deleted_even_if_it_began_after_the_look(store):
    job = Job("train", {"n": 1}, {"init": Source("b", "b")}, "busy")
    store.ensure(job)
    assert names(store, [job], []) == [job.name]
    attempt = store.begin_attempt(job, Owner.here())
    assert names(store, [job], []) == []
    assert not delete(store, job) and attempt.path.exists()


def test_a_damaged_job_is_left_for_a_person_to_look_at(store):
    job = finished(store, "train", 1)
    (store.outputs(job) / "samples.jsonl").write_text("changed")
    assert names(Store(store.root), [job], []) == []


def test_a_deleted_job_is_missing_and_nothing_of_it_is_left(store):
    job = finished(store, "train", 1)
    home = store.folder(job)
    assert delete(store, job)
    assert not home.exists() and list((store.root / ".gc").iterdir()) == []
    assert not Store(store.root).is_done(job)


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden", "x" * 65])
def test_a_tag_that_is_no_file_name_is_refused(store, name):
    with pytest.raises(StoreError, match="no name for a tag"):
        tags.write(store.root, name, ["k"], "")


def test_a_tag_gains_jobs_and_keeps_its_note(store):
    tags.write(store.root, "t", ["a"], "why")
    tags.write(store.root, "t", ["b", "a"], "")
    (tag,) = tags.tags(store.root)
    assert (tag.keys, tag.note) == (("a", "b"), "why")
