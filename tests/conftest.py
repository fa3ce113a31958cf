"""The order of the tests."""

from __future__ import annotations

import pytest

LONG = {"test_gpu_benchmark.py", "test_ratios.py", "test_comparison.py", "test_surroundings.py"}
"""Files with a single test that takes longest: they come first, so that no process has one left when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)
