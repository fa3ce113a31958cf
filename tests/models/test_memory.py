"""Large tensors lie in large pages. A process of its own for each test: torch reads the setting once."""

import subprocess
import sys
from pathlib import Path

import pytest

SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource
import torch
import models

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(50 << 18)  # 50 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    """Of a process whose first tensor has 50 MB, 12,800 pages of 4 KB."""
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True, env={"PYTHONPATH": "."} | environment)
    return int(done.stdout)


@pytest.mark.skipif(not SYSTEM.is_file() or "[never]" in SYSTEM.read_text(), reason="this system grants no pages of 2 MB")
def test_a_large_tensor_costs_few_page_faults():
    assert faults() < 6_400


def test_the_environment_has_the_last_word():
    if SYSTEM.is_file() and "[always]" in SYSTEM.read_text():
        pytest.skip("this system grants pages of 2 MB to every program")
    assert faults(THP_MEM_ALLOC_ENABLE="0") > 6_400
