"""`python -m tests.harness.tracking.asking ROOT KEYS`: what MLflow knows of a store's jobs, as one line of JSON."""

from __future__ import annotations

import json
import sys

from harness.store import Store
from harness.tracking import Tracker, where
from harness.tracking.sync import all_runs, client_of

if __name__ == "__main__":
    store = Store(sys.argv[1])
    tracker = Tracker(store)
    found = tracker.find_runs(json.loads(sys.argv[2]))
    curves, places = {}, []
    if found and next(iter(found.values())).run_id:
        client = client_of(store)
        for key, run in found.items():
            curves[key] = [[p.timestamp, p.step, p.value] for p in client.get_metric_history(run.run_id, "loss")]
        experiment = client.get_experiment_by_name(where.EXPERIMENT)
        places = [run.info.artifact_uri for run in all_runs(client, experiment.experiment_id)]
    runs = {key: [dict(run.metrics), dict(run.tags), run.link] for key, run in found.items()}
    print(json.dumps([tracker.unreachable, runs, curves, places]))
