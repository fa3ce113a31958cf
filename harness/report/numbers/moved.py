"""Which cells of two runs of a table have other values, and why: other jobs, other seeds, or other answers of the same jobs.

A run is what a report's JSON file holds of its cells, beside the store that holds their jobs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.store import Store, StoreError
from harness.store.compare import circumstances, spec_changes
from harness.store.records import Record

SMALLEST = 1e-9
"""Percentage points; less is the arithmetic's own rounding."""
MOST_REASONS = 4
Where = tuple[str, str, str, str]
"""(row, column, protocol, latents)"""


@dataclass(frozen=True)
class Run:
    """name: as a person gave it. cells: as in a report's JSON."""

    name: str
    cells: Sequence[Mapping[str, Any]]
    store: Store

    def by_place(self) -> dict[Where, Mapping[str, Any]]:
        """Accuracies. A report of costs or attention has none."""
        return {(c["row"], c["column"], c["protocol"], c["latents"]): c for c in self.cells if "latents" in c}


@dataclass(frozen=True)
class Moved:
    """A cell whose value, interval or lack of a value is not the same. a, b: the cells, None where a run has none of this place."""

    where: Where
    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None
    because: tuple[str, ...]

    @property
    def by(self) -> float | None:
        """Percentage points."""
        before, after = (cell["value"] if cell else None for cell in (self.a, self.b))
        return None if before is None or after is None else after - before


def moved(a: Run, b: Run) -> list[Moved]:
    ours, theirs = a.by_place(), b.by_place()
    found = []
    for where in [*ours, *(where for where in theirs if where not in ours)]:
        one, other = ours.get(where), theirs.get(where)
        if one is None or other is None:
            found.append(Moved(where, one, other, (f"only in {(b if one is None else a).name}",)))
        elif one["state"] != other["state"] or any(apart(one[name], other[name]) for name in ("value", "low", "high")):
            found.append(Moved(where, one, other, reasons(a, one, b, other)))
    return found


def apart(one: float | None, other: float | None) -> bool:
    return (one is None) is not (other is None) or (one is not None and other is not None and abs(one - other) > SMALLEST)


def reasons(a: Run, one: Mapping[str, Any], b: Run, other: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the values differ, the plainest first; of what is found in several seeds' jobs each once."""
    for run, cell in ((a, one), (b, other)):
        if cell["state"] != "measured":
            return (f"{run.name}: {cell['state']}",)
    found = [
        f"{name} {before} → {after}" for name in ("seeds", "n") if (before := one.get(name)) != (after := other.get(name))
    ]
    for first, second in zip(one["jobs"], other["jobs"]):
        found += same_job(a, b, first) if first == second else other_job(a, first, b, second)
    if not found and not apart(one["value"], other["value"]):
        found.append("the interval alone: other trainings stood beside it when seed noise was estimated")
    told = list(dict.fromkeys(found))
    return tuple(told[:MOST_REASONS] + ([f"{len(told) - MOST_REASONS} more"] if len(told) > MOST_REASONS else []))


def other_job(a: Run, first: str, b: Run, second: str) -> list[str]:
    try:
        changes = spec_changes(a.store, a.store.record(first), b.store, b.store.record(second))
        return list(changes) or ["other jobs"]
    except StoreError:
        return [f"other jobs ({first[:12]} → {second[:12]}), which are not both at hand"]


def same_job(a: Run, b: Run, key: str) -> list[str]:
    """One job with different results in two stores."""
    try:
        records = [run.store.record(key) for run in (a, b)]
        done = [run.store.done(record) for run, record in zip((a, b), records, strict=True)]
    except StoreError:
        return []
    if records[0].folder.resolve() == records[1].folder.resolve() or None in done:
        return []
    changes = answers_changed(a.store, records[0], b.store, records[1])
    return [f"the same job answered otherwise{changes}", *circumstances(*done)] if changes else []  # type: ignore[arg-type]


def answers_changed(a: Store, one: Record, b: Store, other: Record) -> str:
    """ ": 12 of 300 questions, 7 right now and 5 wrong now"; "" where no answer differs."""
    sides = []
    for store, record in ((a, one), (b, other)):
        try:
            lines = (store.outputs(record) / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, StoreError):
            return ""
        sides.append({(row["task"], row["doc_id"]): row for row in map(json.loads, lines)})
    both = sides[0].keys() & sides[1].keys()
    differing = [at for at in both if sides[0][at].get("response") != sides[1][at].get("response") or sides[0][at]["correct"] != sides[1][at]["correct"]]
    if not differing:
        return ""
    turned = Counter((sides[0][at]["correct"], sides[1][at]["correct"]) for at in differing)
    return f": {len(differing)} of {len(both)} questions, {turned[False, True]} right now and {turned[True, False]} wrong now"
