"""What a job is for, as people and MLflow's pages call it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from harness.cli.tracking import uses
from harness.jobs import Job, Source
from harness.plan import plan_experiment
from harness.store import Store
from harness.tracking import Use, save_labels
from harness.tracking.labels import labels
from tests.harness.conftest import Desk
from tests.harness.tracking.test_sync import sync

USE = Use("Joint / mmvp", "Joint", "mmvp", "paper", "own", "", "0", "Joint · MMVP · seed 0")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def test_a_part_of_a_table_adds_to_what_is_known_and_another_profile_leaves_it(store):
    save_labels(store, "3c", "proxy", {"a": [USE], "b": [USE]})
    save_labels(store, "3c", "proxy", {"a": [Use("other")]}, whole=False)
    save_labels(store, "3c", "smoke", {"c": [USE]})
    found = labels(store)
    assert set(found) == {"a", "b", "c"}
    assert found["a"].cells == ("other",) and found["b"].cells == ("Joint / mmvp",)
    save_labels(store, "3c", "proxy", {"a": [USE]})
    assert set(labels(store)) == {"a", "c"}, "a whole table says what is no longer part of it"


def test_a_job_of_several_rows_is_named_after_the_first_and_tagged_with_all(store):
    others = [Use(f"{row} / mmvp", row, seed="0", name=f"{row} · MMVP · seed 0") for row in ("B", "C")]
    save_labels(store, "3c", "proxy", {"a": [USE, *others]})
    label = labels(store)["a"]
    assert label.name == "Joint · MMVP · seed 0, B · MMVP · seed 0 and 1 more"
    assert label.tags()["row"] == "Joint, B, C" and label.tags()["seed"] == "0" and label.tags()["column"] == "mmvp"


def test_a_file_of_labels_that_cannot_be_read_labels_nothing(store):
    save_labels(store, "3c", "proxy", {"a": [USE]})
    path = next((store.root / ".tracking" / "labels").glob("*.json"))
    path.write_text(json.dumps({"a": ["as earlier versions wrote it"], "b": 3}))
    assert labels(store)["a"].uses == () and labels(store)["b"].uses == ()


def test_every_job_of_a_plan_has_a_use_and_evaluations_and_trainings_a_readable_name(desk: Desk):
    plan = plan_experiment(desk.table(), "proxy", seeds=2)
    found = uses(plan)
    assert set(found) == {job.key for job in plan.graph}
    cell = plan.cell("Two-stage (Ours)", "mmvp")
    assert found[cell.jobs[1, "own"].key][0].name == "Two-stage (Ours) · MMVP · seed 1"
    assert found[cell.jobs[0, "zeroed"].key][0].name == "Two-stage (Ours) · MMVP · seed 0 · latents zeroed"
    training = plan.checkpoints["Two-stage (Ours)"][1]
    assert [use.name for use in found[training.key]] == ["Two-stage (Ours) · stage2 · seed 1"]


def test_an_evaluation_stands_under_its_training_with_all_options_and_one_accuracy(store):
    train = {"stage": {"kind": "stage1", "p": 0.3}, "steps": 4}
    training = Job("train", train, {"init": Source("b", "ba5e")}, "stage1-seed0")
    evaluation = Job("evaluate", {"benchmark": "mmvp", "tasks": {"vr_mmvp": "0" * 64}}, {"checkpoint": training}, "stage1-mmvp")
    for job, outputs in ((training, {}), (evaluation, {"result.json": {"aggregates": {"accuracy": 0.75}}})):
        store.ensure(job)
        attempt = store.begin_attempt(job)
        for name, content in outputs.items():
            (attempt.out / name).write_text(json.dumps(content))
        store.publish(attempt, seconds=1.0)
    save_labels(store, "3c", "proxy", {evaluation.key: [USE]})
    result = sync(store.root)
    assert result.returncode == 0, result.stdout + result.stderr
    with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
        runs = dict(database.execute("select name, run_uuid from runs"))
        run = runs["Joint · MMVP · seed 0"]

        def stored(table: str) -> dict:
            return dict(database.execute(f"select key, value from {table} where run_uuid = ?", (run,)))

        assert stored("tags")["mlflow.parentRunId"] == runs[training.name]
        assert stored("tags")["seed"] == "0" and stored("tags")["input.checkpoint"].startswith(training.key[:12])
        assert stored("latest_metrics")["accuracy"] == 75.0
        assert stored("params")["decode.max_new_tokens"] and stored("params")["benchmark"] == "mmvp"
        assert not any("0" * 64 in value for value in stored("params").values())
        assert dict(database.execute("select key, value from experiment_tags"))["mlflow.experimentKind"] == "custom_model_development"
