"""What each kind of job does (`harness.kinds`): reads the payload, then calls `models` with plain arguments.

`models` is imported inside the functions, so this module costs nothing until a job runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.worker.attempt import Context
from harness.worker.deepspeed import zero_of

if TYPE_CHECKING:
    from models.config import EvaluateSpec

def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def data(context: Context) -> Any:
    spec = context.spec
    if spec.source == "external":
        from models.training.external import prepare

        return prepare(
            context.run.out,
            context.inputs["files"],
            spec,
            context.inputs["base"],
            threads=context.run.threads,
            progress=context.run.progress,
        )
    if spec.source == "proxy_clips":
        from models.proxy.clipset import write_clip_set

        return write_clip_set(context.run.out, n=spec.n, seed=spec.seed, progress=context.run.progress)
    from models.proxy.trainset import write_training_set

    return write_training_set(context.run.out, n=spec.n, seed=spec.seed, progress=context.run.progress)


def mirror(context: Context) -> Any:
    spec = context.spec
    if spec.source == "external":
        from models.evaluation.external import link_mirror

        inputs = context.record.inputs
        clips = inputs["clips"].location if "clips" in inputs else None
        return link_mirror(context.run.out, spec.benchmark, inputs["files"].location, spec.tasks, clips)
    if spec.source == "twins":
        from models.proxy.twins import write_twins

        return write_twins(context.run.out, n=spec.n, seed=spec.seed, split=spec.split, progress=context.run.progress)
    if spec.source == "proxy_clips":
        from models.proxy.clip_mirror import write_clip_mirror

        return write_clip_mirror(context.run.out, n=spec.n, seed=spec.seed, split=spec.split, progress=context.run.progress)
    from models.proxy.mirrors import write_mirror

    return write_mirror(
        context.run.out, spec.benchmark, n=spec.n, seed=spec.seed, split=spec.split, progress=context.run.progress
    )


def features(context: Context) -> Any:
    from models.training.features import cache_features

    _threads(context.run.threads)
    spec = context.spec
    return cache_features(
        context.run,
        checkpoint=context.inputs["base"],
        data=context.inputs["data"],
        images=spec.images,
        cut=spec.cut,
        clips=spec.clips,
    )


def train(context: Context) -> Any:
    from models.training import train as run_training
    from models.training.packing import uneven

    _threads(context.run.threads)
    spec, asked = context.spec, int(context.resources["micro_batch"])
    size = context.micro_batch or asked
    while 1 < size < asked and uneven(spec.stage.global_batch, size, context.run.ranks):
        size -= 1  # half of what the memory could not hold need not share a step evenly, as 2 after 5; 1 does wherever 5 did
    return run_training(
        context.run,
        spec,
        inputs=context.inputs,
        micro_batch=size,
        deepspeed=zero_of(context.resources.get("deepspeed"), spec.stage.kind),
        gradient_checkpointing=context.resources.get("gradient_checkpointing") or None,
        attention=context.resources.get("attention", "sdpa"),
    )


def evaluate(context: Context) -> Any:
    from models.evaluation import Session
    from models.evaluation.orientation import oriented

    spec = context.spec
    if spec.system is not None:
        return _answer_by_others(context, spec)
    checkpoint: Path = context.inputs["checkpoint"]
    if context.run.ranks > 1 and context.run.device == "cuda":
        import torch

        torch.cuda.set_device(context.run.rank % torch.cuda.device_count())
    wanted = (checkpoint, spec.precision)
    session = context.kept.get("session")
    if session is None or context.kept.get("session of") != wanted:
        context.kept.pop("session", None)  # before the next one is loaded: one model in memory at a time
        session = None
        session = context.kept["session"] = Session(
            checkpoint,
            device=context.run.device,
            threads=context.run.threads,
            precision=spec.precision,
            attention=context.resources.get("attention", "sdpa"),
            memory_bytes=1e9 * float(context.resources["memory_gb"]) / context.run.ranks,
            shared=context.kept.setdefault("shared", {}),
        )
        context.kept["session of"] = wanted
    size = context.micro_batch or int(context.resources["batch_size"])
    share = context.resources.get("cache_share")
    with oriented(spec.images.orientation):
        return session.evaluate(
            context.run,
            spec,
            mirror=context.inputs["mirror"],
            batch_size=size,
            cache_share=share and share * size / context.resources["batch_size"],  # smaller too after a lack of memory
        )


def ask(context: Context) -> Any:
    return _answer_by_others(context, context.spec)


def _answer_by_others(context: Context, spec: EvaluateSpec) -> Any:
    """Through lmms-eval's own model: of an endpoint, whose address and key only this process reads, or of a checkpoint."""
    if context.run.rank:
        return None  # lmms-eval's models know nothing of shards: the first process answers alone
    from models.evaluation.others import Others

    assert spec.system is not None
    size = context.micro_batch or int(context.resources["batch_size"])
    location = context.record.inputs["checkpoint"].location
    wanted = (location, spec.system, size)
    others = context.kept.get("session")
    if others is None or context.kept.get("session of") != wanted:
        context.kept.pop("session", None)
        others = None
        if location.startswith("endpoint:"):
            address, key = (_variable(name) for name in location.split(":")[1:])
            others = Others.at(address, key, spec.system, requests=size)
        else:
            folder = context.inputs["checkpoint"]
            others = Others.of(folder, spec.system, device=context.run.device, threads=context.run.threads)
        context.kept["session"], context.kept["session of"] = others, wanted
    return others.evaluate(context.run, spec, mirror=context.inputs["mirror"], batch_size=size)


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise FileNotFoundError(f"{name} is not set where this job runs; set it before run.py is started")
    return value


def maps(context: Context) -> Any:
    from models.attention import attention_maps
    from models.evaluation.orientation import oriented

    spec = context.spec
    source = context.inputs["data" if spec.benchmark is None else "mirror"]
    with oriented(spec.images.orientation):
        return attention_maps(
            context.run,
            spec,
            checkpoint=context.inputs["checkpoint"],
            source=source,
            attention=context.resources.get("attention", "sdpa"),
        )


def card(context: Context) -> Any:
    from models.card import causal_card
    from models.evaluation.orientation import oriented

    spec = context.spec
    with oriented(spec.images.orientation):
        return causal_card(
            context.run,
            spec,
            checkpoint=context.inputs["checkpoint"],
            mirror=context.inputs["mirror"],
            batch_size=context.micro_batch or int(context.resources["batch_size"]),
            attention=context.resources.get("attention", "sdpa"),
        )


def measure(context: Context) -> Any:
    from models.config import TimesSpec

    if isinstance(context.spec, TimesSpec):
        from models.evaluation.times import compare

        places = {name: context.inputs[name] for name in ("checkpoint", "zooming", "mirror")}
        return compare(context.run, context.spec, **places, attention=context.resources.get("attention", "sdpa"))
    from models.efficiency import measure as measure_cost

    return measure_cost(
        context.run,
        context.spec,
        checkpoint=context.inputs["checkpoint"],
        attention=context.resources.get("attention", "sdpa"),
    )
