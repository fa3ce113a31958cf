"""A checkpoint whose writing fails inside torch or safetensors: the one before stays, and training goes on from it to the bit."""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager

import pytest
import torch

from harness.store.attempts import Attempt
from harness.worker.causes import cause_of
from models.methods.vreflection.spec import Stage1
from models.run import LocalRun
from models.training import cache_features, trainer
from tests.models.training.conftest import SMALL
from tests.models.training.test_training import FAST, go, spec, weights

STAGE = Stage1(steps=4, **FAST)


@contextmanager
def no_file_larger_than(size: int):
    """The system itself refuses to write further (EFBIG), in the middle of whatever library is writing."""
    before, compiles = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    sys.dont_write_bytecode = True  # or the limit cuts off a module's compiled file, for every later test
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = compiles


@pytest.fixture(scope="module")
def world(base, make_data, tmp_path_factory):
    data, features = make_data(16, several=True), tmp_path_factory.mktemp("features")
    cache_features(LocalRun(features), checkpoint=base, data=data, images=SMALL)
    return {"init": base, "data": data, "features": features}


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return weights(go(tmp_path_factory.mktemp("whole"), spec(STAGE), world)[1].out)


def sizes(folder) -> list[int]:
    return sorted(file.stat().st_size for file in folder.iterdir() if file.stat().st_size > 100_000)


@pytest.mark.parametrize("part", ["safetensors", "torch", "the last small files"])
def test_a_save_that_fails_half_way_leaves_the_checkpoint_before_it(tmp_path, world, undisturbed, monkeypatch, part):
    monkeypatch.setattr(trainer, "SAVING_SHARE", 1e9)
    real, seen = trainer.StageTrainer._write_checkpoint, []

    def write(self, folder, model, trial):
        """The second save meets the limit: inside the weights, inside the optimizer's state (twice as large), or behind both."""
        if self.state.global_step == 1:
            return real(self, folder, model, trial)
        weights_bytes, optimizer_bytes = sizes(folder.parent / "checkpoint-1")
        limit = {"safetensors": weights_bytes // 2, "torch": (weights_bytes + optimizer_bytes) // 2, "the last small files": 0}[part]
        if limit:
            with no_file_larger_than(limit):
                return real(self, folder, model, trial)
        monkeypatch.setattr(trainer, "_sync", lambda path: seen.append(path) or (_ for _ in ()).throw(OSError(28, "No space left on device")))
        return real(self, folder, model, trial)

    monkeypatch.setattr(trainer.StageTrainer, "_write_checkpoint", write)
    attempt = Attempt(tmp_path / "attempts" / "1")
    run = LocalRun(attempt.out, attempt.checkpoints)
    with pytest.raises(Exception) as caught:
        go(tmp_path, spec(STAGE), world, run=run, checkpoint_seconds=0.0)
    assert cause_of(caught.value) == "storage", repr(caught.value)
    assert [step for step, _ in attempt.complete_checkpoints()] == [1]
    assert [path.name for path in attempt.checkpoints.iterdir()] == ["checkpoint-1"]
    monkeypatch.undo()
    resumed = LocalRun(tmp_path / "out", tmp_path / "checkpoints", resume_from=attempt.complete_checkpoints()[0][1])
    found = weights(go(tmp_path, spec(STAGE), world, run=resumed)[1].out)
    assert found.keys() == undisturbed.keys() and all(torch.equal(found[name], undisturbed[name]) for name in found)
