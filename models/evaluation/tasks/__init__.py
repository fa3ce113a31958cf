"""The benchmarks under their two protocols: which lmms-eval tasks they are, and what identifies those tasks.

`paper` tasks (`vr_*`) follow the evaluation of the public release. `stock` tasks are lmms-eval's own, read from its
package, but for HR-Bench, whose judge would ask GPT (see `hrbench`). BLINK is its five configurations of the paper under
both protocols. Nothing here imports torch or lmms_eval: planning needs only names and digests.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from models.evaluation import extract

Protocol = Literal["paper", "stock"]

_HERE = Path(__file__).parent
YAML_FOLDER = _HERE / "yaml"
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
    """The YAML file of one of the tasks above, ours or lmms-eval's."""
    if task in _STOCK_YAML:
        return _package_root("lmms_eval") / "tasks" / _STOCK_YAML[task]
    return YAML_FOLDER / f"{task}.yaml"


def dataset_of(task: str) -> tuple[str | None, str]:
    """(configuration or None, split) of the data set whose rows are the task's questions, in order."""
    config = _expanded(yaml_path(task))
    return config.get("dataset_name"), config.get("test_split") or config["validation_split"]


def digest(benchmark: str, protocol: Protocol = "paper") -> dict[str, str]:
    """Task name -> sha256 of its expanded YAML, the function files it names, the extractor's and lmms-eval's version.

    Milliseconds, and cached for the life of the process. FileNotFoundError or ModuleNotFoundError if lmms-eval is not
    installed or has moved a task.
    """
    return {task: _digest(task) for task in tasks_for(benchmark, protocol)}


@cache
def _digest(task: str) -> str:
    path = yaml_path(task)
    config = _expanded(path)
    files = {_function_file(name, path.parent) for name in _functions(config)}
    if any(file.parent == _HERE for file in files):
        files.add(_HERE / "paper.py")  # every module of ours builds on it
    identity = {
        "config": config,
        "functions": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)},
        "extractor": extract.VERSION,
        "lmms_eval": _lmms_eval_version(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@cache
def _lmms_eval_version() -> str:
    return importlib.metadata.version("lmms-eval")


@cache
def _package_root(name: str) -> Path:
    """The folder of an installed top-level package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"package {name!r} is not installed; the stock tasks come from it", name=name)
    return Path(found.submodule_search_locations[0])


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with `!function module.name` kept as the string "!function module.name"."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {loader.construct_scalar(node)}")


def _expanded(path: Path) -> dict[str, Any]:
    """A task's YAML with its `include:` merged in, shallowly, as lmms-eval does."""
    config = yaml.load(path.read_text(), Loader=_Loader)
    include = config.pop("include", None)
    return {**_expanded(path.parent / include), **config} if include else config


def _functions(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_functions, value.values()))
    if isinstance(value, list):
        return set().union(*map(_functions, value))
    if isinstance(value, str) and value.startswith("!function "):
        return {value.removeprefix("!function ")}
    return set()


def _function_file(name: str, folder: Path) -> Path:
    """The file behind `!function a.b.name`: a.b.py beside the YAML, else module a.b."""
    module = name.rpartition(".")[0]
    beside = folder / f"{module}.py"
    if beside.is_file():
        return beside
    top, *rest = module.split(".")
    return _package_root(top).joinpath(*rest).with_suffix(".py")
