"""Copying a store to MLflow, with a real database."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from harness import tracking
from harness.jobs import Graph, Job
from harness.kinds import KINDS
from harness.store import Store
from harness.tracking.fingerprint import signature
from harness.tracking.query import own_links
from tests.harness.dispatch import graphs
from tests.warm import Warm

WARM = Warm(
    "harness.tracking.sync",
    *("mlflow", "mlflow.entities", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.artifact.local_artifact_repo"),
)
"""Most processes here begin with MLflow imported. `synced` and the first question start Python, as drivers do."""


def sync(root, *, cold=False, **environment):
    """What a driver's child does, to its end."""
    return process("harness.tracking", root, cold=cold, **environment)


def process(module, *arguments, cold=False, **environment):
    environment = {**os.environ, **environment}
    if not cold:
        return WARM.run(module, *map(str, arguments), cwd=graphs.REPOSITORY, env=environment)
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=graphs.REPOSITORY,
        env=environment,
        timeout=240,
    )


def ask(root, keys, *, cold=False, **environment):
    """Why MLflow could not be asked; each job's numbers, tags and address; each job's curve; where each run's artifacts are."""
    answer = process("tests.harness.tracking.asking", root, json.dumps(keys), cold=cold, **environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def synced(tmp_path_factory):
    root = tmp_path_factory.mktemp("synced")
    graph = Graph([*graphs.diamond(steps=5), Job("raise", {"arm": {"lr": 0.1}}, slug="bad")])
    graphs.run(graph, root)
    tracking.save_labels(Store(root), "3c", "proxy", {job.key: [tracking.Use("Stage 1 Only / mmvp")] for job in graph})
    assert not tracking.up_to_date(Store(root))
    result = sync(root, cold=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return root, graph


def test_each_job_has_one_run_with_its_tags_numbers_and_curve(synced):
    root, graph = synced
    unreachable, runs, curves, _ = ask(root, [job.key for job in graph], cold=True)
    assert not unreachable and set(runs) == {job.key for job in graph}
    first = next(iter(graph))
    metrics, tags, link = runs[first.key]
    assert metrics["final.step"] == 5 and metrics["loss"] == 0.2
    assert tags["kind"] == "count" and tags["tables"] == "3c" and tags["cells"] == "Stage 1 Only / mmvp"
    assert tags["state"] == "done" and "/runs/" in link
    assert [step for _, step, _ in curves[first.key]] == [1, 2, 3, 4, 5]
    begun = Store(root).attempts(first)[0].claim["started"]
    assert all(0 <= time / 1000 - begun < 60 for time, _, _ in curves[first.key]), "with the times of the job itself"
    failed = next(tags for _, tags, _ in runs.values() if tags["kind"] == "raise")
    assert failed["state"] == "failed" and failed["failure"] == "ZeroDivisionError: the arm divides by zero"


def test_what_maps_and_measure_jobs_found_reaches_mlflow(tmp_path):
    store = Store(tmp_path)
    found = {"maps": {"benchmark": None, "samples": [{"in_box": {"teacher": 1.0}}]}, "measure": {"full_size": {"step_flops": 7.5}}}
    for kind, content in found.items():
        job = Job(kind, {}, slug="one")
        store.ensure(job)
        attempt = store.begin_attempt(job)
        (attempt.out / f"{kind}.json").write_text(json.dumps(content))
        store.publish(attempt, seconds=1.0)
    result = sync(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    _, runs, *_ = ask(tmp_path, [job.key for job in store.records()])
    assert [metrics.get("final.full_size.step_flops") for metrics, _, _ in runs.values()].count(7.5) == 1
    assert {path.name for path in tmp_path.rglob("artifacts/m*.json")} == {"maps.json", "measure.json"}


def test_a_finished_job_whose_kind_gains_an_artifact_is_copied_again(synced, monkeypatch):
    root, graph = synced
    job = next(iter(graph))
    before = signature(Store(root), job.kind, job.name)
    monkeypatch.setitem(KINDS, "count", replace(KINDS["count"], artifacts=("result.json", "more.json")))
    assert signature(Store(root), job.kind, job.name) != before


def test_when_nothing_changed_nothing_is_copied_and_mlflow_is_not_imported(synced):
    root, _ = synced
    script = (
        "import sys; from harness import tracking; from harness.store import Store; "
        "assert tracking.start(Store(sys.argv[1]), running=False).process is None; "
        "assert 'mlflow' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(root)], cwd=graphs.REPOSITORY, check=True)


def test_a_report_reads_the_addresses_of_runs_without_mlflow_and_they_are_mlflows(synced):
    root, graph = synced
    script = (
        "import json, sys; from harness.store import Store; from harness.tracking import Tracker; "
        "print(json.dumps(Tracker(Store(sys.argv[1])).links(sys.argv[2:]))); assert 'mlflow' not in sys.modules"
    )
    keys = [job.key for job in graph]
    answer = subprocess.run([sys.executable, "-c", script, str(root), *keys], cwd=graphs.REPOSITORY, check=True, capture_output=True, text=True)
    assert json.loads(answer.stdout) == {key: run[2] for key, run in ask(root, keys)[1].items()} and len(keys) == len(graph)


def test_deleting_the_database_loses_nothing(synced):
    root, graph = synced
    keys = [job.key for job in graph]
    before = ask(root, keys)
    (root / "mlflow.db").unlink()
    unreachable, stored, *_ = ask(root, keys)
    assert "no database yet; read from the results folder instead" in unreachable
    assert stored[keys[0]][0] == {"final.step": 5.0}
    assert not tracking.up_to_date(Store(root))
    assert sync(root).returncode == 0
    after = ask(root, keys)
    assert after[2] == before[2]
    for key in keys:
        assert after[1][key][0] == before[1][key][0]
        assert after[1][key][1] == before[1][key][1]


@pytest.mark.parametrize("content", [b"", b"garbage" * 500, None], ids=["emptied", "garbage", "torn"])
def test_a_database_that_is_none_any_more_is_kept_aside_and_made_again(synced, content, tmp_path):
    root, graph = copied(synced, tmp_path)
    database = root / "mlflow.db"
    assert sync(root).returncode == 0
    broken = database.read_bytes()[:40_000] + b"x" * 5000 if content is None else content
    database.write_bytes(broken)
    assert not tracking.up_to_date(Store(root)) and own_links(Store(root)) is None
    result = sync(root)
    assert result.returncode == 0 and "made again from the store" in result.stdout
    unreachable, runs, *_ = ask(root, [job.key for job in graph])
    assert not unreachable and all(run[2] for run in runs.values()) and len(runs) == len(graph)
    assert (root / "mlflow.db.damaged-1").read_bytes() == broken


def test_a_pipe_in_the_database_s_place_is_set_aside_and_nobody_waits_for_it(synced, tmp_path):
    root, _graph = copied(synced, tmp_path)
    (root / "mlflow.db").unlink()
    os.mkfifo(root / "mlflow.db")
    assert not tracking.up_to_date(Store(root)) and own_links(Store(root)) is None
    result = sync(root)
    assert result.returncode == 0 and "mlflow.db is not a regular file; kept as mlflow.db.damaged-1, and made again" in result.stdout


def copied(synced, tmp_path):
    root, graph = synced
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy", graph


def test_a_copied_store_writes_nothing_into_the_original(synced, tmp_path):
    root, graph = synced
    sync(root)
    copy, _ = copied(synced, tmp_path)
    before = {path: path.stat().st_ctime_ns for path in root.rglob("*") if path.is_file()}
    for done in copy.glob("*/*/DONE.json"):
        os.utime(done)
    assert sync(copy).returncode == 0
    assert {path: path.stat().st_ctime_ns for path in root.rglob("*") if path.is_file()} == before
    *_, places = ask(copy, [job.key for job in graph])
    assert {place.rpartition("/mlartifacts/")[0] for place in places} == {copy.as_uri()}


def test_an_experiment_deleted_in_mlflow_is_one_line_with_the_remedy(synced, tmp_path):
    root, graph = copied(synced, tmp_path)
    sync(root)
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("update experiments set lifecycle_stage = 'deleted' where name = 'vreflection'")
    assert own_links(Store(root)) is None
    result = sync(root)
    assert result.returncode == 1 and "mlflow experiments restore --experiment-id 1" in result.stdout.splitlines()[-1]
    unreachable, runs, *_ = ask(root, [job.key for job in graph])
    assert "was deleted there; restore it" in unreachable and "\n" not in unreachable and runs


def test_two_stores_share_one_database_that_both_make_at_once_and_keep_their_runs_apart(tmp_path):
    """A copy has the same keys; a moved store stays the same."""
    job = Job("count", {"steps": 2}, slug="one")
    graphs.run(Graph([job]), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True)
    shared = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'shared.db'}"}
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda name: sync(tmp_path / name, **shared), "ab"))
    assert [result.returncode for result in ended] == [0, 0], [result.stdout + result.stderr for result in ended]
    runs = {name: ask(tmp_path / name, [job.key], **shared)[1][job.key] for name in "ab"}
    assert runs["a"][2] != runs["b"][2]
    assert (tmp_path / "mlartifacts").is_dir() and not (graphs.REPOSITORY / "mlruns").exists()
    (tmp_path / "a").rename(tmp_path / "moved")
    assert sync(tmp_path / "moved", **shared).returncode == 0
    assert ask(tmp_path / "moved", [job.key], **shared)[1][job.key][2] == runs["a"][2]


def test_copying_again_makes_no_second_run(synced):
    root, graph = synced
    (root / ".tracking" / "mirrored.json").unlink()
    assert sync(root).returncode == 0
    *_, places = ask(root, [job.key for job in graph])
    assert len(places) == len(graph)


def test_an_unreachable_server_is_said_in_one_line_and_the_store_answers(synced):
    root, graph = synced
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    unreachable, runs, *_ = ask(root, [next(iter(graph)).key], **nowhere)
    assert unreachable.startswith("MLflow at http://127.0.0.1:9: ") and "\n" not in unreachable
    assert len(runs) == 1
    result = sync(root, **nowhere)
    assert result.returncode == 1 and "MLflow at http://127.0.0.1:9" in result.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_running_job_is_copied_while_it_runs(tmp_path):
    job = Job("count", {"steps": 100_000, "pause": 0.05}, slug="long")
    sync(tmp_path)  # make the database before there is anything to show
    follower = tracking.start(Store(tmp_path))
    script = (
        "import sys; from pathlib import Path; from tests.harness.dispatch import graphs, kinds; "
        "from harness.jobs import Graph, Job; "
        "graphs.run(Graph([Job('count', {'steps': 100_000, 'pause': 0.05}, slug='long')]), Path(sys.argv[1]))"
    )
    driver = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=graphs.REPOSITORY)
    try:
        graphs.wait_until(lambda: "loss" in ask(tmp_path, [job.key])[1].get(job.key, [{}])[0], 600)
        assert ask(tmp_path, [job.key])[1][job.key][1]["state"] == "running"
    finally:
        for lease in graphs.live_workers(tmp_path):
            os.kill(lease.owner.pid, 9)
        driver.kill()
        driver.wait()
    assert follower.finish() == ""
    assert ask(tmp_path, [job.key])[1][job.key][1]["state"] == "interrupted"


