"""What runs inside a worker process: takes jobs of its lease one after another, each in an attempt of its own.

The only room that calls `models`, and only from the functions of each kind. One process may run many jobs, because
starting one costs more seconds than a small job: imports and a loaded checkpoint are kept between jobs.
"""

from harness.worker.process import work

__all__ = ["work"]
