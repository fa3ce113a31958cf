"""`run.py doctor`: whether this machine has what `run` needs, with a remedy for whatever is missing.

With --profile it also checks cluster, base model, data, benchmarks and disk against what that profile's jobs need: the same
checks that `run` makes before anything is queued (`harness.dispatch.preflight`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.main import add_json, add_results, folder_name
from harness.cli.stored import lost_link
from harness.cli.words import as_json, columns
from harness.jobs import Job, Source
from harness.outgoing import inert

if TYPE_CHECKING:
    from harness.spec.profile import Profile

Finding = tuple[str, str]
"""("ok" | "warning" | "error", what was found and what to do)."""

MATCHED = {"2.13": "0.28", "2.14": "0.29"}
"""torch → the torchvision that was built for it."""
NEEDED_GB = 8.0
"""Free disk for the environment's caches and the results of a proxy table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="with --profile: the experiments to check (default: all)")
    parser.add_argument("--profile", metavar="P", help="also check what this profile's jobs need (name or file)")
    parser.add_argument("--reports", type=folder_name, default=Path("reports"), metavar="DIR", help="default: reports")
    add_json(parser)
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", python),
        ("uv", uv),
        ("compiler", compiler),
        ("torch", torch_pair),
        ("packages", packages),
        ("mlflow", mlflow),
        ("results", lambda: writable(options.results, "--results")),
        ("reports", lambda: writable(options.reports, "--reports")),
        ("disk", lambda: disk(options.results)),
        ("memory", memory),
        ("processor", processor),
    ]
    found = [(name, *check()) for name, check in checks]
    found += for_profile(options) if options.profile else [("scheduler", *scheduler())]
    if options.json:
        print(as_json([{"check": name, "grade": grade, "text": text} for name, grade, text in found]))
    else:
        print(columns((grade, name, text) for name, grade, text in found))
    return 1 if any(grade == "error" for _, grade, _ in found) else 0


