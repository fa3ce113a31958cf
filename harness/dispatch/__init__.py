"""Gets a graph of jobs done: whatever is missing is run, here or on a cluster, and what runs already is joined.

Several drivers may work on one store at a time, and each may be killed at any moment: what is done is in the store, what
runs goes on, and the same command continues. Knows nothing about tables or tensors.
"""

from __future__ import annotations

from harness.dispatch.driver import run
from harness.dispatch.outcome import Ended, Outcome

__all__ = ["Ended", "Outcome", "run"]
