"""Rows and columns become cells, cells become one graph of content-addressed jobs.

payload  what of a spec enters a key        jobs   one row's data, trainings and evaluations
sources  the base checkpoint's digest       plan   an experiment under a profile
cost     what a job costs, from history

Knows specs and identity. Knows nothing of the store: states and history are handed in.
"""

from harness.plan.plan import Cell, Plan, merged, plan_experiment

__all__ = ["Cell", "Plan", "merged", "plan_experiment"]
