"""Faults on purpose: kills, failing writes, damaged files, wrong clocks, many drivers, a database that refuses.

The promise: no finished result is lost, none is counted twice, none is wrong without an error, and in the end the results
are those of an undisturbed run. `test_faults.py` tries a few of each; `python -m benchmarks.faults` tries all of them and
writes the figures.
"""
