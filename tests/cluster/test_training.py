"""Real training and evaluation by several tasks of a SLURM job: sharded, stopped, requeued, ended with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.jobs import Graph, Job, Source
from harness.plan.payload import payload
from harness.spec.profile import Resources
from harness.store import Store
from models.config import DecodeSpec, EvaluateSpec, Images, ProxyMirror, TrainSpec
from models.evaluation.tasks import digest
from models.methods.vreflection.spec import Stage1
from tests.cluster.conftest import background, drive, entry, scheduler_id, small, step, until

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
TRAINING = Resources(processes=2, gpus=0, memory_gb=6, minutes=60, micro_batch=1, deepspeed="zero3")
IMAGES = Images(min_pixels=28 * 28, max_pixels=512 * 512)


def training(folder: Path, steps: int) -> Job:
    stage = Stage1(steps=steps, global_batch=4, lr=1e-3, precision="fp32", granularity="sample")
    spec = TrainSpec(stage=stage, latent_steps=2, images=IMAGES, vision="live", packing="packed", seed=3)
    inputs = {"init": Source(str(folder / "base"), "base"), "data": Source(str(folder / "data"), "data")}
    return Job("train", payload(spec), inputs, "stage1")


def digest_of(root: Path, job: Job, name: str) -> str:
    return Store(root).done(job)["outputs"][name]["sha256"]


def test_a_zero3_training_that_is_stopped_and_queued_again_ends_with_the_same_bits(cluster, tmp_path):
    from tests.models.training.conftest import write_base, write_data

    for name in ("base", "data"):
        (tmp_path / name).mkdir()
    write_base(tmp_path / "base")
    write_data(tmp_path / "data", 16, several=True)
    job = training(tmp_path, steps=40)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    outcome = drive(Graph([job]), calm, resources=lambda kind: TRAINING)
    assert outcome.complete, [str(problem) for problem in outcome.problems]

    driver = background(Graph([job]), rough, resources=lambda kind: TRAINING)
    until(lambda: step(rough, job) >= 2, 300)
    id_ = scheduler_id(rough, job)
    cluster.run("scancel", "--signal=USR2", id_)
    outcome = driver.end(600)
    assert outcome.complete, [str(problem) for problem in outcome.problems]
    first, last = Store(rough).attempts(job)
    assert first.failure.cause == "interrupted" and int(entry(cluster, id_)[2]) == 1
    assert "resumes from" in last.log.read_text()
    assert digest_of(rough, job, "model.safetensors") == digest_of(calm, job, "model.safetensors")
    rows = [json.loads(line)["step"] for line in last.metrics.read_text().splitlines()]
    assert rows[0] > 2 and rows[-1] == 40


def test_an_evaluation_by_three_tasks_leaves_what_one_leaves(cluster, tmp_path):
    mirror = Job("mirror", payload(ProxyMirror(benchmark="blink", n=40)), slug="blink")
    spec = EvaluateSpec(
        benchmark="blink",
        tasks=digest("blink", "paper"),
        decode=DecodeSpec(max_new_tokens=24),
        images=IMAGES,
        precision="fp32",
    )
    base = Source(str(REPOSITORY / "models" / "proxy" / "base"), "base")
    job = Job("evaluate", payload(spec), {"checkpoint": base, "mirror": mirror}, "base-blink")
    for root, processes in ((tmp_path / "one", 1), (tmp_path / "three", 3)):
        needs = {"evaluate": Resources(processes=processes, memory_gb=6, minutes=60, batch_size=4)}
        outcome = drive(Graph([job]), root, resources=lambda kind, needs=needs: needs.get(kind, small(kind)))
        assert outcome.complete, [str(problem) for problem in outcome.problems]
        assert len(Store(root).attempts(job)) == 1
    assert digest_of(tmp_path / "three", job, "samples.jsonl") == digest_of(tmp_path / "one", job, "samples.jsonl")
    one, three = (
        json.loads((Store(tmp_path / name).outputs(job) / "result.json").read_text()) for name in ("one", "three")
    )
    assert three["aggregates"] == one["aggregates"] and three["n"] == one["n"]
