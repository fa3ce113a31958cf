"""A stand-in for evaluations, imported by jobs only: says which process it ran in, and fails when it is told to."""

from __future__ import annotations

import json
import os

from harness.worker.attempt import Context
from harness.worker.kinds import register
from tests.cluster import kinds  # noqa: F401 - registers the other kinds

PLUGIN = "tests.cluster.bundles"


@register("evaluate")
def evaluate(context: Context) -> None:
    context.kept["asked"] = context.kept.get("asked", 0) + 1
    if context.record.payload.get("fails"):
        raise ZeroDivisionError("no questions")
    words = {"process": os.getpid(), "asked": context.kept["asked"]}
    (context.run.out / "result.json").write_text(json.dumps(words))
