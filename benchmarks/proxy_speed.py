"""What the proxy profile's choices on a CPU are worth: seconds per training step and questions per second, as ratios.

    python benchmarks/proxy_speed.py

Training: sdpa on whole global batches against eager attention on micro-batches of one length. Evaluation: four kinds of
latents, each from prompts of its own (sdpa, eager), against all from the same prefills. One thread, one process, in
turn, everything in one run; medians. The base checkpoint is the committed one, data are drawn here.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import statistics

import torch

from models.config import DecodeSpec, EvaluateSpec, Images, TrainSpec
from models.evaluation import Session
from models.evaluation.tasks import digest
from models.methods.vreflection.spec import Stage1, Stage2
from models.proxy.mirrors import write_mirror
from models.proxy.trainset import write_training_set
from models.run import LocalRun
from models.training import train
from models.training.features import cache_features

BASE = Path(__file__).resolve().parents[1] / "models/proxy/base"
IMAGES = Images(min_pixels=784)
STEPS, QUESTIONS = 8, 192
LATENTS = ("own", "zeroed", "shuffled", "oracle")
COMMON = {"steps": STEPS, "global_batch": 32, "lr": 6e-4, "precision": "bf16"}
STAGES = {"stage 1": Stage1(**COMMON), "stage 2 (sequential rollout)": Stage2(**COMMON, teacher="random")}


class Timed(LocalRun):
    """Keeps when each step was logged."""

    def log(self, step: int, total: int, **values: float) -> None:
        self.__dict__.setdefault("seconds", []).append(values.get("seconds_per_step", 0.0))


def seconds_per_step(folder: Path, stage: Stage1 | Stage2, micro_batch: int, attention: str) -> float:
    """Median over the logged steps after the first."""
    run = Timed(folder)
    spec = TrainSpec(stage=stage, latent_steps=8, max_tokens=4096, images=IMAGES, vision="cached",
                     packing="padded" if stage.kind == "stage2" else "packed")
    data = folder.parent
    inputs = {"init": BASE, "data": data / "data", "features": data / "features"}
    train(run, spec, inputs=inputs, micro_batch=micro_batch, attention=attention)
    return statistics.median(run.seconds[1:])


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


def main() -> None:
    """Measure and print one table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        write_training_set(folder / "data", n=600, seed=0)
        cache_features(LocalRun(folder / "features"), checkpoint=BASE, data=folder / "data", images=IMAGES)
        write_mirror(folder / "mirror", "mmvp", n=QUESTIONS, seed=0, split="dev")
        print("| | before | after | ratio |\n|---|---:|---:|---:|")
        for name, stage in STAGES.items():
            before = seconds_per_step(folder / f"{name} before", stage, 32, "sdpa")
            after = seconds_per_step(folder / f"{name} after", stage, 8, "eager")
            print(f"| {name}, s/step of 32 samples | {before:.2f} | {after:.2f} | {before / after:.1f} |", flush=True)
        checkpoint = folder / "stage 1 after"
        before = seconds_per_mode(checkpoint, folder, folder / "mirror", "sdpa", 0)
        after = seconds_per_mode(checkpoint, folder, folder / "mirror", "eager", 3 << 28)
        for kind in LATENTS:
            speeds = QUESTIONS / before[kind], QUESTIONS / after[kind]
            print(f"| {kind} latents, questions/s | {speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[1] / speeds[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
