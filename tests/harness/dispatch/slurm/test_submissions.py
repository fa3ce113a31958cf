"""What is submitted: the code, the ranks' meeting, and the profile's own options."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from harness.dispatch.slurm import submission as slurm_submission
from harness.dispatch.slurm.request import parameters
from harness.dispatch.slurm.task import join_processes
from harness.spec import SpecError
from harness.spec.errors import validate
from harness.spec.profile import SlurmDispatch
from harness.store import Owner, Store
from harness.worker import provenance
from tests.harness.dispatch.slurm.pretended import DEAD, ELSEWHERE, NEEDS, driver_of, job_of


def test_ranks_join_by_their_own_job_whatever_they_inherited(monkeypatch):
    told: list[dict[str, Any]] = []
    environment = SimpleNamespace(export=lambda **options: told.append(options))
    monkeypatch.setattr("submitit.helpers.TorchDistributedEnvironment", lambda: environment)
    join_processes()
    assert told == [{"set_cuda_visible_devices": False, "overwrite": True}]


def test_a_live_drivers_code_stays_between_two_of_its_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_submission, "copy_code", lambda target: target.mkdir())
    store = Store(tmp_path)
    made = [slurm_submission.Submission.create(store, driver=o.record()) for o in (Owner.here(), ELSEWHERE, DEAD)]
    torn = slurm_submission.home(store) / "torn"
    torn.mkdir()
    assert slurm_submission.clear(store, []) == [], "all are young"
    monkeypatch.setattr(slurm_submission, "YOUNG_SECONDS", -1.0)
    assert set(slurm_submission.clear(store, [])) == {made[2].id, "torn"}
    assert made[0].code.is_dir() and made[1].code.is_dir()


def test_the_recorded_code_is_that_of_the_first_request(cluster, tmp_path, monkeypatch):
    driver = driver_of(cluster, tmp_path, job_of())
    answers = {"--show-toplevel": lambda root: os.fsencode(root)}
    monkeypatch.setattr(provenance, "_git", lambda root, *words: answers.get(words[-1], lambda root: b"edited since")(root))
    try:
        assert driver._submission().code.is_dir()
        assert driver.provenance["commit"] == "edited since"
    finally:
        provenance.code.cache_clear()


# The profile's own options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"job-name": "mine"}, ("job-name", "leave it out")),
        ({"--array": "0-3"}, ("--array",)),
        ({"ntasks_per_node": 2}, ("ntasks_per_node", "resources.KIND.processes")),
        ({"time": 60}, ("time", "resources.KIND.minutes")),
        ({"mem": "4GB"}, ("mem", "resources.KIND.memory_gb")),
        ({"export": "NONE"}, ("export", "dispatch.setup")),
        ({"signal": "B:USR2@59"}, ("signal B:USR2@59", "USR2@SECONDS")),
        ({"signal": "USR1@59"}, ("USR2@SECONDS",)),
        ({"dependency": "afterok:1?afterok:2"}, ("commas",)),
    ],
)
def test_options_that_the_driver_relies_on_are_refused_with_the_remedy(options, words):
    with pytest.raises(SpecError) as raised:
        validate(SlurmDispatch, {"sbatch": options}, lambda path, text: ".".join(map(str, path)))
    text = str(raised.value)
    assert text.startswith("sbatch") and "\n" not in text and all(word in text for word in words)


def test_other_options_are_the_users_and_a_dependency_is_one_more():
    free = {
        "hold": True,
        "comment": "x",
        "nodelist": "n1",
        "signal": "USR2@59",
        "mail_type": "END",
        "gres": "gpu:a800:8",
    }
    assert parameters(NEEDS, SlurmDispatch(sbatch=free), "n")["additional_parameters"].items() >= {
        ("hold", True), ("signal", "USR2@59"), ("mail-type", "END"), ("gres", "gpu:a800:8"),
    }  # fmt: skip
    own = SlurmDispatch(sbatch={"dependency": "afterok:9"})
    assert parameters(NEEDS, own, "n")["dependency"] == "afterok:9"
    both = parameters(NEEDS, own, "n", parents=("3_0", "3_1"))
    assert both["dependency"] == "afterok:9,afterok:3_0:3_1" and "dependency" not in both["additional_parameters"]
    assert "dependency" not in parameters(NEEDS, SlurmDispatch(), "n")
