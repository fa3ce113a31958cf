"""Kinds of job for tests on a cluster, beside the ordinary test kinds; imported by the jobs as a plugin."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time

from harness.kinds import KINDS, Kind
from harness.worker.attempt import Context
from models.run import Interrupted
from tests.harness.dispatch import kinds as ordinary  # noqa: F401 - registers count, digest, raise

PLUGIN = __name__


def expected(job) -> dict:
    """What a `count` job without inputs must leave, however often it was disturbed."""
    state = {"step": 0, "digest": ""}
    for step in range(job.payload["steps"]):
        digest = hashlib.sha256(f"{state['digest']}{job.key}{step}".encode()).hexdigest()
        state = {"step": step + 1, "digest": digest}
    return state


def _leave(context: Context, value: object) -> None:
    (context.run.out / "result.json").write_text(json.dumps(value))


def nothing(context: Context) -> None:
    _leave(context, 0)


def stuck(context: Context) -> None:
    """Never gets anywhere, unless it is given more minutes than the payload says."""
    while context.resources["minutes"] <= context.record.payload["minutes"]:
        time.sleep(0.1)
        if context.run.should_stop():
            raise Interrupted("without a checkpoint")
    _leave(context, context.resources["minutes"])


def hog(context: Context) -> None:
    """Uses so many MiB."""
    held = [os.urandom(2**20) for _ in range(context.record.payload["mib"])]
    _leave(context, len(held))


def ranks(context: Context) -> None:
    """Every rank says who it is; rank 0 waits for all. fails: a rank that breaks instead."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")
    words = {name: os.environ.get(name) for name in names}
    if words["RANK"] == str(context.record.payload.get("fails")):
        raise ZeroDivisionError("a rank breaks")
    (context.run.out / f"rank{words['RANK']}.json").write_text(json.dumps(words))
    while len(list(context.run.out.glob("rank*.json"))) < int(words["WORLD_SIZE"]):
        time.sleep(0.1)
    if words["RANK"] == "0":
        _leave(context, words["WORLD_SIZE"])


def code(context: Context) -> None:
    """Which version of the code runs."""
    _leave(context, importlib.import_module("models.marker").VERSION)


KINDS |= {
    "nothing": Kind("nothing", nothing),
    "stuck": Kind("stuck", stuck),
    "hog": Kind("hog", hog),
    "ranks": Kind("ranks", ranks, processes="ranks"),
    "code": Kind("code", code),
}
