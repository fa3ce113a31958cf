"""What a worker process does with one job."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import types
from pathlib import Path

import pydantic
import pytest

from harness.dispatch.driver.backend import GraphRun
from harness.jobs import Graph, Job, Source
from harness.kinds import kind_of
from harness.plan.sources import backbone
from harness.spec.files import load_profile
from harness.spec.profile import Resources
from harness.store import Record, State, Store, files
from harness.worker import functions
from harness.worker.attempt import AttemptRun, Stop, resolve_inputs
from harness.worker.causes import cause_of, one_line
from models.config import ProxyTraining
from models.run import Interrupted
from tests.harness.dispatch import graphs
from tests.harness.store.test_store import mounted


def wrapped(inner: BaseException) -> RuntimeError:
    try:
        raise RuntimeError("loading failed") from inner
    except RuntimeError as error:
        return error


def invalid() -> pydantic.ValidationError:
    try:
        ProxyTraining(n=0)
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ZeroDivisionError("x"), "code"),
        (Interrupted("at step 3"), "interrupted"),
        (MemoryError(), "oom"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage"),
        (wrapped(OSError(errno.EROFS, "Read-only file system")), "storage"),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "storage"),
        (Exception('Error while serializing: IoError(Os { code: 122, kind: FilesystemQuotaExceeded })'), "storage"),
        (Exception("Error while deserializing: No such file or directory (os error 2)"), "code"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "storage"),
        (RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed"), "storage"),
        (wrapped(RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed")), "storage"),
        (RuntimeError("[enforce fail at inline_container.cc:145] . PytorchStreamReader failed reading zip archive"), "code"),
        (wrapped(FileNotFoundError("x")), "code"),
        (FileNotFoundError(errno.ENOENT, "No such file", "boxes.json"), "input"),
        (invalid(), "input"),
    ],
)
def test_the_cause_of_a_failure_decides_about_trying_again(error, cause):
    assert cause_of(error) == cause
    assert "\n" not in one_line(error)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    job = Job("speak", {}, slug="speaks")
    assert graphs.run(Graph([job, Job("count", {"steps": 3}, slug="counts")]), root, slots=1).complete
    return Store(root), job


def test_everything_a_job_prints_is_in_its_attempts_log(done):
    store, job = done
    log = store.attempts(job)[0].log.read_text()
    assert f"speak {job.name}, attempt 1" in log
    assert all(
        line in log for line in ("from python", "from the process", "from a child", "threads 1 1 cpu", "done after")
    )


def test_done_says_which_code_and_versions_computed_it(done):
    store, job = done
    record = store.done(job)
    assert len(record["code"]["commit"]) in (0, 40) and "dirty" in record["code"]
    assert record["versions"]["python"].startswith("3.") and len(record["versions"]["all packages"]) == 16
    assert record["attempt"] == 1 and record["fence"] == [1, 0] and record["seconds"] >= 0


def test_outputs_are_recorded_with_their_digests(done):
    store, _ = done
    record = store.record("counts-" + Job("count", {"steps": 3}).key12)
    outputs = store.done(record)["outputs"]
    assert set(outputs) == {"result.json", "log of ends"} and len(outputs["result.json"]["sha256"]) == 64


def test_metrics_are_kept_while_the_disk_refuses_and_written_later(tmp_path):
    store, job = Store(tmp_path), Job("count", {"steps": 1})
    store.ensure(job)
    attempt = store.begin_attempt(job)
    run = AttemptRun(attempt, None, 1, "cpu", Stop())
    attempt.metrics.mkdir()  # stands for a file that cannot be opened
    run.log(1, 3, loss=0.5)
    attempt.metrics.rmdir()
    run.log(2, 3, loss=0.25)
    assert [row["step"] for row in files.read_lines(attempt.metrics)[0]] == [1, 2]


def test_a_newer_checkpoint_replaces_the_one_of_the_attempt_before_unless_another_attempt_reads_it(tmp_path):
    store, job = Store(tmp_path), Job("count", {"steps": 1})
    store.ensure(job)
    first = store.begin_attempt(job)
    first.fail("interrupted", "", "killed")
    old = first.checkpoints / "checkpoint-1"
    old.mkdir()
    second = AttemptRun(store.begin_attempt(job), old, 1, "cpu", Stop())
    second.attempt.fail("interrupted", "", "thought dead")
    third = AttemptRun(store.begin_attempt(job), old, 1, "cpu", Stop())
    second.saved()
    assert old.is_dir()
    third.saved()
    assert not old.exists()


def test_a_function_that_only_reports_progress_is_stopped_through_it(tmp_path):
    store, job = Store(tmp_path), Job("count", {"steps": 1})
    store.ensure(job)
    run = AttemptRun(store.begin_attempt(job), None, 1, "cpu", Stop(True, "SIGTERM"))
    with pytest.raises(Interrupted, match="SIGTERM"):
        run.progress(1, 10)


def inputs_of(tmp_path, source: Source) -> dict:
    store = Store(tmp_path / "results")
    return resolve_inputs(store, Record.read(store.ensure(Job("evaluate", {"benchmark": "mmvp"}, {"checkpoint": source}))))


def test_a_base_model_on_the_hub_is_fetched_by_its_name_and_revision(tmp_path, monkeypatch):
    profile = load_profile("a800")
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, revision: asked.append((name, revision)) or tmp_path)
    assert inputs_of(tmp_path, backbone(profile)) == {"checkpoint": tmp_path}
    assert asked == [(profile.value.backbone.repo, profile.value.backbone.revision)]


def test_a_server_is_no_folder_and_a_folder_that_is_gone_is_an_error_that_names_it(tmp_path):
    assert inputs_of(tmp_path, Source("endpoint:ADDRESS:KEY", "endpoint:gpt")) == {}
    with pytest.raises(FileNotFoundError, match="gone: checkpoint is no longer there"):
        inputs_of(tmp_path, Source(str(tmp_path / "gone"), "0" * 64))


def test_a_job_that_asks_a_server_needs_its_address(tmp_path, monkeypatch):
    monkeypatch.delenv("ADDRESS", raising=False)
    with pytest.raises(FileNotFoundError, match="ADDRESS is not set where this job runs"):
        functions._variable("ADDRESS")


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(LookupError, match="no kind of job is called 'bake'; there are .*train"):
        kind_of("bake")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_job_that_fills_the_disk_fails_in_one_line_and_is_done_once_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.dispatch.driver.retry.STORAGE_PAUSE_SECONDS", 0.1)
    monkeypatch.setitem(__import__("harness.dispatch.driver.retry").dispatch.driver.retry.TRIES, "storage", 1)
    job = Job("fill", {"bytes": 2**21}, slug="big")
    with mounted(tmp_path / "small", "size=1m"):
        outcome = graphs.run(Graph([job]), tmp_path / "small", slots=1)
        assert outcome.exit_code == 1 and len(outcome.problems) == 1
        assert "No space left on device" in str(outcome.problems[0])
        assert not list((tmp_path / "small").rglob("DONE*"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path / "small")], check=True)
        assert graphs.run(Graph([job]), tmp_path / "small", slots=1).complete
        assert Store(tmp_path / "small").state(job) is State.DONE
        assert (
            json.loads((Store(tmp_path / "small").folder(job) / "DONE.json").read_text())["outputs"]["big"]["bytes"]
            == 2**21
        )


def test_a_job_is_handed_every_resource_that_its_function_reads():
    given = GraphRun.settings(types.SimpleNamespace(resources={"evaluate": Resources(memory_gb=7)}), "evaluate")
    read = set(re.findall(r'context\.resources(?:\.get\(|\[)"(\w+)"', Path(functions.__file__).read_text()))
    assert read and read <= given.keys() and given["memory_gb"] == 7


@pytest.mark.parametrize(("tried", "size", "share"), [(None, 8, 0.5), (4, 4, 0.25)])
def test_an_evaluation_that_ran_out_of_memory_takes_a_smaller_share_of_the_gpu_too(tried, size, share):
    seen = {}
    session = types.SimpleNamespace(evaluate=lambda run, spec, **options: seen.update(options))
    spec = types.SimpleNamespace(system=None, precision="bf16", images=types.SimpleNamespace(orientation="upright"))
    functions.evaluate(
        types.SimpleNamespace(
            run=types.SimpleNamespace(ranks=1), spec=spec, inputs={"checkpoint": Path("c"), "mirror": Path("m")}, micro_batch=tried,
            resources=Resources(gpus=1, batch_size=8, cache_share=0.5).model_dump(), kept={"session": session, "session of": (Path("c"), "bf16")},
        )
    )  # fmt: skip
    assert seen == {"mirror": Path("m"), "batch_size": size, "cache_share": share}


@pytest.mark.parametrize(("tried", "size"), [(None, 5), (5, 5), (2, 1), (1, 1)])
def test_a_training_that_ran_out_of_memory_takes_a_micro_batch_that_its_ranks_can_share(tried, size, monkeypatch):
    seen = {}
    monkeypatch.setattr("models.training.train", lambda run, spec, **options: seen.update(options))
    monkeypatch.setattr(functions, "_threads", lambda count: None)
    spec = types.SimpleNamespace(stage=types.SimpleNamespace(kind="stage1", global_batch=40))
    functions.train(
        types.SimpleNamespace(
            run=types.SimpleNamespace(ranks=8, threads=1), spec=spec, inputs={}, micro_batch=tried, resources=Resources(micro_batch=5).model_dump()
        )
    )
    assert seen["micro_batch"] == size
