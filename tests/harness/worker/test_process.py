"""A worker's own memory."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from harness.worker import process
from harness.worker.process import LOADED_BYTES, RECYCLE_BYTES, Worker

SCRIPT = """
from harness.worker.process import give_memory_back, own_bytes
taken = [bytearray(50_000) for _ in range(6000)]
kept = taken[::50]
full = own_bytes()
del taken
give_memory_back()
print(full - own_bytes())
"""


def test_freed_memory_goes_back_to_the_system_although_some_of_its_neighbours_are_kept():
    given_back = int(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout)
    assert given_back > 200 * 2**20


@pytest.mark.parametrize(
    ("group", "held", "leaves"),
    [("base", LOADED_BYTES - 1, False), ("base", LOADED_BYTES + 1, True), ("other", LOADED_BYTES - 1, True),
     ("other", RECYCLE_BYTES - 1, False), ("", RECYCLE_BYTES + 1, True)],
)  # fmt: skip
def test_a_grown_process_makes_way_unless_the_next_job_needs_what_it_has_loaded(group, held, leaves, monkeypatch):
    monkeypatch.setattr(process, "own_bytes", lambda: held)
    worker = Worker(None, "lease", None, group="base", endings={"done": 1})
    assert worker.has_grown(SimpleNamespace(group=group)) is leaves
    assert not Worker(None, "lease", None).has_grown(SimpleNamespace(group=group))  # it has not run anything yet
