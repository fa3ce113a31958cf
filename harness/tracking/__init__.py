"""The mirror of the results folder in MLflow, and the questions that reports ask it.

Jobs only write files. One process at a time, whichever `run.py` came first, copies them into MLflow: a run for each job,
with the original times. The mirror holds nothing of its own: delete the database and the next command makes it again.
MLflow is imported only where something has to be copied or asked.

    start(store, labels) … finish()   a child process that mirrors while jobs run, and once more at the end
    sync(store)                       once, in this process
    up_to_date(store)                 whether there is anything to copy (no import of MLflow)
    Tracker(store)                    find_runs(keys), links(keys)
"""

from __future__ import annotations

from harness.store import Store
from harness.tracking.fingerprint import up_to_date
from harness.tracking.follow import Follower, start
from harness.tracking.labels import Label, Use, save_labels
from harness.tracking.query import Found, Tracker
from harness.tracking.where import TrackingError

__all__ = ["Follower", "Found", "Label", "Tracker", "TrackingError", "Use", "save_labels", "start", "sync", "up_to_date"]


def sync(store: Store) -> bool:
    """Copy what is new into MLflow, in this process; False when another process does. Raises TrackingError."""
    from harness.tracking.mirror import sync as copy

    return copy(store)
