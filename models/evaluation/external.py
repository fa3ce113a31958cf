"""A stock benchmark as a folder of links: to a local copy, to the hub's cache, or to what `load_dataset` has prepared.

Evaluation itself never touches a network: what it reads is what this job found on disk, looked through before any training.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from models import hub
from models.evaluation.boxes import SIDECAR, SPANS, read_sidecar, read_spans, shared_sidecars
from models.evaluation.tasks import TASKS, dataset_of, tasks_for
from models.evaluation.tasks.index import columns_read

if TYPE_CHECKING:
    from models.evaluation.stock import Looked

ANSWER_SECONDS = 10.0
"""How long the hub may take to say that it has a data set."""


class BadBenchmark(ValueError):
    """A benchmark's data are not there, or are not what its tasks read. One line: what, where, the remedy."""


def link_mirror(out: Path, benchmark: str, location: str, tasks: Sequence[str] = (), clips: str | None = None) -> dict[str, Any]:
    """Fill `out` with links to the data set's files after looking through them; returns what summary.json holds.

    location: a folder, or "datasets:REPOSITORY@COMMIT" in the caches of this machine. tasks: lmms-eval's, where the benchmark
    is none of the project's own. clips: the folder of its clips, where they do not lie among the files. Raises BadBenchmark.
    """
    place(out, benchmark, location, tasks, clips)
    looked: dict[str, Looked] = {}
    counts = look_through(out, benchmark, tasks, every=True, looked=looked)

    def theirs(text: str, path: Path | str) -> str:
        """A text about a file of the mirror, as one about the file that its owner knows."""
        return text.replace(str(path), _owners(Path(path), out, clips or location))

    unreadable = [f"{task} {doc}: {why.reason} {theirs(str(why), why.path)}" for task, one in looked.items() for doc, why in one.lost.items()]
    uneven = [
        f"{task} {doc}: {theirs(clip, clip)}: frames lie up to {seconds:.2f} s from where its mean rate puts them"
        for task, one in looked.items() for doc, (clip, seconds) in one.uneven.items()
    ]  # fmt: skip
    rotated = [f"{task} {doc}: {theirs(clip, clip)}" for task, one in looked.items() for doc, clip in one.rotated.items()]
    cut_off = [f"{task} {doc}: {why}" for task, one in looked.items() for doc, why in one.cut_off.items()]
    if cut_off:
        first = "; ".join(cut_off[:3])
        print(f"{benchmark}: {len(cut_off)} of {sum(counts.values())} questions with a picture file that is cut off or damaged, read with its missing part blank, as by lmms-eval: {first}")
    if unreadable and len(unreadable) == sum(counts.values()):
        raise BadBenchmark(f"{benchmark}: no clip can be read, as in {unreadable[0]}; write the folder that holds them as benchmarks.{benchmark}.clips")
    summary: dict[str, Any] = {"from": location.removeprefix(hub.DATA_SET) if location.startswith(hub.DATA_SET) else "a folder", "questions": counts}
    for name, lines in (("unreadable", unreadable), ("uneven", uneven), ("rotated", rotated), ("cut_off", cut_off)):
        if lines:
            summary[name] = {"n": len(lines), "questions": lines}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _owners(path: Path, mirror: Path, folder: str) -> str:
    """Where a link of the mirror leads; of what is not there, its place in the folder that was to hold it."""
    below = path.absolute().relative_to(mirror.absolute())
    for link in (mirror / part for part in reversed([below, *below.parents])):
        if link.is_symlink():
            return str(link.readlink() / below.relative_to(link.relative_to(mirror)))
    return str(Path(folder) / below)


def place(out: Path, benchmark: str, location: str, tasks: Sequence[str] = (), clips: str | None = None) -> None:
    """Links to every file of the data set, in the folders that they lie in, and to its clips. Raises BadBenchmark when it is not
    here."""
    _place_files(out, benchmark, location, tasks)
    if clips is not None:
        if not Path(clips).is_dir():
            raise BadBenchmark(f"{clips}: no such folder of clips; write the one that holds them as benchmarks.{benchmark}.clips")
        _place_clips(out, Path(clips))


