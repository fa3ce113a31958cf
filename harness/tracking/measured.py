"""What finished jobs measured: the numbers in the files that their kinds name as artifacts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.kinds import KINDS


def artifacts_of(kind: str) -> tuple[str, ...]:
    """Names in out/. Of a kind that this version does not know: all that any kind has."""
    known = [KINDS[kind]] if kind in KINDS else KINDS.values()
    return tuple(dict.fromkeys(name for one in known for name in one.artifacts))


def measured(kind: str, out: Path) -> dict[str, float]:
    """Name, as in final.accuracy, → number, from every artifact that can be read. Finite numbers only; lists are left out.
    An evaluation's overall accuracy is also there as "accuracy", in percent, for MLflow's compare view."""
    found: dict[str, float] = {}
    for name in artifacts_of(kind):
        try:
            value = json.loads((out / name).read_text())
        except (OSError, ValueError):
            continue
        for key, number in flat(value).items():
            if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
                found[clean(f"final.{key}")] = float(number)
    if (accuracy := found.get("final.aggregates.accuracy")) is not None:
        found["accuracy"] = 100 * accuracy
    return found


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists stay whole."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found.update(flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return found


def clean(name: str) -> str:
    """Only characters that MLflow allows in names."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:240]
