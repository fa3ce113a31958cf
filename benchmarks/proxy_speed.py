"""What the proxy profile's choices on a CPU are worth: seconds per training step and questions per second, as ratios.

    python benchmarks/proxy_speed.py

Training: transformers' eager attention, which computes padding and all of a second pass, against eager attention of each sample by
itself; sdpa on whole global batches against the same on small ones, of a rollout; pictures and clips encoded in each step against
features computed once before, and after how many steps that pays. On a CPU without bf16 instructions, also a step with torch's
own bf16 products against one with ours (models/backbone/products.py), each in a process of its own, and answers whose keys are widened
in each step against once. Evaluation: four kinds of latents,
each from prompts of its own (sdpa, eager), against all from the same prefills. One thread, everything in one run, in turn; medians.
Training is measured in seconds of the processor, which other programs lengthen less. The base checkpoint is the committed one, data are
drawn here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import statistics
import subprocess
from itertools import pairwise
from unittest import mock

import torch

from benchmarks.page import REPOSITORY
from models.config import Clips, DecodeSpec, EvaluateSpec, Images, TrainSpec
from models.evaluation import Session
from models.evaluation.tasks import digest
from models.latent import prefill
from models.latent.decoding import decode
from models.latent.prompt import Prompt
from models.methods.stage import Cut, Features, StageSpec
from models.methods.visreflect.spec import Reflect, ReflectVideo
from models.methods.vreflection.spec import Stage1, Stage2
from models.proxy import BASE_DIR
from models.proxy.clipset import write_clip_set
from models.proxy.mirrors import write_mirror
from models.proxy.trainset import write_training_set
from models.run import LocalRun
from models.training import train
from models.training.features import cache_features

IMAGES = Images(min_pixels=784)
CLIPS = Clips(fps=2, min_pixels=784)
STEPS, QUESTIONS = 8, 192
LATENTS = ("own", "zeroed", "shuffled", "oracle")
COMMON = {"steps": STEPS, "global_batch": 32, "lr": 6e-4, "precision": "bf16"}
STAGE_1, STAGE_2, IMAGE = Stage1(**COMMON), Stage2(**COMMON, teacher="random"), Reflect(**COMMON)
VIDEO = ReflectVideo(**COMMON | {"global_batch": 10})


class Timed(LocalRun):
    """Keeps when each step was logged."""

    def log(self, step: int, total: int, **values: float) -> None:
        self.__dict__.setdefault("at", []).append((step, time.process_time()))


def seconds_per_step(folder: Path, stage: StageSpec, micro_batch: int, attention: str = "eager_by_sample", vision: str = "cached") -> float:
    """Of the processor, the median over the logged steps after the first. folder: a new one beside `data` and the features."""
    run = Timed(folder)
    spec = TrainSpec(stage=stage, latent_steps=8, max_tokens=4096, images=IMAGES, vision=vision,
                     packing="padded" if stage.kind == "stage2" else "packed", clips=CLIPS if stage.clips else Clips())
    inputs = {"init": BASE_DIR, "data": folder.parent / "data"} | {role: folder.parent / role for role in roles_of(stage)}
    train(run, spec, inputs=inputs, micro_batch=micro_batch, attention=attention)
    return statistics.median((then - now) / (after - step) for (step, now), (after, then) in pairwise(run.at))


def seconds_with_torchs_products(folder: Path) -> float:
    """As `seconds_per_step` of stage 1 with micro-batches of 8; `folder` has data and features."""
    script = (
        "import sys; from pathlib import Path; import models.backbone.products as products; products.widen_products = lambda: None;"
        "import torch; torch.set_num_threads(1); from benchmarks import proxy_speed as speed;"
        "print(speed.seconds_per_step(Path(sys.argv[1]), speed.STAGE_1.model_copy(update={'steps': 3}), 8))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder / "torchs products")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def roles_of(stage: StageSpec) -> dict[str, Cut | None]:
    """What of the stage's pictures or clips can be encoded before."""
    return {need.role: need.cut for need in stage.needs() if isinstance(need, Features)}


def seconds_to_cache(folder: Path, stage: StageSpec) -> float:
    """Of the processor, for the features that the stage needs of `folder`/data; they are left in `folder`."""
    began, clips = time.process_time(), CLIPS if stage.clips else None
    for role, cut in roles_of(stage).items():
        if (folder / role).exists():
            continue
        run = LocalRun(folder / role)
        cache_features(run, checkpoint=BASE_DIR, data=folder / "data", images=IMAGES, clips=clips, cut=cut and (role, cut))
    return time.process_time() - began


