"""Task names, their digests, and that planning needs neither torch nor lmms-eval."""

import shutil
import subprocess
import sys
import time

import pytest

from models.evaluation import tasks
from models.evaluation.scores import metrics_of
from models.evaluation.tasks import index

CELLS = [(benchmark, protocol) for benchmark, protocols in tasks.TASKS.items() for protocol in protocols]


def test_digests_need_neither_torch_nor_lmms_eval():
    code = (
        "import sys; from models.evaluation.tasks import digest, TASKS\n"
        "for b in TASKS:\n"
        "    for p in TASKS[b]: assert digest(b, p)\n"
        "import models.evaluation.scores, models.evaluation.extract, models.evaluation.rows, models.evaluation.manifest\n"
        "print([m for m in ('torch', 'lmms_eval', 'datasets', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_digests_take_milliseconds():
    tasks._digest.cache_clear()
    best = 1.0
    for _ in range(3):
        tasks._digest.cache_clear()
        start = time.process_time()
        for cell in CELLS:
            tasks.digest(*cell)
        best = min(best, time.process_time() - start)
    assert best < 0.1  # 17 ms on a quiet machine
    start = time.process_time()
    for cell in CELLS:
        tasks.digest(*cell)
    assert time.process_time() - start < 0.005


def test_every_task_has_its_own_stable_digest():
    found = {task: value for cell in CELLS for task, value in tasks.digest(*cell).items()}
    assert len(set(found.values())) == len(found) == 20
    tasks._digest.cache_clear()
    assert {task: value for cell in CELLS for task, value in tasks.digest(*cell).items()} == found


def test_a_digest_changes_with_the_yaml_the_functions_and_the_extractor(tmp_path, monkeypatch):
    here = tmp_path / "tasks"
    shutil.copytree(tasks._HERE, here)
    monkeypatch.setattr(index, "OWN", here / "yaml")
    root = index.package_root("models")
    monkeypatch.setattr(tasks, "_HERE", here)

    def functions_in_the_copy(name, folder):
        file, function = original(name, folder)
        inside = root / "evaluation" / "tasks"
        return here / file.relative_to(inside) if file.is_relative_to(inside) else file, function

    original = index._file_of
    monkeypatch.setattr(index, "_file_of", functions_in_the_copy)

    def now():
        tasks._digest.cache_clear()
        return tasks.digest("mmvp", "paper")["vr_mmvp"]

    seen = [now()]
    for file in (here / "yaml" / "_paper", here / "yaml" / "vr_mmvp.yaml"):
        file.write_text(file.read_text() + "\ntask_alias: x\n" + f"description: {file.name}\n")
        seen.append(now())
    for file in (here / "mmvp.py", here / "paper.py"):
        file.write_text(file.read_text() + "\n# another line\n")
        seen.append(now())
    monkeypatch.setattr(tasks, "EXTRACTOR", 10_000)
    seen.append(now())
    tasks._digest.cache_clear()
    assert len(set(seen)) == len(seen)


def test_unknown_names_are_answered_with_the_choices():
    with pytest.raises(ValueError, match="'mmpv' is unknown; choose one of mmvp, blink, vstar"):
        tasks.tasks_for("mmpv")
    with pytest.raises(ValueError, match="choose one of paper, stock"):
        tasks.tasks_for("mmvp", "papers")


def test_every_task_has_a_file_and_metrics():
    for cell in CELLS:
        for task in tasks.tasks_for(*cell):
            config = index.expanded(tasks.yaml_path(task))
            assert config["task"] == task
            declared = {metric["metric"] for metric in config["metric_list"]}
            assert {metric.name for metric in metrics_of(task)} == declared
