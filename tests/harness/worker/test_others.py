"""A checkpoint of others as a job: through the store, lmms-eval's own model, and back into the store."""

from __future__ import annotations

import json
import sys
import types

import pytest

from harness.jobs import Job, Source
from harness.plan.payload import payload
from harness.store import Record, Store
from harness.worker.attempt import Ending, Stop, run_attempt
from models.config import DecodeSpec, EvaluateSpec, System
from models.evaluation.tasks import digest
from tests.endpoint import KEY, endpoint
from tests.models.evaluation.conftest import mmvp, write_checkpoint

MIRROR = Job("mirror", {"benchmark": "mmvp"})


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """Holds the questions."""
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "results")
    store.ensure(MIRROR)
    attempt = store.begin_attempt(MIRROR)
    mmvp(attempt.out)
    store.publish(attempt, seconds=1.0)
    return store


def job_of(kind: str, system: System, source: Source) -> Job:
    decode = DecodeSpec(latent_steps=0, max_new_tokens=4)
    spec = EvaluateSpec(benchmark="mmvp", tasks=digest("mmvp"), decode=decode, system=system)
    return Job(kind, payload(spec), {"checkpoint": source, "mirror": MIRROR})


def attempted(store: Store, job: Job) -> Ending:
    record = Record.read(store.ensure(job))
    resources = {"threads": 1, "device": "cpu", "batch_size": 1}
    return run_attempt(
        store, record, store.begin_attempt(record), resources=resources, kept={}, stop=Stop(), provenance={}
    )


def test_a_server_that_fails_is_an_attempt_that_failed_and_the_next_one_asks_only_for_the_rest(store, monkeypatch):
    system = System(adapter="openai", model="tiny", arguments={"max_retries": 1, "retry_backoff_s": 0})
    job = job_of("ask", system, Source("endpoint:TESTS_ADDRESS:TESTS_KEY", "endpoint:tiny"))
    assert "TESTS_ADDRESS is not set" in attempted(store, job).message
    monkeypatch.setenv("TESTS_KEY", KEY)
    with endpoint(lambda request: "A" if len(server.requests) <= 4 else (400, "no more")) as server:
        monkeypatch.setenv("TESTS_ADDRESS", server.address)
        ending = attempted(store, job)
        assert not ending.well and "2 of 2 questions got no answer" in ending.message, ending.message
    with endpoint(lambda request: "B") as server:
        monkeypatch.setenv("TESTS_ADDRESS", server.address)
        assert attempted(store, job).well
        assert len(server.requests) == 2
    rows = [json.loads(line) for line in (store.outputs(job) / "samples.jsonl").read_text().splitlines()]
    assert sorted(row["prediction"] for row in rows) == ["A"] * 4 + ["B"] * 2


def test_a_checkpoint_of_others_is_evaluated_as_any_job(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", types.ModuleType("decord"))  # reads videos, of which there are none
    system = System(adapter="qwen2_5_vl", arguments={"min_pixels": 1024, "max_pixels": 262144})
    job = job_of("evaluate", system, Source(str(write_checkpoint(tmp_path / "theirs")), "a" * 64))
    ending = attempted(store, job)
    assert ending.well, ending.message
    rows = [json.loads(line) for line in (store.outputs(job) / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and all(row["latent_started"] is None and row["target"] in "AB" for row in rows)
    assert json.loads((store.outputs(job) / "result.json").read_text())["system"]["adapter"].endswith("Qwen2_5_VL")
