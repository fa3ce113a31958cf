"""The planning side of the project: tables, jobs, machines and statistics. Nothing in here imports torch at module level.

A table cell is a declarative spec; specs resolve to a graph of content-addressed jobs; jobs run once, anywhere; their
results land in MLflow; tables, figures and verdicts are rendered from there, beside what the paper reported.
"""
