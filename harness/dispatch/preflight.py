"""Checks before anything is queued: what would fail a job minutes or hours later costs one line now.

An error stops the run; a possible problem is a warning. The hub is asked only whether it answers, and no tensor library
is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.dispatch.slurm.limits import later
from harness.dispatch.slurm.queue import Command, SchedulerSilent, run_command
from harness.dispatch.slurm.task import seconds_of
from harness.jobs import Job, Source, trainings
from harness.store import Store
from harness.worker.deepspeed import zero_of
from models import hub
from models.methods.registry import STAGES
from models.training.cost import checkpoint_bytes, gpu_bytes
from models.training.packing import uneven

if TYPE_CHECKING:
    from harness.spec.profile import Profile, SlurmDispatch
    from models.methods.stage import StageSpec

SLURM_COMMANDS = ("sbatch", "srun", "squeue", "scancel")
TWICE = 2
"""Checkpoints on disk while a training runs: the newest, and the one being written."""
USUAL_GPU_GIB = 80.0
"""Of a GPU whose memory nothing states: what needs more is a warning."""


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, the result, and the remedy."""

    name: str
    grade: Literal["ok", "warning", "error"]
    text: str


def look(profile: Profile, jobs: Iterable[Job], folder: Path, left: Iterable[Job] | None = None) -> list[Finding]:
    """Findings about the machine, the cluster and the base model, for these jobs. folder: the results folder, whose disk holds the
    checkpoints. left: those still to be run, which need the disk; default: all.
    """
    todo = list(jobs)
    kinds = list(dict.fromkeys(job.kind for job in todo))
    found = [scheduler(profile)]
    if profile.dispatch.kind == "slurm" and found[0].grade == "ok":
        found += partition(profile, kinds)
    found += [*ranks(profile, todo), *gpus(profile, kinds), *gpu_memory(profile, todo), *attention(profile, kinds)]
    for source in bases(todo):
        found.append(base(source))
    return found + disk(profile, todo if left is None else left, folder)


# The scheduler


def scheduler(profile: Profile, which: Callable[[str], str | None] = shutil.which) -> Finding:
    if profile.dispatch.kind != "slurm":
        return Finding("scheduler", "ok", "not needed; jobs run on this host")
    missing = [command for command in SLURM_COMMANDS if which(command) is None]
    if missing:
        return Finding(
            "scheduler",
            "error",
            f"this profile submits to SLURM, and {missing[0]} is not here; start it on a login node of the cluster, or choose a "
            "profile with dispatch: {kind: local}",
        )
    return Finding("scheduler", "ok", f"SLURM ({which('sbatch')})")


