"""What a cell keeps of the jobs behind it: where they are, and how their answers came about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobRef:
    """A job behind a cell. folder, log, samples: relative to the report's folder. link: its MLflow run, if known."""

    key: str
    kind: str
    name: str
    seed: int | None
    folder: str
    log: str = ""
    link: str = ""
    samples: str = ""


@dataclass(frozen=True)
class Rates:
    """Shares of the answers, 0 to 1. None where the run has no such notion."""

    started: float | None
    truncated: float | None
    unparsed: float | None
    latent_steps: float | None = None
    """Mean latent steps of an answer."""
    rejected: float | None = None
    """Questions that were never asked: their clip is missing or cannot be read."""
