"""The benchmarks under their two protocols: which lmms-eval tasks they are, and what identifies those tasks.

`paper` tasks (`vr_*`) follow the evaluation of the public release. `stock` tasks are lmms-eval's own, read from its
package, but for HR-Bench, whose judge would ask GPT (see `hrbench`). BLINK is its five configurations of the paper under
both protocols. Nothing here imports torch or lmms_eval: planning needs only names and digests.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from models.evaluation.tasks import index
from models.evaluation.tasks.version import EXTRACTOR

Protocol = Literal["paper", "stock"]

_HERE = Path(__file__).parent
YAML_FOLDER = index.OWN
_BLINK = ("counting", "iq_test", "jigsaw", "relative_reflectance", "spatial_relation")

TASKS: dict[str, dict[str, tuple[str, ...]]] = {
    "mmvp": {"paper": ("vr_mmvp",), "stock": ("mmvp",)},
    "blink": {"paper": tuple(f"vr_blink_{c}" for c in _BLINK), "stock": tuple(f"blink_{c}" for c in _BLINK)},
    "vstar": {"paper": ("vr_vstar",), "stock": ("vstar_bench",)},
    "hrbench4k": {"paper": ("vr_hrbench4k",), "stock": ("stock_hrbench4k",)},
    "hrbench8k": {"paper": ("vr_hrbench8k",), "stock": ("stock_hrbench8k",)},
    "mmerealworld_lite": {"paper": ("vr_mmerealworld_lite",), "stock": ("mmerealworld_lite",)},
}
"""Benchmark -> protocol -> lmms-eval task names."""

PAPER_TASKS = frozenset(task for protocols in TASKS.values() for task in protocols["paper"])
OWN_TASKS = frozenset(task for protocols in TASKS.values() for tasks in protocols.values() for task in tasks)

_STOCK_YAML = {
    "mmvp": "mmvp/mmvp.yaml",
    "vstar_bench": "vstar_bench/vstar_bench.yaml",
    "mmerealworld_lite": "mme_realworld/mme_realworld_lite.yaml",
    **{f"blink_{c}": f"blink/blink_{c}.yaml" for c in _BLINK},
}
"""Stock task name -> its file below lmms_eval/tasks."""


def tasks_for(benchmark: str, protocol: Protocol = "paper") -> list[str]:
    """lmms-eval task names of a benchmark; ValueError lists the choices."""
    if benchmark not in TASKS:
        raise ValueError(f"benchmark: {benchmark!r} is unknown; choose one of {', '.join(TASKS)}")
    if protocol not in TASKS[benchmark]:
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(TASKS[benchmark])}")
    return list(TASKS[benchmark][protocol])


def yaml_path(task: str) -> Path:
    """The YAML file of a task, ours or any of lmms-eval's. Raises index.BadTask."""
    if task in _STOCK_YAML:
        return index.package_root("lmms_eval") / "tasks" / _STOCK_YAML[task]
    return index.path_of(task)


def dataset_of(task: str) -> tuple[str | None, str]:
    """(configuration or None, split) of the data set whose rows are the task's questions, in order."""
    config = index.expanded(yaml_path(task))
    return config.get("dataset_name"), config.get("test_split") or config["validation_split"]


def of_the_project(benchmark: str, protocol: Protocol, tasks: Collection[str]) -> bool:
    """Whether these are the tasks above, which the project scores by its own rules; any other's are lmms-eval's alone."""
    return set(tasks) == set(TASKS.get(benchmark, {}).get(protocol, ()))


def digests_of(tasks: Iterable[str]) -> dict[str, str]:
    """Task name -> digest as below, of any tasks of lmms-eval's. Raises index.BadTask."""
    return {task: _digest(task) for task in tasks}


def digest(benchmark: str, protocol: Protocol = "paper") -> dict[str, str]:
    """Task name -> sha256 of its expanded YAML, the function files it names, the extractor's and lmms-eval's version.

    Milliseconds, and cached for the life of the process. FileNotFoundError or ModuleNotFoundError if lmms-eval is not
    installed or has moved a task.
    """
    return digests_of(tasks_for(benchmark, protocol))


@cache
def _digest(task: str) -> str:
    path = yaml_path(task)
    config = index.expanded(path)
    files = index.function_files(path)
    if any(file.parent == _HERE for file in files):
        files.add(_HERE / "paper.py")  # every module of ours builds on it
    identity = {
        "config": config,
        "functions": {_name(file, files): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)},
        "extractor": EXTRACTOR,
        "lmms_eval": _lmms_eval_version(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def _name(file: Path, among: Collection[Path]) -> str:
    """Its folder is named too where another file has the same name."""
    return file.name if sum(other.name == file.name for other in among) == 1 else f"{file.parent.name}/{file.name}"


@cache
def _lmms_eval_version() -> str:
    return importlib.metadata.version("lmms-eval")
