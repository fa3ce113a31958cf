"""Checks external data before the first job runs, so that a wrong path costs seconds, not hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.jobs import Job, Source
from harness.plan.training_data import looked_at
from models.config import ClipData, ExternalTraining, TrainingData


def check_inputs(jobs: Iterable[Job], training: Sequence[TrainingData | ClipData | None] = (), cache: Path | None = None) -> list[str]:
    """Look at the external data that these jobs would read; returns a line for each set with rejected samples, or of which
    only a part is here.

    training: the profile's training data, of pictures and of clips; looked at where they are external. cache: see `looked_at`.
    Raises models.training.data.DataError naming file, entry, field and remedy, or models.evaluation.external.BadBenchmark.
    """
    notes = []
    for job in jobs:
        if job.payload.get("source") != "external":
            continue
        if job.kind == "data":
            notes += [note for spec in training if isinstance(spec, ExternalTraining) and _is_of(job, spec) for note in _training_set(job, spec, cache)]
        elif job.kind == "mirror":
            notes += check_benchmark(job)
    return notes


def _is_of(job: Job, spec: ExternalTraining) -> bool:
    files = job.inputs["files"]
    return isinstance(files, Source) and files.location == str(Path(spec.meta).expanduser().absolute())


def _training_set(job: Job, spec: ExternalTraining, cache: Path | None) -> list[str]:
    """By names and boxes of all rows, and a few pictures; the data job decodes the rest."""
    from models.training.data import DataError, counted
    from models.training.external import check_pictures, worst_sources

    found = looked_at(spec, cache)
    if said := found.get("error") or found["lacking"]:
        raise DataError(said)
    check_pictures(found["some"], found.get("films"), spec.meta, spec.min_usable)
    summary = found["summary"]
    rejected = sum(summary["rejected"].values())
    if not rejected:
        return []
    share = f"{rejected} of {rejected + summary['samples']} samples rejected ({counted(summary['rejected'])})"
    notes = [f"{spec.meta}: {share}; the rest is used, and each rejected one is named in rejected.jsonl of {job.name}"]
    named, more = worst_sources(summary["sources"], spec.min_usable)
    for name in named:
        counts = summary["sources"][name]
        notes.append(f"{spec.meta}: of source {name} only {counts.get('usable', 0)} of {counts['rows']} rows are usable")
    return [*notes, *([f"{spec.meta}: {more}"] if more else [])]


def check_benchmark(job: Job) -> list[str]:
    """Look through a mirror's data where they lie: splits, columns, one picture, the number of questions.

    Returns a line where they are only a part of the benchmark. Raises models.evaluation.external.BadBenchmark.
    """
    import tempfile

    from models.evaluation.external import BadBenchmark, look_through, place

    name, tasks, files, clips = job.payload["benchmark"], job.payload.get("tasks", ()), job.inputs["files"], job.inputs.get("clips")
    assert isinstance(files, Source)
    with tempfile.TemporaryDirectory() as folder:
        place(Path(folder), name, files.location, tasks, clips.location if isinstance(clips, Source) else None)
        counts = look_through(Path(folder), name, tasks)
    expected = {} if tasks else whole(name)
    for task, n in counts.items():
        if (wanted := expected.get(task)) and n > wanted:
            raise BadBenchmark(
                f"{name}: {n} questions of {task}, and the benchmark has {wanted}; another split or another data set lies there: "
                f"correct benchmarks.{name}.path"
            )
    if (found := sum(counts.values())) < (all_of_it := sum(expected.values())):
        return [f"{name}: part of the benchmark, {found} of {all_of_it} questions; its cells get no verdict against the paper"]
    return []


def whole(benchmark: str) -> dict[str, int]:
    """Questions of the real benchmark, by paper task; a benchmark that has no file of its own says nothing."""
    from harness.spec.errors import SpecError
    from harness.spec.files import EXPERIMENTS, load_benchmark
    from models.evaluation.tasks import tasks_for

    try:
        scores = load_benchmark(benchmark, EXPERIMENTS).value.scores
    except SpecError:
        return {}
    tasks = tasks_for(benchmark)
    if len(tasks) == 1:
        return {tasks[0]: scores["overall"].n}
    by_task = {score.where["task"]: score.n for score in scores.values() if "task" in score.where}
    return {task: n for task in tasks for ending, n in by_task.items() if task.endswith(ending)}
