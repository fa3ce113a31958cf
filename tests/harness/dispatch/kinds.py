"""Kinds of job for tests: real work in real processes, small enough to wait for.

Imported by workers as a plugin (see `dispatch.run(plugins=...)`) and by tests for the kinds' versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from typing import Any

from harness.kinds import KINDS, Kind
from harness.worker.attempt import Context
from models.run import Interrupted

PLUGIN = __name__
PAUSE = "TEST_PAUSE_SECONDS"
"""Environment variable: how long a step takes that does not say. Not part of a job's key."""


def _save(context: Context, state: dict[str, Any]) -> None:
    folder = context.run.checkpoints / f"checkpoint-{state['step']}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "COMPLETE").touch()


def count(context: Context) -> None:
    """A chain of digests, a step each `pause` seconds, with a checkpoint after every step: resumable exactly.

    gate: a file without which it does not get past step 10.
    """
    steps, pause = context.record.payload["steps"], context.record.payload.get("pause", float(os.environ.get(PAUSE, "0.02")))
    state = {"step": 0, "digest": "".join(_read(path) for path in context.inputs.values())}
    if context.run.resume_from is not None:
        state = json.loads((context.run.resume_from / "state.json").read_text())
        print(f"resumed at step {state['step']}")
    gate = context.record.payload.get("gate")
    while state["step"] < steps:
        time.sleep(pause)
        while gate and state["step"] >= 10 and not os.path.exists(gate) and not context.run.should_stop():
            time.sleep(0.1)
        state = {
            "step": state["step"] + 1,
            "digest": hashlib.sha256(f"{state['digest']}{context.record.key}{state['step']}".encode()).hexdigest(),
        }
        context.run.log(state["step"], steps, loss=1.0 / state["step"])
        _save(context, state)
        if context.run.should_stop():
            raise Interrupted(f"at step {state['step']}")
    (context.run.out / "result.json").write_text(json.dumps(state))
    with open(context.run.out / "log of ends", "a") as file:
        file.write(f"{os.getpid()}\n")


def digest(context: Context) -> None:
    """One quick step over the inputs."""
    text = "".join(_read(path) for path in context.inputs.values()) + context.record.key
    (context.run.out / "result.json").write_text(json.dumps({"digest": hashlib.sha256(text.encode()).hexdigest()}))


def raises(context: Context) -> None:
    raise ZeroDivisionError("the arm divides by zero")


def starve(context: Context) -> None:
    """Runs out of memory until the micro-batch is small enough."""
    size = context.micro_batch or 0
    if size > context.record.payload["fits"]:
        raise MemoryError(f"{size} sequences do not fit")
    (context.run.out / "result.json").write_text(json.dumps({"micro_batch": size}))


def linger(context: Context) -> None:
    """Deaf to polite stops."""
    time.sleep(context.record.payload["seconds"])


def fill(context: Context) -> None:
    """Writes more than a small disk holds."""
    (context.run.out / "big").write_bytes(bytes(context.record.payload["bytes"]))


def speak(context: Context) -> None:
    """Prints from Python, from C's side of the process and from a child."""
    print("from python")
    os.write(2, b"from the process\n")
    subprocess.run(["echo", "from a child"], check=True)
    print("threads", os.environ["OMP_NUM_THREADS"], context.run.threads, context.run.device)


def _read(folder: Any) -> str:
    return (folder / "result.json").read_text()


KINDS |= {
    "count": Kind("count", count, artifacts=("result.json",), resumable=True),
    "digest": Kind("digest", digest, artifacts=("result.json",)),
    "raise": Kind("raise", raises),
    "starve": Kind("starve", starve),
    "linger": Kind("linger", linger),
    "fill": Kind("fill", fill),
    "speak": Kind("speak", speak),
}
