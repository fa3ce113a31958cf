"""Checks external data before the first job runs, so that a wrong path costs seconds, not hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.jobs import Job, Source
from harness.plan.training_data import looked_at
from models.config import ClipData, ExternalTraining, TrainingData
from models.methods.registry import STAGES


def check_inputs(
    jobs: Iterable[Job], training: Sequence[TrainingData | ClipData | None] = (), cache: Path | None = None, graph: Iterable[Job] = ()
) -> list[str]:
    """Look at the external data that these jobs would read; returns a line for each set with rejected samples, of which
    only a part is here, or with fields that nothing reads.

    training: the profile's training data, of pictures and of clips; looked at where they are external. cache: see `looked_at`.
    graph: with the trainings that the data are for.
    Raises models.training.data.DataError naming file, entry, field and remedy, or models.evaluation.external.BadBenchmark.
    """
    notes = []
    trained = [(upstream.key, job.payload["stage"]["kind"]) for job in graph if job.kind == "train" and isinstance(upstream := job.inputs.get("data"), Job)]
    for job in jobs:
        if job.payload.get("source") != "external":
            continue
        if job.kind == "data":
            stages = list(dict.fromkeys(stage for key, stage in trained if key == job.key))
            looked = [spec for spec in training if isinstance(spec, ExternalTraining) and _is_of(job, spec)]
            notes += [note for spec in looked for note in _training_set(job, spec, cache, stages)]
        elif job.kind == "mirror":
            notes += check_benchmark(job)
    return list(dict.fromkeys(notes))


def _is_of(job: Job, spec: ExternalTraining) -> bool:
    files = job.inputs["files"]
    return isinstance(files, Source) and files.location == str(Path(spec.meta).expanduser().absolute())


def _training_set(job: Job, spec: ExternalTraining, cache: Path | None, stages: Iterable[str]) -> list[str]:
    """By names and boxes of all rows, and a few pictures; the data job decodes the rest. stages: kinds of those that train on it."""
    from models.training.data import DataError, counted, unread
    from models.training.external import check_pictures, worst_sources

    found = looked_at(spec, cache)
    if said := found.get("error") or found["lacking"]:
        raise DataError(said)
    for stage in stages:
        _check_media(spec.meta, stage, found.get("clip"))
    check_pictures(found["some"], found.get("films"), spec.meta, spec.min_usable)
    summary = found["summary"]
    rejected = sum(summary["rejected"].values())
    unused = [said] if (said := unread(Path(spec.meta).expanduser().absolute())) else []
    if not rejected:
        return unused
    share = f"{rejected} of {rejected + summary['samples']} samples rejected ({counted(summary['rejected'])})"
    notes = [*unused, f"{spec.meta}: {share}; the rest is used, and each rejected one is named in rejected.jsonl of {job.name}"]
    named, more = worst_sources(summary["sources"], spec.min_usable)
    for name in named:
        counts = summary["sources"][name]
        notes.append(f"{spec.meta}: of source {name} only {counts.get('usable', 0)} of {counts['rows']} rows are usable")
    return [*notes, *([f"{spec.meta}: {more}"] if more else [])]


def _check_media(meta: str, stage: str, clip: str | None) -> None:
    """Raise DataError for clips in the training set of a stage that reads pictures, and for none in that of one that reads clips. clip:
    the first one, "" for none; None where a look of an earlier version did not say."""
    from models.training.data import DataError

    if clip and not STAGES[stage].clips:
        raise DataError(f"{meta}: {clip} is a clip, and {stage} trains on pictures; take such records out, and name a file of them as `clips:` in the profile")
    if clip == "" and STAGES[stage].clips:
        raise DataError(f"{meta}: no usable record is about a clip, and {stage} trains on clips; name a file of such records as `clips:` in the profile")


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
