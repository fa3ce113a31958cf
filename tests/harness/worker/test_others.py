"""A checkpoint of others as a job: through the store, lmms-eval's own model, and back into the store."""

from __future__ import annotations

import json
import sys
import types

import pytest

from harness.jobs import Job, Source
from harness.plan.payload import payload
from harness.store import Record, Store
from harness.worker.attempt import Stop, run_attempt
from models.config import DecodeSpec, EvaluateSpec, System
from models.evaluation.tasks import digest
from tests.models.evaluation.conftest import mmvp, write_checkpoint


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    """The job, its mirror done."""
    monkeypatch.setitem(sys.modules, "decord", types.ModuleType("decord"))  # reads videos, of which there are none
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    checkpoint = write_checkpoint(tmp_path / "theirs")
    store, mirror = Store(tmp_path / "results"), Job("mirror", {"benchmark": "mmvp"})
    store.ensure(mirror)
    attempt = store.begin_attempt(mirror)
    mmvp(attempt.out)
    store.publish(attempt, seconds=1.0)
    system = System(adapter="qwen2_5_vl", arguments={"min_pixels": 1024, "max_pixels": 262144})
    decode = DecodeSpec(latent_steps=0, max_new_tokens=4)
    spec = EvaluateSpec(benchmark="mmvp", tasks=digest("mmvp"), decode=decode, system=system)
    return store, Job("evaluate", payload(spec), {"checkpoint": Source(str(checkpoint), "a" * 64), "mirror": mirror})


def test_a_checkpoint_of_others_is_evaluated_as_any_job(evaluation):
    store, job = evaluation
    record = Record.read(store.ensure(job))
    attempt = store.begin_attempt(record)
    resources = {"threads": 1, "device": "cpu", "batch_size": 2}
    ending = run_attempt(store, record, attempt, resources=resources, kept={}, stop=Stop(), provenance={})
    assert ending.well, ending.message
    rows = [json.loads(line) for line in (store.outputs(job) / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and all(row["latent_started"] is None and row["target"] in "AB" for row in rows)
    assert json.loads((store.outputs(job) / "result.json").read_text())["system"]["adapter"].endswith("Qwen2_5_VL")
