"""A stand-in for evaluations, imported by jobs only: says which process it ran in, and fails when it is told to."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

from harness.kinds import KINDS
from harness.worker.attempt import AttemptRun, Context
from tests.cluster import kinds  # noqa: F401 - registers the other kinds


def evaluate(context: Context) -> None:
    run = context.run
    if run.ranks > 1:
        return share(run)
    context.kept["asked"] = context.kept.get("asked", 0) + 1
    if context.record.payload.get("fails"):
        raise ZeroDivisionError("no questions")
    words = {"process": os.getpid(), "asked": context.kept["asked"]}
    (context.run.out / "result.json").write_text(json.dumps(words))


def share(run: AttemptRun) -> None:
    """Every rank tells the first, through the attempt's folder, which it is and whether lmms-eval would join it."""
    folder = run.checkpoints / "shards"
    folder.mkdir(exist_ok=True)
    if run.rank:
        words = folder / f".{run.rank}"
        words.write_text(f"{run.rank} of {run.ranks}, WORLD_SIZE {os.environ.get('WORLD_SIZE')}")
        words.rename(folder / str(run.rank))
        return
    while len(told := sorted(folder.glob("[0-9]"))) < run.ranks - 1:
        time.sleep(0.1)
    (run.out / "result.json").write_text(json.dumps([path.read_text() for path in told]))


KINDS["evaluate"] = replace(KINDS["evaluate"], function=evaluate)
