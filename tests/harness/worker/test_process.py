"""A worker's own memory."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from harness.worker.process import give_memory_back, resident_bytes
taken = [bytearray(50_000) for _ in range(6000)]
kept = taken[::50]
full = resident_bytes()
del taken
give_memory_back()
print(full - resident_bytes())
"""


def test_freed_memory_goes_back_to_the_system_although_some_of_its_neighbours_are_kept():
    given_back = int(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout)
    assert given_back > 200 * 2**20
