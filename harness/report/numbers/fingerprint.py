"""One digest of everything a report was drawn from, stamped into every file, so that an unchanged report is not drawn
again.

Specs, the digests of every job's outputs, the state of those that are not done, and the renderer's own source. Times,
attempts and MLflow are not part of it: the same numbers are the same report.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.identity import digest
from harness.report.numbers.trainings import Trainings, columns_of

if TYPE_CHECKING:
    from harness.report.numbers.study import Study
    from harness.store import Store

STAMP = "report-fingerprint:"


def fingerprint(study: Study, store: Store) -> str:
    """64 hexadecimal digits."""
    jobs = study.jobs()
    results: dict[str, dict[str, str] | str] = {}
    unfinished = []
    for key, job in jobs.items():
        done = store.done(job)
        if done is None:
            unfinished.append(job)
        else:
            # What is linked has no digest: its content is part of the job's key.
            results[key] = {name: entry.get("sha256", "linked") for name, entry in done["outputs"].items()}
    for key, status in store.statuses(unfinished).items() if unfinished else ():
        if key not in results:
            results[key] = str(status.state) + (f": {status.reason}" if status.state in ("failed", "blocked", "damaged") else "")
    from harness.report.numbers.study import registered

    noise = Trainings.behind(study, store).keys
    return digest(
        {
            "noise": {column: noise[column] for column in sorted(columns_of(jobs.values()) & noise.keys())},
            "registered": registered(study, store),
            "renderer": renderer(),
            "name": study.name,
            "spec": study.spec,
            "text": list(study.text),
            "overrides": list(study.overrides),
            "left out": list(study.left_out),
            "absent": {arm.label: arm.absent for arm in study.arms if arm.absent},
            "cells": sorted(f"{e.job.key} {e.seed} {e.protocol} {e.latents}" for e in study.evaluations()),
            "results": results,
        }
    )


@cache
def renderer() -> str:
    """Digest of the source of everything that turns results into a page."""
    harness = Path(__file__).resolve().parents[2]
    files = [path for name in ("report", "stats", "verdict") for path in sorted((harness / name).rglob("*")) if path.is_file()]
    seen = hashlib.sha256()
    for path in files:
        if path.suffix in (".py", ".j2", ".css", ".js"):
            seen.update(path.name.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()


def of_choice(fingerprint: str, beside: str) -> str:
    """The stamp of the LaTeX table alone: it depends on what stands beside its values, too."""
    return fingerprint if beside == "interval" else f"{beside}-{fingerprint}"[: len(fingerprint)]


def stamped(path: Path) -> str | None:
    """The fingerprint inside a report's file; None when there is none."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 400))
            text = head + file.read()
    except OSError:
        return None
    at = text.find(STAMP.encode())
    return text[at + len(STAMP) :].lstrip()[:64].decode("ascii", "replace") if at >= 0 else None
