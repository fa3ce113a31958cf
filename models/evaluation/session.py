"""Evaluations of one checkpoint in one process: the model, its caches and lmms-eval are loaded once.

Each evaluation leaves `samples.jsonl` (one row a question) and `result.json` in the run's folder. Finished answers are
kept as resumable checkpoints, so an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Data are local folders: neither datasets nor the hub client may ask the network. Read when they are imported, below.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import lmms_eval.evaluator
import torch
import transformers
from lmms_eval.tasks import TaskManager

from models.backbone.checkpoint import reading_files
from models.config import EvaluateSpec
from models.evaluation import scores, stock, zoom
from models.evaluation.boxes import read_boxes, read_places
from models.evaluation.engine import Answer, Engine
from models.evaluation.lmms_model import LmmsModel
from models.evaluation.mirror import Task, load_task
from models.evaluation.rows import rows_of
from models.evaluation.shards import Elsewhere, Key, Shard, answers_in, lines_of
from models.evaluation.stock import Scored
from models.evaluation.tasks import YAML_FOLDER, digest, digests_of, of_the_project, tasks_for
from models.evaluation.tasks.version import EXTRACTOR
from models.run import Interrupted, Run

_CHECKPOINT_SECONDS = 300.0
_PREPARING_SECONDS = 5.0


class Evaluations(ABC):
    """Base class of answering systems, ready for any number of `evaluate` calls."""

    def __init__(self) -> None:
        self._manager = TaskManager(include_defaults=False, include_path=str(YAML_FOLDER))
        self._tasks: dict[tuple[str, Path], Task] = {}
        self._prepared: dict[tuple[str, Path, Any], dict[Key, Any]] = {}

    @abstractmethod
    def check(self, spec: EvaluateSpec) -> None:
        """Raises ValueError when the spec is for another session."""

    @abstractmethod
    def answering(
        self, run: Run, spec: EvaluateSpec, mirror: Path, tasks: Mapping[str, Task], batch_size: int, **options: Any
    ) -> Any:
        """lmms-eval's view of who answers: a model with `answers`, `prepared`, `shard`, `after_chunk` and `after_batch`."""

    def load(self, name: str, mirror: Path) -> Task:
        """lmms-eval's task over a mirror."""
        return load_task(name, mirror)

    def about(self, spec: EvaluateSpec) -> dict[str, Any]:
        """Fields of result.json besides the numbers."""
        return {}

    def evaluate(self, run: Run, spec: EvaluateSpec, *, mirror: Path, batch_size: int, **options: Any) -> dict[str, Any]:
        """Answer and score one benchmark; returns what result.json holds. options: of `answering`.

        When several processes share the run, each answers its part; rank 0 writes, and the others return nothing ({}).

        Raises ValueError if the spec does not fit this session or the installed tasks, scores.Mismatch if lmms-eval's
        aggregates and the samples disagree, Interrupted (after writing a checkpoint) when the run is asked to stop.
        """
        mirror = Path(mirror).resolve()
        self.check(spec)
        check_tasks(spec)
        own_tasks = of_the_project(spec.benchmark, spec.protocol, spec.tasks)
        names = tasks_for(spec.benchmark, spec.protocol) if own_tasks else list(spec.tasks)
        tasks = {name: self._task(name, mirror) for name in names}
        model = self.answering(run, spec, mirror, tasks, batch_size, **options)
        progress = _Progress(run, model, total=sum(len(task.eval_docs) for task in tasks.values()))
        model.answers |= progress.resumed()
        model.after_chunk, model.after_batch = progress.after_chunk, progress.after_batch
        if run.rank:
            for name in names:
                with suppress(Elsewhere):
                    self._simple_evaluate(model, spec, name, mirror)
            return {}
        rows: list[scores.Row] = []
        by_task: dict[str, Scored] = {}
        run.out.mkdir(parents=True, exist_ok=True)
        with (run.out / "samples.jsonl").open("w") as samples:
            for name, task in tasks.items():
                found, logged = self._simple_evaluate(model, spec, name, mirror)
                pictures = {doc: question.images for (_, doc), question in model.prepared.items()}
                if own_tasks:
                    own = rows_of(name, spec.benchmark, task.eval_docs_no_media, logged, model.answers, pictures)
                    named = [metric.name for metric in scores.metrics_of(name)]
                    by_task[name] = Scored(own, {m: float(found[f"{m},none"]) for m in named if f"{m},none" in found})
                    scores.compare(scores.task_scores(name, own), by_task[name].aggregates)
                else:
                    by_task[name] = stock.score(name, task, found, logged, model.answers, pictures)
                samples.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in by_task[name].rows)
                samples.flush()
                rows += by_task[name].rows
        result = {
            "benchmark": spec.benchmark,
            "protocol": spec.protocol,
            "n": len(rows),
            "aggregates": scores.flatten({name: one.aggregates for name, one in by_task.items()}, rows),
            "started": _share(row["latent_started"] for row in rows),
            "truncated": _share(row["truncated"] for row in rows),
            "unparsed": _share(row["prediction"] is None for row in rows),
            "versions": _versions(),
            **({} if own_tasks else stock.stated(by_task)),
            **_rejections(rows),
            **zoom.counted(rows),
            **self.about(spec),
        }
        (run.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        return result

    def _task(self, name: str, mirror: Path) -> Task:
        if (name, mirror) not in self._tasks:
            self._tasks[name, mirror] = self.load(name, mirror)
        return self._tasks[name, mirror]

    def _simple_evaluate(
        self, model: Any, spec: EvaluateSpec, name: str, mirror: Path
    ) -> tuple[dict[str, Any], list[Any]]:
        """lmms-eval's own run of one task: ("metric,filter" -> aggregate, its logged samples)."""
        model.prepared = self._prepared.setdefault((name, mirror, (spec.images, spec.fetched, spec.clips)), {})
        with tempfile.TemporaryDirectory() as submissions:  # files that some tasks write for a server of their own
            results = lmms_eval.evaluator.simple_evaluate(
                model,
                tasks=[self._task(name, mirror)],
                task_manager=self._manager,
                bootstrap_iters=0,
                process_docs_parallel=1,
                cli_args=SimpleNamespace(process_with_media=False, output_path=submissions),
            )
        return results["results"][name], results["samples"][name]


class Session(Evaluations):
    """One checkpoint of ours, or a base model.

    checkpoint: a Qwen2.5-VL folder, with heads or without. device: "cpu" or "cuda". threads: torch's.
    precision: "bf16" or "fp32"; a spec of another precision is refused. attention: transformers' name of it.
    memory_bytes: what this process may take; None: the engine's own limits of what it keeps.
    shared: kept by the caller from one checkpoint to the next: features of pictures, questions and tasks, which are the
    same for checkpoints that see and read alike.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        device: str = "cpu",
        threads: int = 1,
        precision: str = "bf16",
        attention: str = "sdpa",
        memory_bytes: float | None = None,
        shared: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        shared = {} if shared is None else shared
        self.engine = Engine(
            checkpoint, device=device, threads=threads, precision=precision, attention=attention,
            memory_bytes=memory_bytes, features=shared.setdefault("features", {}),
        )  # fmt: skip
        reading = hashlib.sha256()
        for file in reading_files(checkpoint):
            reading.update(f"{file.name}\0".encode() + file.read_bytes())
        self._tasks = shared.setdefault("tasks", self._tasks)
        self._prepared = shared.setdefault("questions", {}).setdefault(reading.hexdigest(), self._prepared)
        self._asked: tuple[Any, ...] = ()

    def check(self, spec: EvaluateSpec) -> None:
        if spec.precision != self.engine.precision:
            raise ValueError(
                f"precision: the spec says {spec.precision}, this session was loaded in {self.engine.precision}"
            )

    def about(self, spec: EvaluateSpec) -> dict[str, Any]:
        decode = self.engine.stated(spec.decode)
        ran = {"repetition_penalty": decode.repetition_penalty, "end_tokens": sorted(self.engine.eos[decode.ends])}
        return {"ran_as": {**spec.images.model_dump(), "fetched": spec.fetched, **ran}}

    def answering(
        self,
        run: Run,
        spec: EvaluateSpec,
        mirror: Path,
        tasks: Mapping[str, Task],
        batch_size: int,
        cache_share: float | None = None,
    ) -> LmmsModel:
        """cache_share: see LmmsModel."""
        if self._asked != (asked := (list(tasks), mirror, spec.images, spec.fetched, spec.clips)):
            self.engine.forget_answers(same_pictures=self._asked[1:] == asked[1:])
            self._asked = asked
        boxes = None
        if spec.decode.latents == "oracle":
            found = (read_boxes(mirror, name, task.DATASET_NAME) for name, task in tasks.items())
            boxes = {key: box for own in found for key, box in own.items()}
        places = {}
        if spec.decode.zoom == "oracle":
            for name, task in tasks.items():
                own = read_places(mirror, task.DATASET_NAME, clips=spec.clips is not None, among={one.DATASET_NAME for one in tasks.values()})
                places |= {(name, doc_id): place for doc_id, place in own.items()}
        return LmmsModel(
            self.engine,
            batch_size=batch_size,
            cache_share=cache_share,
            seed=spec.seed,
            decode=spec.decode,
            images=spec.images,
            boxes=boxes,
            places=places,
            fetched=spec.fetched,
            clips=spec.clips,
            shard=Shard(run.rank, run.ranks, run.checkpoints / "shards"),
        )


def check_tasks(spec: EvaluateSpec) -> None:
    """Raises ValueError when the installed tasks are others than those planned with."""
    own = of_the_project(spec.benchmark, spec.protocol, spec.tasks)
    installed = digest(spec.benchmark, spec.protocol) if own else digests_of(spec.tasks)
    if spec.tasks != installed:
        differing = sorted(
            task for task in spec.tasks.keys() | installed.keys() if spec.tasks.get(task) != installed.get(task)
        )
        raise ValueError(
            f"tasks: {', '.join(differing)} changed since this evaluation was planned (task files, extractor or "
            "lmms-eval's version); plan it again"
        )


class _Progress:
    """Reports, stops and keeps answers while a model prepares questions and answers them.

    model: `Evaluations.answering`'s; with `checkpoint_seconds` it says how often its answers are kept.
    """

    def __init__(self, run: Run, model: Any, total: int) -> None:
        self.run, self.model, self.total = run, model, total
        self.last = self.reported = self.saved = time.monotonic()
        self.decoding_seconds = 0.0
        self.before = 0
        self.checkpoint_seconds = getattr(model, "checkpoint_seconds", _CHECKPOINT_SECONDS)

    def resumed(self) -> dict[Key, Answer]:
        """Answers of an earlier attempt."""
        if self.run.resume_from is None:
            return {}
        kept = answers_in((self.run.resume_from / "answers.jsonl").read_text())
        self.before = len(kept)
        return kept

    def after_chunk(self) -> None:
        """Preparing high-resolution pictures takes minutes: show a sign of life, and stop if asked to."""
        now = time.monotonic()
        if now - self.reported > _PREPARING_SECONDS:
            self.run.log(len(self.model.answers), self.total, questions_prepared=len(self.model.prepared))
            self.reported = now
        self.last = now
        self._stop_or_save(now)

    def after_batch(self) -> None:
        """One metrics line; the rate leaves preparing out."""
        now, done = time.monotonic(), len(self.model.answers)
        self.decoding_seconds += now - self.last
        self.last = self.reported = now
        rate = (done - self.before) / max(self.decoding_seconds, 1e-9)
        self.run.log(done, self.total, questions_per_second=rate)
        self._stop_or_save(now)

    def _stop_or_save(self, now: float) -> None:
        """A checkpoint every few minutes, and before stopping."""
        done = len(self.model.answers)
        shard = self.model.shard
        stop = (self.run.should_stop() or shard.stopped()) and done < self.total
        if not shard.rank and done > self.before and (stop or now - self.saved > self.checkpoint_seconds):
            self._save(done)
            self.saved = now
        if stop:
            shard.stop()
            raise Interrupted(f"{done} of {self.total} questions answered")

    def _save(self, done: int) -> None:
        folder = self.run.checkpoints / f"checkpoint-{done}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "answers.jsonl").open("w") as lines:
            lines.write(lines_of(self.model.answers))
            lines.flush()
            os.fsync(lines.fileno())
        (folder / "COMPLETE").touch()


def _share(flags: Any) -> float | None:
    """None where some are not known."""
    flags = list(flags)
    return None if None in flags else sum(flags) / len(flags)


def _rejections(rows: Sequence[scores.Row]) -> dict[str, Any]:
    """How many questions were never asked, and why, by kind of reason; {} where all were."""
    reasons = [f"{row['task']} {row['doc_id']}: {row['rejected']}" for row in rows if "rejected" in row]
    return {"rejected": {"n": len(reasons), "questions": reasons}} if reasons else {}


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "lmms-eval": version("lmms-eval"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "datasets": datasets.__version__,
        "extractor": EXTRACTOR,
    }
