"""Time of a row's answers against that of a row that zooms, in turns in one process: ratios, not seconds.

Every turn answers the same questions as an evaluation does, with nothing kept from the turn before. Zooming that never zooms is one pass
too few, so where the model names no usable span, zooming is timed again with `middle` in the place of its answer. On a CPU processor time
is taken, which other programs change less.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance

from models.backbone.clips import Span
from models.config import EvaluateSpec, TimesSpec
from models.efficiency import device_name
from models.evaluation.cache import BoundedCache
from models.evaluation.engine import Answer, Engine
from models.evaluation.lmms_model import LmmsModel, key_of
from models.evaluation.mirror import Task, load_task
from models.evaluation.session import check_tasks
from models.run import Interrupted, Run


def middle(seconds: float) -> Span:
    """The middle half of a clip."""
    return seconds / 4, 3 * seconds / 4


class Counting(Engine):
    """Counts tokens: `read` in prompts, `encoded` by the vision tower from clips, `said` one by one (latent steps included)."""

    counts: Counter[str]

    def begin(self) -> None:
        """Forgets all that it has counted and kept."""
        self.forget_answers()
        self.features = BoundedCache(self.features.capacity_bytes)
        self.counts = Counter()

    def _prompts(self, *arguments: Any) -> Any:
        prompts = super()._prompts(*arguments)
        self.counts["read"] += sum(len(prompt.input_ids) for prompt in prompts)
        return prompts

    def _encoded_clip(self, *arguments: Any) -> Any:
        made = super()._encoded_clip(*arguments)
        self.counts["encoded"] += len(made)
        return made

    def answer_of(self, decoded: Any, spec: Any) -> Answer:
        self.counts["said"] += len(decoded.token_ids)
        return super().answer_of(decoded, spec)


@dataclass(frozen=True)
class Asked:
    """Requests, the tasks that they belong to by name, and how many are answered together."""

    tasks: Mapping[str, Task]
    requests: Sequence[Instance]
    together: int = 8

    @classmethod
    def of(cls, mirror: Path, names: Sequence[str], most: int, together: int) -> Asked:
        """At most so many of the tasks' questions, evenly spread."""
        tasks = {name: load_task(name, mirror.resolve()) for name in names}
        for task in tasks.values():
            task.build_all_requests()
        found = [one for task in tasks.values() for one in task.instances]
        n = min(most, len(found))
        return cls(tasks, [found[at * len(found) // n] for at in range(n)], together)


@dataclass(frozen=True)
class Way:
    """How questions are answered. given: whether clips in which the model names no usable span are cut to `middle`."""

    engine: Counting
    spec: EvaluateSpec
    given: bool = False

    def answered(self, asked: Asked) -> tuple[float, Counter[str], list[Answer]]:
        """(seconds, tokens, answers). Among the tokens stands `whole`: how many questions were answered without zooming."""
        self.engine.begin()
        spec = self.spec
        model = LmmsModel(
            self.engine, batch_size=asked.together, seed=spec.seed, decode=spec.decode, images=spec.images, fetched=spec.fetched,
            clips=spec.clips, instead=middle if self.given else None,
        )  # fmt: skip
        model.task_dict.update({name: task.dataset for name, task in asked.tasks.items()})
        clock = time.process_time if self.engine.device == "cpu" else time.perf_counter
        begun = clock()
        model.generate_until(list(asked.requests))
        taken = clock() - begun
        answers = [model.answers[key_of(one)] for one in asked.requests]
        whole = sum("whole" in (one.zoom or {}) for one in answers)
        return taken, self.engine.counts + Counter(whole=whole), answers


@dataclass(frozen=True)
class Timed:
    """seconds: per question, one entry a round. The rest: tokens of all questions in a round, and how many were answered `whole`."""

    seconds: tuple[float, ...]
    read: int
    encoded: int
    said: int
    whole: int


def in_turns(ways: Mapping[str, Way], asked: Asked, rounds: int, run: Run | None = None) -> dict[str, Timed]:
    """Every way once in each round. Raises Interrupted when the run is asked to stop."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, Counter[str]] = {}
    for number in range(rounds):
        for name, way in ways.items():
            if run is not None and run.should_stop():
                raise Interrupted(f"{number} of {rounds} rounds timed")
            taken, counts[name], _ = way.answered(asked)
            seconds[name].append(taken / len(asked.requests))
        if run is not None:
            run.log(number + 1, rounds)
    return {
        name: Timed(tuple(own), *(counts[name][what] for what in ("read", "encoded", "said", "whole"))) for name, own in seconds.items()
    }


def compare(run: Run, spec: TimesSpec, *, checkpoint: Path, zooming: Path, mirror: Path, attention: str = "sdpa") -> dict[str, Any]:
    """Write measure.json to run.out; returns what it holds: `ways` has "row", "zooming" and, where a question was answered without
    zooming, "given". Questions whose clip cannot be read are left out; ValueError if no other is left."""
    for one in (spec.row, spec.zooming):
        check_tasks(one)
    engines: dict[tuple[Path, str], Counting] = {}

    def engine(folder: Path, precision: str) -> Counting:
        if (folder, precision) not in engines:
            made = Counting(folder, device=run.device, threads=run.threads, precision=precision, attention=attention)
            engines[folder, precision] = made
        return engines[folder, precision]

    ways = {"row": Way(engine(checkpoint, spec.row.precision), spec.row)}
    ways["zooming"] = Way(engine(zooming, spec.zooming.precision), spec.zooming)
    ways["given"] = Way(ways["zooming"].engine, spec.zooming, given=True)
    asked = Asked.of(mirror, list(spec.row.tasks), spec.questions, spec.together)
    first = [ways[name].answered(asked)[2] for name in ("row", "zooming")]  # also the warm-up
    kept = [at for at, pair in enumerate(zip(*first, strict=True)) if not any(one.rejected for one in pair)]
    if not kept:
        raise ValueError(f"none of {len(asked.requests)} questions can be asked: {next(one.rejected for one in first[0])}")
    if not any("whole" in (first[1][at].zoom or {}) for at in kept):
        del ways["given"]
    timed = in_turns(ways, Asked(asked.tasks, [asked.requests[at] for at in kept], asked.together), spec.rounds, run)
    found = {
        "benchmark": spec.row.benchmark, "questions": len(kept), "unreadable": len(asked.requests) - len(kept), "together": spec.together,
        "ways": {name: asdict(one) for name, one in timed.items()}, "device": device_name(run.device), "threads": run.threads,
        "attention": attention,
    }  # fmt: skip
    run.out.mkdir(parents=True, exist_ok=True)
    (run.out / "measure.json").write_text(json.dumps(found, indent=1) + "\n")
    return found