def seconds_per_mode(checkpoint: Path, folder: Path, mirror: Path, attention: str, room: int) -> dict[str, float]:
    """Seconds of each kind of latents in one session; pictures are encoded before the clock starts. room: bytes for prefills."""
    session = Session(checkpoint, attention=attention)
    session.engine.prefills.limit(room)
    found = {}
    for kind in ("own", *LATENTS):  # the first pass encodes the pictures
        session.engine.prefills.clear() if not found else None
        spec = EvaluateSpec(benchmark="mmvp", protocol="paper", tasks=digest("mmvp", "paper"),
                            decode=DecodeSpec(latents=kind, start="forced", max_new_tokens=16), images=IMAGES)
        started = time.perf_counter()
        session.evaluate(LocalRun(folder / f"{attention}-{room}-{kind}-{len(found)}"), spec, mirror=mirror, batch_size=64)
        found[kind] = time.perf_counter() - started
    return found


def seconds_per_token(session: Session) -> float:
    """Of the processor, for one more token of each of 64 answers to prompts of 300 tokens."""
    engine, n = session.engine, 32
    prompts = [Prompt(torch.arange(300) + at) for at in range(64)]
    read = prefill.read(engine.model, prompts, False, engine.tokens)
    began = time.process_time()
    decode(engine.model, prompts, DecodeSpec(start="never", max_new_tokens=n + 1), prefill=read, tokens=engine.tokens, eos=set())
    return (time.process_time() - began) / n


def main() -> None:
    """Measure and print one table."""
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder, clips = Path(temporary), Path(temporary) / "clips"
        write_training_set(folder / "data", n=600, seed=0)
        write_clip_set(clips / "data", n=150, seed=0)
        write_mirror(folder / "mirror", "mmvp", n=QUESTIONS, seed=0, split="dev")
        print("| | before | after | ratio |\n|---|---:|---:|---:|")
        beforehand = {"stage 1, pictures": (folder, STAGE_1, 8), "VisReflect's video stage, clips": (clips, VIDEO, 10)}
        for name, (where, stage, micro_batch) in beforehand.items():
            once = seconds_to_cache(where, stage)
            live = seconds_per_step(where / "live", stage, micro_batch, vision="live")
            cached = seconds_per_step(where / "cached", stage, micro_batch)
            pays = f"encoded once in {once:.0f} s, so after {once / (live - cached):.0f} steps it pays" if live > cached else "it never pays"
            print(f"| {name} encoded before; {pays}; s/step | {live:.2f} | {cached:.2f} | {live / cached:.1f} |", flush=True)
        for name, (where, stage, micro_batch, attention) in {
            "stage 1": (folder, STAGE_1, 32, "eager"), "VisReflect's image stage": (folder, IMAGE, 32, "eager"),
            "VisReflect's video stage": (clips, VIDEO, 10, "eager"), "stage 2 (sequential rollout)": (folder, STAGE_2, 8, "sdpa"),
        }.items():  # fmt: skip
            seconds_to_cache(where, stage)
            before = seconds_per_step(where / f"{name} before", stage, stage.global_batch, attention)
            after = seconds_per_step(where / f"{name} after", stage, micro_batch)
            print(f"| {name}, from {attention} on whole batches; s/step | {before:.2f} | {after:.2f} | {before / after:.1f} |", flush=True)
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            before, after = seconds_with_torchs_products(folder), seconds_per_step(folder / "our products", STAGE_1, 8)
            print(f"| products of bf16 without instructions for them, stage 1, s/step | {before:.2f} | {after:.2f} | {before / after:.1f} |", flush=True)
            session = Session(BASE_DIR, attention="eager")
            with mock.patch.object(prefill, "widened", lambda tensor: tensor):
                before = seconds_per_token(session)
            after = seconds_per_token(session)
            print(f"| a token of 64 answers there, keys widened in each step, and once; s | {before:.3f} | {after:.3f} | {before / after:.1f} |", flush=True)
        checkpoint = folder / "stage 1 after"
        before = seconds_per_mode(checkpoint, folder, folder / "mirror", "sdpa", 0)
        after = seconds_per_mode(checkpoint, folder, folder / "mirror", "eager", 3 << 28)
        for kind in LATENTS:
            speeds = QUESTIONS / before[kind], QUESTIONS / after[kind]
            print(f"| {kind} latents, questions/s | {speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[1] / speeds[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
