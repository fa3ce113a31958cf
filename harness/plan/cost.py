"""What a job costs: learned from finished jobs of the same shape, unknown if there are none.

Knows payloads, not the store: finished jobs are handed in as (kind, payload, input keys, seconds).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.jobs import Graph, Job, trainings
from harness.kinds import KINDS
from harness.spec.recipe import STAGES

if TYPE_CHECKING:
    from harness.plan.plan import Plan
    from harness.spec.profile import Resources

History = Mapping[str, float]
"""Shape → seconds per unit of work."""


class Finished(NamedTuple):
    """A job that ran from its beginning to its end. inputs: role → key. ended: Unix seconds."""

    key: str
    kind: str
    payload: Mapping[str, Any]
    inputs: Mapping[str, str]
    seconds: float
    ended: float = 0.0


_STAGE_SHAPE = ("kind", "global_batch", "precision", "slot_fill", "rollout", "self_fed")


def shape(kind: str, payload: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Jobs of one shape cost the same for each unit: a step of training, or the whole of a job that has no steps."""
    parts: list[Any] = [kind]
    if kind == "train":
        stage = payload["stage"]
        parts += [stage.get(name) for name in _STAGE_SHAPE]
        parts += [payload.get(name) for name in ("latent_steps", "vision", "packing", "images")] + [inputs.get("data")]
    elif kind in KINDS and KINDS[kind].answers:
        decode = payload.get("decode", {})
        parts += [payload["benchmark"], payload.get("protocol"), decode.get("latent_steps"), inputs.get("mirror")]
        parts += [sorted(system.items(), key=str)] if (system := payload.get("system")) else []
    else:
        parts += [sorted(payload.items(), key=str), *sorted(inputs.values())]
    return repr(parts)


def units(kind: str, payload: Mapping[str, Any]) -> int:
    """Steps of a training; 1 for anything else."""
    if kind != "train":
        return 1
    stage = payload["stage"]
    return stage.get("steps", STAGES[stage["kind"]].model_fields["steps"].default)


def learn(finished: Iterable[Finished]) -> dict[str, float]:
    """Median seconds per unit, by shape."""
    return {name: median(rate for _, rate in rates) for name, rates in _rates(finished).items()}


def _rates(finished: Iterable[Finished]) -> dict[str, list[tuple[float, float]]]:
    """By shape: when each job ended, and its seconds per unit."""
    seen: dict[str, list[tuple[float, float]]] = {}
    for job in finished:
        rate = job.seconds / units(job.kind, job.payload)
        seen.setdefault(shape(job.kind, job.payload, job.inputs), []).append((job.ended, rate))
    return seen


def hindsight(
    finished: Sequence[Finished], keys: Container[str], stated: Mapping[str, float] | None = None
) -> dict[str, tuple[float, float]]:
    """By key: (forecast, actual) seconds of each of these jobs that had a forecast when it began, which is what `plan` would
    have said then: by all jobs of its shape that had ended, else by `stated`."""
    rates = {name: sorted(found) for name, found in _rates(finished).items()}
    pairs = {}
    for job in (job for job in finished if job.key in keys):
        found = rates[shape(job.kind, job.payload, job.inputs)]
        before = found[: bisect_right(found, (job.ended - job.seconds, float("inf")))]
        rate = median(rate for _, rate in before) if before else (stated or {}).get(job.kind)
        if rate is not None:
            pairs[job.key] = (rate * units(job.kind, job.payload), job.seconds)
    return pairs


def seconds_of(job: Job, history: History, stated: Mapping[str, float] | None = None) -> float | None:
    """Forecast of one job; None = unknown. stated: a profile's own seconds per unit by kind, where history is silent."""
    keys = {role: upstream.key for role, upstream in job.inputs.items()}
    rate = history.get(shape(job.kind, job.payload, keys), (stated or {}).get(job.kind))
    return None if rate is None else rate * units(job.kind, job.payload)


class Bound(NamedTuple):
    """Of some jobs, in seconds: forecast of those whose cost is known, limit of all, how many of unknown cost.

    The limit is what a scheduler lets them take when each is begun once; a job that is begun again gets it again.
    """

    forecast: float
    limit: float
    unknown: int


def bound(jobs: Iterable[Job], costs: Mapping[str, float | None], resources: Callable[[str], Resources]) -> Bound:
    """The jobs' total time. resources: of a kind, a profile's `resources_of`."""
    return _bound(jobs, costs, resources, lambda kind: 1)


def gpu_bound(jobs: Iterable[Job], costs: Mapping[str, float | None], resources: Callable[[str], Resources]) -> Bound:
    """The same in GPU-seconds; jobs without GPUs count as zero."""
    return _bound(jobs, costs, resources, lambda kind: resources(kind).gpus)


def _bound(
    jobs: Iterable[Job],
    costs: Mapping[str, float | None],
    resources: Callable[[str], Resources],
    weight: Callable[[str], int],
) -> Bound:
    forecast, limit, unknown = 0.0, 0.0, 0
    for job in jobs:
        if times := weight(job.kind):
            cost = costs[job.key]
            forecast += (cost or 0.0) * times
            limit += 60.0 * resources(job.kind).minutes * times
            unknown += cost is None
    return Bound(forecast, limit, unknown)


def above_limit(
    jobs: Iterable[Job], costs: Mapping[str, float | None], resources: Callable[[str], Resources]
) -> dict[str, float]:
    """Kind → its longest forecast in seconds, of kinds with a job whose forecast is above its time limit."""
    found: dict[str, float] = {}
    for job in jobs:
        cost = costs[job.key] or 0.0
        if cost > 60.0 * resources(job.kind).minutes:
            found[job.kind] = max(cost, found.get(job.kind, 0.0))
    return found


def written_out(plans: Iterable[Plan]) -> list[list[Job]]:
    """The trainings of each row, as if no row shared any with another.

    Rows that train the same and show different columns are one row that the paper spread over two tables.
    """
    rows: list[tuple[tuple[str, ...], set[str], list[Job]]] = []
    for plan in plans:
        columns = {column.name for column in plan.columns}
        for by_seed in plan.checkpoints.values():
            chains = [trainings(last) for last in by_seed.values()]
            key = tuple(job.key for trained in chains for job in trained)
            twin = next((seen for name, seen, _ in rows if name == key and not seen & columns), None)
            if twin is not None:
                twin |= columns
            elif key:
                rows.append((key, set(columns), [job for trained in chains for job in trained]))
    return [jobs for _, _, jobs in rows]


def makespan(graph: Graph, todo: Mapping[str, float], slots: int) -> float:
    """Seconds until all of `todo` (key → seconds) is done with `slots` jobs at once: the larger of load and longest chain."""
    finish: dict[str, float] = {}
    for job in graph:
        before = max((finish[parent.key] for parent in job.parents), default=0.0)
        finish[job.key] = before + todo.get(job.key, 0.0)
    return max(sum(todo.values()) / max(slots, 1), max(finish.values(), default=0.0))
