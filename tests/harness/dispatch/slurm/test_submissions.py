"""What is submitted: the code, the ranks' meeting, and the profile's own options."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import time
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.dispatch.driver import loop
from harness.dispatch.driver.progress import Silent
from harness.dispatch.slurm import backend as slurm
from harness.dispatch.slurm import submission as slurm_submission
from harness.dispatch.slurm.queue import SlurmQueue
from harness.dispatch.slurm.request import parameters
from harness.dispatch.slurm.task import join_processes
from harness.jobs import Graph
from harness.spec import SpecError
from harness.spec.errors import validate
from harness.spec.profile import SlurmDispatch
from harness.store import Owner, State, Store
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


def printed_by(folder: Path, module: str) -> tuple[str, str]:
    """(what the copied module prints, what Python says of its imports)."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-P", "-v", "-c", f"import {module}"], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip(), done.stderr


def test_jobs_do_not_compile_what_the_driver_had_compiled_and_never_run_what_was_compiled_from_other_code(tmp_path):
    source = tmp_path / "source"
    for package in slurm_submission.PACKAGES:
        (source / package).mkdir(parents=True)
        (source / package / "__init__.py").touch()
    same, changed = (source / "models" / f"{name}.py" for name in ("same", "changed"))
    for module in (same, changed):
        module.write_text("print('as compiled')\n")
        py_compile.compile(str(module), doraise=True)
    changed.write_text("print('changed since it was compiled')\n")
    slurm_submission.copy_code(tmp_path / "code", source)
    said, imports = printed_by(tmp_path / "code", "models.same")
    assert said == "as compiled" and f"code object from '{cache_from_source(tmp_path / 'code' / 'models' / 'same.py')}'" in imports
    assert printed_by(tmp_path / "code", "models.changed")[0] == "changed since it was compiled"


def test_a_job_of_a_cluster_begins_without_what_only_drivers_and_schemas_need():
    slow = {"pydantic", "importlib.metadata", "harness.dispatch.driver", "harness.dispatch.local", "harness.spec", "numpy"}
    words = f"import sys, harness.dispatch.slurm.task; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_driver_that_may_leave_does_so_as_soon_as_everything_is_submitted(cluster, tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: pytest.fail("it waits for nothing"))
    monkeypatch.setattr(loop, "time", clock)
    jobs, queue = [job_of("a"), job_of("b")], SlurmQueue(cluster, poll_seconds=0.0)
    outcome = slurm.run(
        Graph(jobs), Store(tmp_path), resources=lambda kind: NEEDS, dispatch=SlurmDispatch(), detach=True, display=Silent(), queue=queue
    )
    assert outcome.detached and [elements for *_, elements in cluster.requests] == [2]
    assert {status.state for status in outcome.statuses.values()} == {State.SUBMITTED}


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