@dataclass(frozen=True)
class Partition:
    """What sinfo says about a partition's nodes. minutes: the time limit; gpus: the largest number in one node; None if
    unlimited or not stated."""

    name: str
    default: bool
    minutes: float | None
    gpus: int
    cpus: int
    memory_gb: float

    @classmethod
    def read(cls, line: str) -> Partition:
        """A line of `sinfo --format=%P|%l|%G|%c|%m`."""
        name, limit, gres, cpus, mebibytes = (word.strip() for word in line.split("|"))
        # sinfo leaves out leading zeros: 30:00 is minutes and seconds
        days, dash, clock = limit.rpartition("-")
        padded = ":".join(["0"] * (2 - clock.count(":")) + [clock])
        seconds = seconds_of(f"{days}{dash}{padded}")
        counts = [int(count) for count in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", gres)]
        number = [int(re.match(r"\d*", word)[0] or 0) for word in (cpus, mebibytes)]  # type: ignore[index]
        return cls(name.rstrip("*"), name.endswith("*"), seconds and seconds / 60, sum(counts), number[0], number[1] / 1024)


def partition(profile: Profile, kinds: Iterable[str], command: Command = run_command) -> list[Finding]:
    """Whether the partition exists and one of its nodes can hold each kind's request."""
    assert profile.dispatch.kind == "slurm"
    try:
        text = command(["sinfo", "--noheader", "--format=%P|%l|%G|%c|%m"])
    except SchedulerSilent as error:
        said = str(error).splitlines()[-1]
        if "no answer in" in said or later(str(error)):
            return [Finding("partition", "warning", f"could not be checked ({said}); sbatch will report whether it accepts the jobs")]
        return [Finding("partition", "error", f"SLURM's commands are here, but no cluster answers ({said}); start it on a login node")]
    nodes = [Partition.read(line) for line in text.splitlines() if line.count("|") == 4]
    wanted = _names(profile.dispatch)
    chosen = [node for node in nodes if node.name in wanted or (not wanted and node.default)]
    if not chosen:
        there = ", ".join(dict.fromkeys(node.name for node in nodes)) or "none"
        name = ",".join(wanted) or "a default partition"
        return [Finding("partition", "error", f"{name} is not on this cluster; there are: {there}; set dispatch.partition")]
    found = []
    label = "partition " + ",".join(dict.fromkeys(node.name for node in chosen))
    for kind in kinds:
        needs = profile.resources_of(kind)
        asked = [
            ("gpus", needs.gpus, max(node.gpus for node in chosen)),
            ("cpus", needs.cpus * needs.processes, max(node.cpus for node in chosen)),
            ("memory_gb", needs.memory_gb, max(node.memory_gb for node in chosen)),
        ]
        if all(node.minutes for node in chosen):
            asked.append(("minutes", needs.minutes, max(node.minutes or 0 for node in chosen)))
        found += [
            Finding("partition", "error", f"{kind} asks for {wish:g} {what}, {label} has at most {most:g}; set resources.{kind}.{what}")
            for what, wish, most in asked
            if wish > most
        ]
    return found or [Finding("partition", "ok", f"{label} accepts the jobs")]


def _names(dispatch: SlurmDispatch) -> list[str]:
    return [name for name in str(dispatch.sbatch.get("partition") or dispatch.partition or "").split(",") if name]


# A training's ranks


def ranks(profile: Profile, jobs: Iterable[Job]) -> list[Finding]:
    """What keeps a training from being shared out over its ranks. On the local queue, every training has one."""
    needs, on_cluster = profile.resources_of("train"), profile.dispatch.kind == "slurm"
    world = needs.processes if on_cluster else 1
    stages = [_stage(job) for job in jobs if job.kind == "train"]
    wrong = {uneven(stage.global_batch, max(1, min(needs.micro_batch, stage.global_batch // world)), world) for stage in stages}
    if stages and on_cluster and 0 < needs.gpus < world:
        wrong.add(f"{world} processes need a GPU each, and gpus is {needs.gpus}; set both to the same number")
    return [Finding("ranks", "error", f"resources.train: {why}") for why in sorted(wrong - {""})]


def gpu_memory(profile: Profile, jobs: Iterable[Job], smi: Command = run_command) -> list[Finding]:
    """Trainings whose weights, gradients and optimiser alone are more than a GPU holds: an error where the profile, or the driver of this
    machine, says how much that is. Nothing of a base model that is not here to measure."""
    needs, on_cluster = profile.resources_of("train"), profile.dispatch.kind == "slurm"
    world = needs.processes if on_cluster else 1
    least: dict[int, tuple[float, int, int]] = {}  # by ZeRO stage: bytes, and the trained and frozen parameters
    for job, _, trained, frozen in _measured(jobs) if needs.gpus else ():
        config = zero_of(needs.deepspeed, _stage(job).kind)
        zero = config["zero_optimization"]["stage"] if config else 0
        least[zero] = max(least.get(zero, (0, 0, 0)), (gpu_bytes(trained, frozen, zero, world), trained, frozen))
    stated = (needs.gpu_memory_gb or (None if on_cluster else _smallest_gpu(smi))) if least else None
    holds = stated or USUAL_GPU_GIB
    found = []
    for zero, (most, trained, frozen) in sorted(least.items()):
        if most <= holds * 2**30:
            continue
        way, how = f"zero{zero}" if zero else "without DeepSpeed", f"on {_gpus(world)}"
        text = f"resources.train: {way} {how}, weights, gradients and AdamW's moments take {most / 2**30:.0f} GiB of each GPU"
        text += f", which has {stated:.0f}" if stated else f", more than the {holds:.0f} that most have (set gpu_memory_gb if yours has more)"
        if (shared := gpu_bytes(trained, frozen, 3, world)) <= holds * 2**30:
            text += f"; set deepspeed: zero3 ({shared / 2**30:.0f} GiB)"
        else:
            enough = next(n for n in range(world + 1, 10_000) if gpu_bytes(trained, frozen, 3, n) <= holds * 2**30)
            text += f"; it takes deepspeed: zero3 with gpus and processes at least {enough}" + ("" if on_cluster else ", and dispatch: {kind: slurm}")
        found.append(Finding("gpu memory", "error" if stated else "warning", text))
    return found


def _smallest_gpu(smi: Command) -> float | None:
    """GiB of this machine's smallest GPU; None if the driver does not say."""
    try:
        said = smi(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"])
    except SchedulerSilent:
        return None
    return min((int(line) / 1024 for line in said.split() if line.isdigit()), default=None)


def _stage(job: Job) -> StageSpec:
    """Of a training, as its schema, because payloads leave out defaults."""
    given = job.payload["stage"]
    return STAGES[given["kind"]].model_validate(given)


# The machine


def gpus(profile: Profile, kinds: Iterable[str], smi: Command = run_command, torch_cuda: str | None = None) -> list[Finding]:
    """The driver against torch's CUDA, where jobs that ask for a GPU run here."""
    most = max((profile.resources_of(kind).gpus for kind in kinds), default=0)
    if not most or profile.dispatch.kind == "slurm":
        return []
    try:
        text = smi(["nvidia-smi"])
    except SchedulerSilent as error:
        return [Finding("gpu", "error", f"jobs ask for {_gpus(most)}, and nvidia-smi finds none ({error}); set gpus: 0 or choose another profile")]
    here = len(re.findall(r"^\|\s+\d+\s+\S.*\|\s+[0-9A-F]{8}:", text, re.MULTILINE))
    if 0 < here < most:
        return [Finding("gpu", "error", f"a job asks for {_gpus(most)}, this machine has {here}; set gpus and processes in resources")]
    driver = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", text)
    built = torch_cuda or _torch_cuda()
    if not driver or not built:
        return [Finding("gpu", "warning", "the driver's or torch's CUDA version could not be read; jobs may not see the GPU")]
    if int(driver[1]) < int(built.split(".")[0]):
        return [Finding(
            "gpu", "error",
            f"torch is built for CUDA {built}, the driver serves up to {driver[1]}.{driver[2]}; update the driver, or install a "
            f"torch for CUDA {driver[1]}",
        )]  # fmt: skip
    return [Finding("gpu", "ok", f"{_gpus(here or most)}, driver for CUDA {driver[1]}.{driver[2]}, torch for {built}")]


def _gpus(count: int) -> str:
    return f"{count} GPU" + ("s" if count > 1 else "")


def _torch_cuda() -> str | None:
    """Read from torch's version file, because importing torch takes a second."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text()
    found = re.search(r"^cuda\b.*=\s*'([\d.]+)'", text, re.MULTILINE)
    return found[1] if found else None


def attention(profile: Profile, kinds: Iterable[str], installed: Callable[[str], object] = importlib.util.find_spec) -> list[Finding]:
    """Checked here, because cluster nodes use the environment that starts the run."""
    asking = [kind for kind in kinds if profile.resources_of(kind).attention.startswith("flash")]
    if not asking:
        return []
    if installed("flash_attn") is None:
        return [Finding(
            "flash-attn", "error",
            f"{', '.join(asking)}: attention: flash_attention_2 needs the package flash-attn: uv sync --extra gpu (compiles; needs "
            "nvcc), or set attention: sdpa",
        )]  # fmt: skip
    return [Finding("flash-attn", "ok", "installed")]


# The base model


def bases(jobs: Iterable[Job]) -> list[Source]:
    """Existing checkpoints that the jobs start from."""
    roles = ("init", "base", "checkpoint")
    found = {
        upstream.location: upstream
        for job in jobs
        for role, upstream in job.inputs.items()
        if role in roles and isinstance(upstream, Source) and "system" not in job.payload
    }
    return list(found.values())


def base_folder(source: Source) -> Path | None:
    """Folder of a base model; None for a hub model that is not on this machine."""
    if not source.location.startswith("hub:"):
        return Path(source.location)
    repository, _, revision = source.location.removeprefix("hub:").partition("@")
    return hub.cached_snapshot(repository, revision)[0]


def base(source: Source, reachable: Callable[[str, str], bool] | None = None) -> Finding:
    """Checks by name and size that the base model's files are all there and complete."""
    folder = base_folder(source)
    if folder is None:
        repository, _, revision = source.location.removeprefix("hub:").partition("@")
        fetch = f"hf download {repository} --revision {revision}"
        if (reachable or _reachable)(repository, revision):
            return Finding("base model", "warning", f"{repository} is not in the hub's cache and will be downloaded by the first job; before: {fetch}")
        return Finding(
            "base model", "error",
            f"{repository} at {revision[:12]} is not in the hub's cache ({hub.hub_cache()}), and the hub does not answer; on a machine "
            f"with internet: {fetch}, then set HF_HOME to where it lies",
        )  # fmt: skip
    problems = list(_incomplete(folder))
    if problems:
        return Finding("base model", "error", f"{folder}: {'; '.join(problems[:3])}; fetch it again")
    count, vision = parameters(folder)
    return Finding("base model", "ok", f"{folder.name[:12]}: {count / 1e6:,.0f} million parameters, {vision / 1e6:,.0f} of them the vision tower's")


def _incomplete(folder: Path) -> Iterator[str]:
    for names in (("config.json",), ("tokenizer.json", "vocab.json"), ("preprocessor_config.json", "processor_config.json")):
        if not any((folder / name).is_file() for name in names):
            yield f"{' or '.join(names)} is missing"
    yield from _unlike_qwen(folder)
    try:
        files = _weights(folder)
    except (ValueError, LookupError, TypeError, AttributeError):
        yield "model.safetensors.index.json is no index of weights"
        return
    for file in files:
        if not file.is_file():
            yield f"{file.name} is missing"
            continue
        try:
            whole = _header(file)[1]
        except (ValueError, OSError) as error:
            yield f"{file.name} is not a safetensors file ({error})"
            continue
        if (size := file.stat().st_size) != whole:
            yield f"{file.name} has {size:,} bytes, its header says {whole:,}"


def _unlike_qwen(folder: Path) -> Iterator[str]:
    """What is missing from the configuration and tokenizer files, which would otherwise surface only after a
    training."""
    if (file := folder / "config.json").is_file():
        try:
            kind = json.loads(file.read_bytes()).get("model_type")
        except (ValueError, AttributeError):
            yield "config.json is no configuration"
        else:
            if kind != "qwen2_5_vl":
                yield f"config.json says model_type {kind!r}, and qwen2_5_vl is what is trained here"
    if not (folder / "tokenizer.json").is_file() and (folder / "vocab.json").is_file() and not (folder / "merges.txt").is_file():
        yield "merges.txt is missing"
    if not any((folder / name).is_file() for name in ("chat_template.json", "chat_template.jinja")):
        try:
            held = "chat_template" in json.loads((folder / "tokenizer_config.json").read_bytes())
        except (ValueError, TypeError, OSError):
            held = False
        if not held:
            yield "the chat template is missing (chat_template.json, or in tokenizer_config.json)"


def _weights(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def _header(file: Path) -> tuple[dict, int]:
    """(tensors by name, bytes of the whole file) as a safetensors file begins with. Raises ValueError."""
    with file.open("rb") as content:
        start = content.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= 100_000_000:
            raise ValueError("no header")
        tensors = json.loads(content.read(length))
    tensors.pop("__metadata__", None)
    return tensors, 8 + length + max((one["data_offsets"][1] for one in tensors.values()), default=0)


def parameters(folder: Path) -> tuple[int, int]:
    """(all, the vision tower's) by the shapes in the files' headers. Raises ValueError, OSError."""
    count = vision = 0
    for file in _weights(folder):
        for name, tensor in _header(file)[0].items():
            size = 1
            for side in tensor["shape"]:
                size *= side
            count += size
            vision += size * name.startswith(("visual.", "model.visual."))
    return count, vision


def _measured(jobs: Iterable[Job]) -> Iterator[tuple[Job, Path, int, int]]:
    """The trainings whose base model is here to measure, each with the model's folder, which is read once, and its trained and frozen
    parameters."""
    sizes: dict[Path, tuple[int, int]] = {}
    for job in jobs:
        start = trainings(job)[0].inputs.get("init") if job.kind == "train" else None
        if not isinstance(start, Source) or (folder := base_folder(start)) is None:
            continue
        if folder not in sizes:
            try:
                sizes[folder] = parameters(folder)
            except (OSError, ValueError):
                sizes[folder] = (0, 0)
        count, vision = sizes[folder]
        if count:
            yield job, folder, count - vision, vision


def _reachable(repository: str, revision: str) -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(repository, revision=revision, timeout=5)
    except Exception:  # noqa: BLE001 - whatever it was, it cannot be fetched from here
        return False
    return True


# The disk


@dataclass(frozen=True)
class Disk:
    """Bytes that trainings need. checkpoint: the largest, while its training runs; result: what a finished one leaves, of several
    base models the largest."""

    trainings: int
    checkpoint: int
    result: int

    def least(self, held: int = 0) -> int:
        """With one training at a time. held: bytes of checkpoints that lie there already, from which trainings go on."""
        return max(self.checkpoint + self.result, TWICE * self.checkpoint + self.trainings * self.result - held)

    def __str__(self) -> str:
        one = "1 training" if self.trainings == 1 else f"{self.trainings} trainings"
        return (
            f"{one}: while one runs, checkpoints of {_gb(self.checkpoint)} (the newest is kept, {_gb(TWICE * self.checkpoint)} while "
            f"the next is written); then {_gb(self.result)} each, {_gb(self.trainings * self.result)} in all"
        )


def needed(profile: Profile, jobs: Iterable[Job]) -> Disk | None:
    """Disk space that the trainings need; None if there are none, or if the base model is not here to measure."""
    todo = [job for job in jobs if job.kind == "train"]
    checkpoint = result = 0
    for job, folder, trained, frozen in _measured(todo):
        stage = _stage(job)
        result = max(result, sum(file.stat().st_size for file in _weights(folder)))
        held = trained + frozen if zero_of(profile.resources_of("train").deepspeed, stage.kind) else 0
        checkpoint = max(checkpoint, checkpoint_bytes(trained, held, 4 if stage.precision == "fp32" else 2))
    return Disk(len(todo), checkpoint, result) if checkpoint else None


def kept(jobs: Iterable[Job], folder: Path) -> int:
    """Bytes of the checkpoints of stopped trainings, of each one's largest: what is written next replaces it."""
    store = Store(folder)
    lying = ([path for attempt in store.attempts(job) for path in attempt.checkpoints.glob("checkpoint-*")] for job in jobs if job.kind == "train")
    return sum(max(map(_bytes, paths), default=0) for paths in lying)


def _bytes(folder: Path) -> int:
    """Of all files; a training that runs may take some away meanwhile."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.stat().st_size if path.is_file() else 0
    return found


def disk(profile: Profile, jobs: Iterable[Job], folder: Path) -> list[Finding]:
    todo = list(jobs)
    need = needed(profile, todo)
    if need is None:
        return []
    held = min(kept(todo, folder), need.trainings * need.checkpoint)
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    text = f"{need}; {_gb(free)} free in {folder}"
    if free < (least := need.least(held)):
        return [Finding("disk", "error", f"{text}, and at least {_gb(least)} are needed; choose another with --results DIR")]
    together = need.trainings * (TWICE * need.checkpoint + need.result) - held
    if free < together and need.trainings > 1:
        return [Finding("disk", "warning", f"{text}; all trainings at once would take {_gb(together)}")]
    return [Finding("disk", "ok", text)]


def _gb(count: float) -> str:
    return f"{count / 1e9:,.0f} GB" if count >= 1e10 else f"{count / 1e9:.2g} GB"