@pytest.mark.parametrize(
    "address",
    ["{}/my runs", "sqlite:///{}/my runs.db", *(pytest.param(form, marks=pytest.mark.slow) for form in ("file:{}/mlruns", "file://{}/my%20runs"))],
)
def test_folders_and_files_as_tracking_addresses_work(synced, tmp_path, address):
    root, graph = synced[:2]
    address = address.format(tmp_path)
    result = sync(root, MLFLOW_TRACKING_URI=address)
    assert result.returncode == 0, result.stdout + result.stderr
    unreachable, runs, *_ = ask(root, [job.key for job in graph], MLFLOW_TRACKING_URI=address)
    assert not unreachable and len(runs) == len(graph)
    assert [path for path in tmp_path.iterdir() if path.name in ("mlruns", "my runs", "my runs.db")]


def test_databricks_without_an_account_is_one_line_and_the_store_answers(synced, tmp_path):
    root, graph = synced[:2]
    given = {"MLFLOW_TRACKING_URI": "databricks", "HOME": str(tmp_path)}
    result = sync(root, **given)
    assert result.returncode == 1 and result.stdout.splitlines()[-1].startswith("MLflow at databricks: ")
    unreachable, runs, *_ = ask(root, [next(iter(graph)).key], **given)
    assert unreachable.startswith("MLflow at databricks: ") and "\n" not in unreachable and len(runs) == 1
