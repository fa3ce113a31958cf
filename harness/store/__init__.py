"""The results folder: what is done, what runs, what failed. Files are the truth; every index can be rebuilt from them.

    results/<kind>/<slug>-<first 12 digits of the key>/
        spec.json                     what the job is
        attempts/<n>/claim.json       who owns attempt n; its time is the heartbeat
        attempts/<n>/                 log, metrics.jsonl, out/, checkpoints/, failure.json
        DONE.json                     which attempt won, and digests of its outputs; sealed, published once, by link
        out -> attempts/<n>/out       for people
    results/.leases/                  which worker processes have which jobs in hand
    results/.checks/                  what the last check by digest saw of each finished job
    results/.tags/                names that people gave to jobs
    results/.damaged/                 what `run.py retry KEY --damaged` set aside

Knows nothing about how jobs are run, nor what they compute.
"""

from harness.store.attempts import Attempt, Failure
from harness.store.done import Damaged
from harness.store.files import StoreError
from harness.store.owners import Owner
from harness.store.records import Record
from harness.store.states import State, Status
from harness.store.store import AlreadyDone, Held, Store

__all__ = ["AlreadyDone", "Attempt", "Damaged", "Failure", "Held", "Owner", "Record", "State", "Status", "Store", "StoreError"]
