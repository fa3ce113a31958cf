"""Trainings on several ranks, as a program for torchrun: each rank imports everything once and forks for each training.

    torchrun --standalone --nproc-per-node 2 -m tests.models.training.ranks TRAININGS.json

One Trainer to a process is all that transformers and DeepSpeed allow; importing them takes longer than a tiny training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass
class Training:
    """One call of `models.training.train`. stop: (rank, step) at which that rank alone is asked to stop."""

    folder: str
    spec: dict[str, Any]
    inputs: dict[str, str | None]
    zero: str | None = None
    micro_batch: int = 2
    resume_from: str | None = None
    stop: tuple[int, int] | None = None
    gradient_checkpointing: bool = False


def on_two_ranks(trainings: list[Training], file: Path) -> str:
    """Do them one after another on two ranks; returns what they printed, and raises with it when one fails."""
    file.write_text(json.dumps([asdict(training) for training in trainings]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", __name__]
    done = subprocess.run(
        [*command, str(file)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        check=False,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-6000:]}\n{done.stderr[-30000:]}")
    return done.stdout + done.stderr


def main(file: str) -> int:
    import deepspeed  # noqa: F401 - once, before forking
    import torch

    import models.training.stage  # noqa: F401

    torch.set_num_threads(1)
    port = int(os.environ["MASTER_PORT"])
    # torchrun's own store serves one process group; every training's rank 0 opens another one.
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    for number, words in enumerate(json.loads(Path(file).read_text()), start=1):
        child = os.fork()
        if not child:
            os.environ["MASTER_PORT"] = str(port + number)
            os._exit(train(Training(**words)))
        if status := os.waitpid(child, 0)[1]:
            print(f"training {number} ({words['folder']}) ended with {status}", file=sys.stderr)
            return 1
    return 0


def train(training: Training) -> int:
    from harness.worker.deepspeed import zero_config
    from models.config import TrainSpec
    from models.run import Interrupted, LocalRun
    from models.training import stage, trainer

    trainer.LOG_SECONDS = 0.0  # every step
    rank, folder = int(os.environ["RANK"]), Path(training.folder)

    class Run(LocalRun):
        step = 0

        def should_stop(self) -> bool:
            self.step += 1
            return training.stop is not None and rank == training.stop[0] and self.step >= training.stop[1]

    run = Run(
        folder / "out",
        folder / "checkpoints",
        resume_from=Path(training.resume_from) if training.resume_from else None,
        metrics=folder / "metrics.jsonl",
    )
    try:
        stage.train(
            run,
            TrainSpec.model_validate(training.spec),
            inputs={role: Path(path) for role, path in training.inputs.items() if path},
            micro_batch=training.micro_batch,
            deepspeed=zero_config(training.zero) if training.zero else None,
            gradient_checkpointing=training.gradient_checkpointing,
        )
    except Interrupted:
        return 0 if training.stop else 2
    except Exception:  # noqa: BLE001 - reported, and told by the exit status
        traceback.print_exc()
        return 1
    return 3 if training.stop else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