def _place_clips(out: Path, clips: Path) -> None:
    """A link to each of a folder's own files and folders; into a folder that is there already, to what that holds. Hidden ones are
    left out."""
    for entry in sorted(clips.iterdir()):
        link = out / entry.name
        if entry.is_dir() and link.is_dir() and not link.is_symlink():
            _place_clips(link, entry)
        elif not entry.name.startswith(".") and not os.path.lexists(link):
            link.symlink_to(entry.resolve())


def _place_files(out: Path, benchmark: str, location: str, tasks: Sequence[str]) -> None:
    if location.startswith(hub.DATA_SET):
        folder, arrows = _cached(benchmark, location, tasks)
        if arrows:
            _place_prepared(out, arrows)
            return
    else:
        folder = Path(location)
        if not folder.is_dir():
            raise BadBenchmark(
                f"{location}: no such folder; put the benchmark there, or write its folder or hub name as "
                f"benchmarks.{benchmark}.path"
            )
    for file in hub.files_of(folder):
        link = out / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())


def _cached(benchmark: str, location: str, tasks: Sequence[str]) -> tuple[Path | None, dict[str, Path]]:
    """(snapshot in the hub's cache, or configurations that `load_dataset` prepared where the snapshot lacks the files)."""
    repository, _, revision = location.removeprefix(hub.DATA_SET).rpartition("@")
    snapshot, commit = hub.cached_snapshot(repository, revision, "datasets")
    if snapshot is not None and all(_held(snapshot, *dataset_of(task)) for task in tasks or tasks_for(benchmark)):
        return snapshot, {}
    arrows, _ = hub.prepared(repository, commit)
    if arrows or snapshot is not None:
        return snapshot, arrows
    raise BadBenchmark(
        f"{benchmark}: {repository} at revision {revision} is neither in the hub's cache ({hub.hub_cache()}) nor among the "
        f"prepared data sets ({hub.datasets_cache()}); on a machine with internet `hf download --repo-type dataset "
        f"{repository}` fetches it, or write a folder that holds it as benchmarks.{benchmark}.path"
    )


def _held(folder: Path, config: str | None, split: str) -> bool:
    from models.evaluation.questions import split_files

    try:
        return bool(split_files(folder, config, split))
    except FileNotFoundError:
        return False


def _place_prepared(out: Path, arrows: dict[str, Path]) -> None:
    """Arrow files by configuration, with the card that tells `datasets` which file is which split."""
    configs = []
    for name, folder in sorted(arrows.items()):
        (out / name).mkdir()
        splits: dict[str, list[str]] = {}
        for file in sorted(folder.glob("*.arrow")):
            (out / name / file.name).symlink_to(file.resolve())
            split = re.sub(r"-\d{5}-of-\d{5}$", "", file.stem).rpartition("-")[2]
            splits.setdefault(split, []).append(f"{name}/{file.name}")
        files = [{"split": split, "path": paths} for split, paths in splits.items()]
        configs.append({"config_name": name, "data_files": files})
    (out / "README.md").write_text("---\n" + yaml.safe_dump({"configs": configs}) + "---\n")


