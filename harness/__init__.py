"""The planning side of the project: tables, jobs, machines and statistics. Nothing in here imports torch at module level.

A table cell is a declarative spec; specs resolve to a graph of content-addressed jobs; jobs run once, anywhere; their
results land in MLflow; tables, figures and verdicts are rendered from there, beside what the paper reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.frames import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load` is imported when it is asked for: the command line pays nothing for it."""
    if name == "load":
        from harness.frames import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
