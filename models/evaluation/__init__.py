"""Evaluation: answers of one checkpoint on one benchmark, through lmms-eval, as rows that can be scored again.

`tasks` and `extract` and `scores` are torch-free (planning and reporting import them); `Session` holds a loaded
checkpoint and runs any number of evaluations of it. This room knows nothing of jobs, stores or tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.config import EvaluateSpec
from models.run import Run

if TYPE_CHECKING:
    from models.evaluation.session import Session

__all__ = ["Session", "evaluate"]


def evaluate(run: Run, spec: EvaluateSpec, *, checkpoint: Path, mirror: Path, batch_size: int) -> dict[str, Any]:
    """Evaluate once: `Session(checkpoint, …).evaluate(run, spec, …)`. For several jobs of one checkpoint keep a Session."""
    from models.evaluation.session import Session

    session = Session(checkpoint, device=run.device, threads=run.threads, precision=spec.precision)
    return session.evaluate(run, spec, mirror=mirror, batch_size=batch_size)


def __getattr__(name: str) -> Any:
    if name == "Session":  # torch and lmms-eval are imported only when a session is wanted
        from models.evaluation.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