def fetch(benchmark: str, repository: str, revision: str) -> None:
    """Bring a data set into the hub's cache, from which it is known by its commit. Raises BadBenchmark."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        HfApi().dataset_info(repository, revision=revision, timeout=ANSWER_SECONDS)  # the download itself waits for ever
        snapshot_download(repository, repo_type="dataset", revision=revision)
    except Exception as error:  # noqa: BLE001 - whatever the client's own libraries raise, it could not be fetched
        raise BadBenchmark(
            f"{benchmark}: {repository!r} is no folder here, is not in the hub's cache ({hub.hub_cache()}) and could not be "
            f"fetched at revision {revision!r} ({type(error).__name__}); on a machine with internet `hf download --repo-type "
            f"dataset {repository}` fetches it, or write a folder that holds it as benchmarks.{benchmark}.path"
        ) from None


def look_through(
    mirror: Path, benchmark: str, tasks: Sequence[str] = (), *, every: bool = False, looked: dict[str, Looked] | None = None
) -> dict[str, int]:
    """Questions by paper task, after every task's split and columns were found and its first question read, picture and all.

    tasks: of lmms-eval's, instead of the project's own; their code is needed to read a question, so that only `every` does.
    every: read all questions, which takes a second each where pictures are large. looked: takes what that shows of each task.

    Raises BadBenchmark, one line that names task, configuration, split and remedy.
    """
    from models.evaluation.questions import NoSplit, every_question, first_question, number_of_questions

    counts = {}
    configs = {dataset_of(task)[0] for task in tasks or tasks_for(benchmark)}
    for file in shared_sidecars(mirror, configs):
        raise BadBenchmark(
            f"{benchmark}: {file.resolve()}: its doc_id would count the questions of each of {len(configs)} configurations; write a {file.name} for "
            f"each that is annotated, in a folder of its name ({min(map(str, configs))}/{file.name}, …)"
        )
    for task in tasks or tasks_for(benchmark):
        config, split = dataset_of(task)
        where = f"{benchmark}: split {split}" + (f" of configuration {config}" if config else "")
        try:
            counts[task] = number_of_questions(mirror, task, columns_read(task) if tasks else COLUMNS.get(benchmark, ()))
            if tasks and every:
                from models.evaluation.stock import read_every_question

                found = read_every_question(mirror, task)
                counts[task] = found.n
                if looked is not None:
                    looked[task] = found
            elif every:
                every_question(mirror, benchmark, task)
            elif not tasks:
                first_question(mirror, benchmark, task)
            if every:
                _check_sidecars(mirror, config, counts[task])
        except NoSplit as error:
            why = f" ({error.why})" if error.why else ""
            raise BadBenchmark(f"{where} is not there{why}; {_remedy(benchmark)}{_fewer(mirror, tasks)}") from None
        except FileNotFoundError:
            raise BadBenchmark(f"{where} is not there; {_remedy(benchmark)}") from None
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise BadBenchmark(f"{where}: {' '.join(str(error).split())}; {_remedy(benchmark)}") from None
        if not counts[task]:
            raise BadBenchmark(f"{where} holds no question; {_remedy(benchmark)}")
    return counts


def _fewer(mirror: Path, tasks: Sequence[str]) -> str:
    """What helps where a data set holds some of a benchmark's tasks."""
    there = sum(_held(mirror, *dataset_of(task)) for task in tasks)
    return f"; {there} of {len(tasks)} tasks are there: a benchmark's file of your own can name those alone" if 0 < there < len(tasks) else ""


def _check_sidecars(mirror: Path, config: str | None, questions: int) -> None:
    """Raises ValueError for annotated boxes or spans that cannot be read, or are of a question that is not there."""
    for name, read in ((SIDECAR, read_sidecar), (SPANS, read_spans)):
        for doc_id in read(mirror, config) or ():
            if not 0 <= doc_id < questions:
                raise ValueError(f"{name}: doc_id {doc_id}, and there are {questions} questions, numbered from 0")


def _remedy(benchmark: str) -> str:
    return f"fetch the data set again, or write another folder or name as benchmarks.{benchmark}.path"


COLUMNS: dict[str, tuple[str, ...]] = {
    "mmvp": ("image", "Index", "Question", "Options", "Correct Answer"),
    "blink": ("idx", "image_1", "question", "prompt", "choices", "answer", "sub_task"),
    "vstar": ("image", "text", "label", "question_id"),
    "hrbench4k": ("index", "image", "question", "A", "B", "C", "D", "answer", "category", "cycle_category"),
    "hrbench8k": ("index", "image", "question", "A", "B", "C", "D", "answer", "category", "cycle_category"),
    "mmerealworld_lite": ("index", "bytes", "question", "multi-choice options", "answer", "category", "l2-category"),
}
"""Benchmark -> columns that its tasks read, ours and lmms-eval's."""
assert COLUMNS.keys() == TASKS.keys()
