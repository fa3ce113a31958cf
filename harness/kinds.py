"""The kinds of job, one record each, parents before children.

A new kind is one record here, its schema in `models.config` and its function in `harness.worker.functions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class Kind:
    """One kind of job."""

    name: str
    function: str | Callable[[Any], Any]
    """The function that does the job, given a `harness.worker.attempt.Context`; "module:name" is imported when a job
    runs."""
    schema: str = ""
    """What its payload is validated against, as "module:name". "" for a payload without a schema."""
    version: int = 1
    """Raised by hand when the meaning of the payload or the result changes; old results then no longer match."""
    seconds: float = 1.0
    """Assumed duration until one is known. Only the ratios matter: they decide which job starts first."""
    artifacts: tuple[str, ...] = ()
    """Files of out/ that are copied to MLflow; the numbers in them become metrics."""
    resumable: bool = False
    """Whether it writes checkpoints and continues from them."""
    answers: bool = False
    """Whether it answers a benchmark's questions, `batch_size` at a time, and leaves samples.jsonl with a row for each."""
    shown: bool = False
    """Whether reports read its output, which is small; an exported bundle always contains it."""
    shares: str = ""
    """The input that jobs of one process load only once."""
    keeps: str = ""
    """The input of which a process keeps what it has read until a job with another one comes."""
    processes: Literal["one", "ranks", "shards"] = "one"
    """Whether several processes can do one job: ranks of one process group, or shards that share nothing but files."""

    @property
    def batch(self) -> str:
        """The resource that is halved when the device runs out of memory."""
        return "batch_size" if self.answers else "micro_batch"

    def run(self, context: Any) -> Any:
        return (_imported(self.function) if isinstance(self.function, str) else self.function)(context)

    def spec(self, payload: Mapping[str, Any]) -> Any:
        """The payload as an instance of the kind's schema. Raises pydantic's ValidationError."""
        from pydantic import TypeAdapter

        return TypeAdapter(_imported(self.schema)).validate_python(payload)


def _imported(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


_DONE_BY, _SCHEMA = "harness.worker.functions", "models.config"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("data", f"{_DONE_BY}:data", f"{_SCHEMA}:DataSpec", seconds=15, artifacts=("summary.json",)),
        Kind("mirror", f"{_DONE_BY}:mirror", f"{_SCHEMA}:MirrorSpec", seconds=10, artifacts=("summary.json",)),
        Kind("features", f"{_DONE_BY}:features", f"{_SCHEMA}:FeaturesSpec", seconds=30, artifacts=("features.json",)),
        Kind(
            "train",
            f"{_DONE_BY}:train",
            f"{_SCHEMA}:TrainSpec",
            seconds=120,
            artifacts=("diagnostics.json",),
            resumable=True,
            processes="ranks",
        ),
        Kind(
            "evaluate",
            f"{_DONE_BY}:evaluate",
            f"{_SCHEMA}:EvaluateSpec",
            seconds=15,
            artifacts=("result.json",),
            resumable=True,
            answers=True,
            shown=True,
            shares="checkpoint",
            keeps="mirror",
            processes="shards",
        ),
        Kind(
            "ask",
            f"{_DONE_BY}:ask",
            f"{_SCHEMA}:EvaluateSpec",
            seconds=60,
            artifacts=("result.json",),
            resumable=True,
            answers=True,
            shown=True,
        ),
        Kind("maps", f"{_DONE_BY}:maps", f"{_SCHEMA}:MapsSpec", seconds=30, artifacts=("maps.json",), shown=True),
        Kind("card", f"{_DONE_BY}:card", f"{_SCHEMA}:CardSpec", seconds=90, artifacts=("card.json",), shown=True),
        Kind("measure", f"{_DONE_BY}:measure", f"{_SCHEMA}:CostSpec", seconds=60, artifacts=("measure.json",), shown=True),
    )
}
"""By name. Tests add kinds of their own."""
NAMES = tuple(KINDS)


def kind_of(name: str) -> Kind:
    """Raises LookupError, naming the known kinds."""
    if name not in KINDS:
        raise LookupError(f"no kind of job is called {name!r}; there are {', '.join(sorted(KINDS))}")
    return KINDS[name]


def place_of(name: str) -> int:
    """Sort key for lists: parents first, unknown kinds last."""
    return NAMES.index(name) if name in NAMES else len(NAMES)
