"""The results folder in MLflow: copying it there, and what reports ask of it.

Jobs only write files. One process at a time, whichever `run.py` came first, copies them into MLflow: a run for each job,
with the original times. The database holds nothing of its own: delete it and the next command makes it again.
MLflow is imported only where something has to be copied or asked.

    start(store, labels) … finish()   a child process that copies while jobs run, and once more at the end
    up_to_date(store)                 whether there is anything to copy (no import of MLflow)
    Tracker(store)                    find_runs(keys), links(keys)
"""

from __future__ import annotations

from harness.tracking.fingerprint import up_to_date
from harness.tracking.follow import Follower, start
from harness.tracking.labels import Label, Use, save_labels
from harness.tracking.query import Found, Tracker
from harness.tracking.where import TrackingError

__all__ = ["Follower", "Found", "Label", "Tracker", "TrackingError", "Use", "save_labels", "start", "up_to_date"]
