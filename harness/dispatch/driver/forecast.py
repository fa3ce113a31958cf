"""Time estimates: for one job from its progress, for the whole graph by simulating the queue. Pure arithmetic."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.jobs import Graph, Job
from harness.kinds import kind_of

Forecast = Callable[[Job], float | None]


def seconds_of(graph: Graph, forecast: Forecast | None) -> dict[str, float]:
    found = {}
    for job in graph:
        known = forecast(job) if forecast else None
        found[job.key] = known if known is not None else kind_of(job.kind).seconds
    return found


def ranks(graph: Graph, seconds: Mapping[str, float]) -> dict[str, float]:
    """By key: seconds from a job's start to the end of the longest chain that depends on it (the critical path)."""
    longest: dict[str, float] = {job.key: 0.0 for job in graph}
    found: dict[str, float] = {}
    for job in reversed(list(graph)):
        found[job.key] = seconds[job.key] + longest[job.key]
        for parent in (p for p in job.parents if p in graph):
            longest[parent.key] = max(longest[parent.key], found[job.key])
    return found


@dataclass
class Pace:
    """How long jobs take here as a multiple of their forecasts, learned by kind. A kind of which nothing is known takes the pace of
    all, and 1 if there is none."""

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Kind → seconds taken, and forecast, of all jobs seen."""

    def saw(self, kind: str, seconds: float, forecast: float) -> None:
        """A job took so long, or will by its progress."""
        taken, stated = self.sums.get(kind, (0.0, 0.0))
        self.sums[kind] = taken + seconds, stated + forecast

    def copy(self) -> Pace:
        return Pace(dict(self.sums))

    def of(self, kind: str) -> float:
        known = [self.sums[kind]] if kind in self.sums else [*self.sums.values()]
        stated = sum(forecast for _, forecast in known)
        return sum(seconds for seconds, _ in known) / stated if stated else 1.0


def group_of(job: Job) -> str:
    """What jobs have in common that a process loads once: the checkpoint they evaluate."""
    shared = job.inputs.get(kind_of(job.kind).shares)
    return shared.key if shared else ""


def material_of(job: Job) -> tuple[str, str]:
    """What of its group's jobs a process keeps from one to the next: what it read of a benchmark, under one protocol."""
    read = job.inputs.get(kind_of(job.kind).keeps)
    return (read.key, str(job.payload.get("protocol", ""))) if read else ("", "")


def priorities(graph: Graph, seconds: Mapping[str, float]) -> list[Job]:
    """Longest chain first; among leaves that share what is loaded, the largest group first and kept together, and in it those
    that ask the same questions."""
    rank = ranks(graph, seconds)
    whole: dict[str, float] = {}
    longest: dict[tuple[str, str], float] = {}
    for job in graph:
        whole[group_of(job) or job.key] = whole.get(group_of(job) or job.key, 0.0) + seconds[job.key]
        benchmark = group_of(job), material_of(job)[0]
        longest[benchmark] = max(longest.get(benchmark, 0.0), rank[job.key])
    leaves = {job.key for job in graph} - {parent.key for job in graph for parent in job.parents}

    def place(job: Job) -> tuple[object, ...]:
        group = group_of(job)
        if job.key not in leaves or not group:
            return False, 0.0, "", -rank[job.key]
        material = material_of(job)
        return True, -whole[group], group, -longest[group, material[0]], material, -rank[job.key]

    return sorted(graph, key=place)


Progress = Mapping[str, Any]
"""A line of metrics.jsonl: `time` when `step` of `total` was done."""


def tells(first: Progress | None, last: Progress | None) -> bool:
    """Whether the first and the last progress of a running job say how fast it goes. One alone does not: nobody knows how much of
    the time before it was imports and loading."""
    return bool(first and last and last["total"] and last["step"] > first["step"])


def left_of_running(first: Progress | None, last: Progress | None, begun: float, forecast: float) -> float:
    """Seconds a running job still needs: extrapolated from its progress if that tells, else the rest of the forecast."""
    now = time.time()
    if first and last and tells(first, last):
        pace = (last["time"] - first["time"]) / (last["step"] - first["step"])
        return max(0.0, pace * (last["total"] - last["step"]) - (now - last["time"]))
    return max(1.0, forecast - (now - begun))


def left_of_all(order: list[Job], remaining: Mapping[str, float], running: set[str], slots: int) -> float:
    """Seconds until all is done, if `slots` workers take jobs in this order as their parents end.

    remaining: seconds by key for every unfinished job; a job that is not in it is done.
    """
    ends = {key: remaining[key] for key in running}
    free = list(ends.values())[: max(slots, len(running))]
    free += [0.0] * (slots - len(free))
    heapq.heapify(free)
    waiting = {job.key: (i, job) for i, job in enumerate(order) if job.key in remaining and job.key not in running}
    children: dict[str, list[str]] = {}
    lacking: dict[str, int] = {}
    able: list[tuple[float, int, str]] = []  # (when its parents have ended, place in the order, key)
    ready: list[tuple[int, str]] = []

    def parents_end(job: Job) -> float:
        return max((ends.get(parent.key, 0.0) for parent in job.parents), default=0.0)

    for i, job in waiting.values():
        unknown = {parent.key for parent in job.parents if parent.key in waiting}
        lacking[job.key] = len(unknown)
        for key in unknown:
            children.setdefault(key, []).append(job.key)
        if not unknown:
            able.append((parents_end(job), i, job.key))
    heapq.heapify(able)
    while able or ready:
        now = heapq.heappop(free)
        while able and able[0][0] <= now:
            _, i, key = heapq.heappop(able)
            heapq.heappush(ready, (i, key))
        key = heapq.heappop(ready)[1] if ready else heapq.heappop(able)[2]
        ends[key] = max(parents_end(waiting[key][1]), now) + remaining[key]
        heapq.heappush(free, ends[key])
        for child in children.get(key, ()):
            lacking[child] -= 1
            if not lacking[child]:
                heapq.heappush(able, (parents_end(waiting[child][1]), waiting[child][0], child))
    return max(ends.values(), default=0.0)