def for_profile(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """(check, grade, text) for everything that the profile's jobs need."""
    from harness.cli.main import experiment_files
    from harness.dispatch import preflight
    from harness.plan import merged, plan_experiment
    from harness.spec.files import EXPERIMENTS
    from harness.store import Store

    digests = options.results / ".digests.json"
    made = [
        plan_experiment(file, options.profile, digests=digests)
        for file in experiment_files(options.files or [EXPERIMENTS])
    ]
    graph, profile = merged(made), made[0].profile.value
    store = Store(options.results)
    ended = {job for job in graph if store.is_done(job) or store.damage(job)}
    left = [job for job in graph.needed(ended.__contains__) if job not in ended]
    found = [(one.name, one.grade, one.text) for one in preflight.look(profile, graph, options.results, left)]
    external = [job for job in graph if job.payload.get("source") == "external"]
    return list(dict.fromkeys(found + [line for job in external for line in brought(job, graph, profile, digests)]))


def brought(job: Job, graph: Iterable[Job], profile: Profile, digests: Path) -> list[tuple[str, str, str]]:
    """The same for an external data set: training data, or a benchmark."""
    from harness.worker.inputs import check_inputs
    from models.evaluation.external import BadBenchmark
    from models.training.data import DataError

    what = "data" if job.kind == "data" else str(job.payload["benchmark"])
    try:
        notes = check_inputs([job], (profile.data, profile.clips), digests, graph)
    except (DataError, BadBenchmark) as error:
        return [(what, "error", str(error))]
    files = job.inputs["files"]
    where = f"{files.location} is " if job.kind == "data" and isinstance(files, Source) else ""
    return [(what, "warning", note) for note in notes] or [(what, "ok", f"{where}found and checked")]


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return "error", f"{version}; this project needs 3.11 to 3.13: uv run --python 3.12 run.py …"
    return "ok", f"{version} ({sys.executable})"


def uv() -> Finding:
    path = shutil.which("uv")
    return ("ok", path) if path else ("warning", "not on the PATH; only needed to install: pipx install uv")


def compiler() -> Finding:
    path = shutil.which("g++") or shutil.which("c++")
    return (
        ("ok", path) if path else ("warning", "no g++; DeepSpeed compiles a part of itself at first use: apt install g++")
    )


def torch_pair(version: Callable[[str], str] = metadata.version) -> Finding:
    """A torch and a torchvision built for different versions fail when transformers is imported, far from the cause."""
    try:
        torch, vision = version("torch"), version("torchvision")
    except metadata.PackageNotFoundError as error:
        return "error", f"{error.name} is not installed: uv sync"
    pair = f"torch {torch}, torchvision {vision}"
    release, _, build = torch.partition("+")
    vision_release, _, vision_build = vision.partition("+")
    if (build == "cpu") != (vision_build == "cpu"):
        return "error", (
            f'{pair}: different builds (they fail with "operator torchvision::nms does not exist"); take both from one place: '
            f"uv sync, or pip install --force-reinstall torch=={release} torchvision=={vision_release}"
        )
    wanted = MATCHED.get(".".join(release.split(".")[:2]))
    if wanted and not vision_release.startswith(wanted + "."):
        return "error", f"{pair}: torch {release} goes with torchvision {wanted}: uv sync"
    return "ok", pair


def packages() -> Finding:
    missing = [
        name for name, module in (
            ("transformers", "transformers"), ("lmms-eval", "lmms_eval"), ("datasets", "datasets"),
            ("accelerate", "accelerate"), ("submitit", "submitit"), ("safetensors", "safetensors"),
        )
        if importlib.util.find_spec(module) is None
    ]  # fmt: skip
    if missing:
        return "error", f"not installed: {', '.join(missing)}: uv sync"
    return "ok", f"transformers {metadata.version('transformers')}, lmms-eval {metadata.version('lmms-eval')}"


def mlflow() -> Finding:
    if importlib.util.find_spec("mlflow") is None:
        return "error", "mlflow is not installed: uv sync"
    address = inert(os.environ.get("MLFLOW_TRACKING_URI", ""))
    return "ok", f"{metadata.version('mlflow')}, tracking to {address or 'a database in the results folder'}"


def writable(folder: Path, flag: str) -> Finding:
    """The folder, or the nearest parent that exists. flag: names another folder."""
    if broken := lost_link(folder, flag):
        return "error", broken
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            return "ok", f"{folder}" + ("" if there == folder.absolute() else " (will be created)")
    except OSError as error:
        return "error", f"{there}: {error.strerror}; choose another with {flag} DIR"


def disk(folder: Path) -> Finding:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    text = f"{free:.0f} GB free on the disk of {folder}"
    return (
        ("ok", text)
        if free >= NEEDED_GB
        else ("warning", f"{text}; a table takes up to {NEEDED_GB:.0f} GB with its caches")
    )


def memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cpus = len(os.sched_getaffinity(0))
    text = f"{total:.0f} GB, {cpus} CPUs"
    return (
        ("ok", text)
        if total >= 4 * cpus
        else ("warning", f"{text}; a proxy job takes up to 4 GB: dispatch.slots: {max(1, int(total // 4))}")
    )


CPUS = Path("/proc/cpuinfo")
"""Linux's description of the CPUs."""


def multiplies_bf16(told: Path = CPUS) -> bool | None:
    """Whether the first CPU has instructions for bf16; None: unknown."""
    features = re.search(r"^(?:flags|Features)\s*:(.*)$", told.read_text() if told.is_file() else "", re.MULTILINE)
    known = set(features[1].split()) if features else set()
    return {"avx512bw", "avx512vl", "avx512dq"} <= known or bool(known & {"avx_ne_convert", "bf16"}) if known else None


def processor(told: Path = CPUS) -> Finding:
    found = multiplies_bf16(told)
    if found is None:
        return "ok", "its instructions are not known here"
    if found:
        return "ok", "multiplies bf16 numbers itself"
    return "warning", "no instructions for bf16 (AVX-512 has them): tables at proxy scale take several times as long as README says"


def scheduler() -> Finding:
    sbatch = shutil.which("sbatch")
    return "ok", f"SLURM ({sbatch})" if sbatch else "none; jobs run on this host"
