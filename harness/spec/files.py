"""Finding and reading spec files. A recipe, profile or benchmark is named by its file's stem, or by a path.

Names are looked up beside the experiment first (`recipes/`, `profiles/`, `benchmarks/` in its folder), then among the
project's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from harness.characters import shown as inert
from harness.spec import sweep
from harness.spec.benchmark import Benchmark
from harness.spec.claims import LessTime, form_of
from harness.spec.comparisons import BASE, Against, Trend, comparison_form
from harness.spec.errors import SpecError, dotted, show, unknown, validate
from harness.spec.experiment import Experiment
from harness.spec.profile import Profile
from harness.spec.text import Document, layered, layers, mapping, read, shown
from models.config import ProxyMirror

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENTS = REPOSITORY / "experiments"

Model = TypeVar("Model")


def written_in(path: Path) -> str:
    """A spec's file as reports and registrations name it: from the project's folder, or folder and file of one that lies elsewhere,
    which names no machine."""
    whole = path.resolve()
    return str(whole.relative_to(REPOSITORY)) if whole.is_relative_to(REPOSITORY) else "/".join(whole.parts[-2:])


Shelf = Literal["recipes", "profiles", "benchmarks"]


@dataclass(frozen=True)
class Loaded(Generic[Model]):
    """A validated file, with its text's lines for later errors."""

    value: Model
    document: Document

    @property
    def name(self) -> str:
        return self.document.path.stem

    def error(self, message: str, *path: str | int) -> SpecError:
        """`file:line: path: message`."""
        return SpecError(f"{self.place(*path)}: {message}")

    def where(self, *path: str | int) -> str:
        return self.document.where(*path)

    def place(self, *path: str | int) -> str:
        """`file:line: path`: how an error about the path begins."""
        return self.document.place(path)


@dataclass(frozen=True)
class LoadedExperiment(Loaded[Experiment]):
    """An experiment; row paths skip the label under which a row's body is written. written: of each row the number of the one
    that it is written as (`sweep:` makes several of one)."""

    written: tuple[int, ...] = ()

    def where(self, *path: str | int) -> str:
        return self.document.where(*_as_written(self.document, self.written, path))

    def place(self, *path: str | int) -> str:
        return _row_place(self.document, self.written, [row.label for row in self.value.rows], path)


def find(name: str, shelf: Shelf, beside: Path | None = None, here: Path | None = None) -> Path:
    """The file of a recipe, profile or benchmark. Raises SpecError with the known names.

    beside: a folder of experiments. here: a folder whose files themselves come first.
    """
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        path = Path(name)
        folders = [] if path.is_absolute() else [f for f in (here, beside) if f]
        candidates = [*(f / path for f in folders), path]
        found = next((c for c in candidates if c.is_file()), None)
        if found is None:
            raise SpecError(f"no such file {name}")
        return found
    folders = ([here] if here else []) + [f / shelf for f in ([beside] if beside else []) + [EXPERIMENTS]]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})
    raise SpecError(unknown(f'no such {shelf[:-1]} "{name}"', name, known, shelf))


def load_recipe(name: str, beside: Path | None = None) -> Document:
    """A recipe's text over the one that it extends; its options are validated together with the rows that change them
    (`harness.spec.resolve`)."""
    return _over_others(read(find(name, "recipes", beside)), "recipes")


def load_profile(name: str, beside: Path | None = None) -> Loaded[Profile]:
    """A profile by name or path, over the one that it extends."""
    document = _over_others(read(find(name, "profiles", beside)), "profiles")
    value = validate(Profile, document.data, document.place)
    changed = {"beside_clips": _beside_clips(value, document), "clip_scale": _clip_scale(value, document)}
    return Loaded(value.model_copy(update=changed), document)


def _clip_scale(profile: Profile, document: Document) -> dict[str, float]:
    """`clip_scale`, without factors that a profile states anew under `scale` after one that it extends has stated them."""
    found = dict(profile.clip_scale)
    for _, data in layers(document):
        scale, clips = mapping(data, "scale"), mapping(data, "clip_scale")
        found = {name: factor for name, factor in found.items() if name not in scale} | {
            name: profile.clip_scale[name] for name in clips if name in profile.clip_scale
        }
    return found


def _beside_clips(profile: Profile, document: Document) -> dict[str, ProxyMirror]:
    """`beside_clips`, with the fields that a profile changes under `benchmarks` after one that it extends has stated the entry."""
    found = {}
    for name, spec in profile.beside_clips.items():
        changed: dict[str, None] | None = None  # None until the entry is stated
        for _, data in layers(document):
            asked, beside = (mapping(data, where).get(name) for where in ("benchmarks", "beside_clips"))
            if changed is not None and isinstance(asked, dict):
                changed |= dict.fromkeys(asked)
            if isinstance(beside, dict):
                changed = {field: None for field in changed or () if field not in beside}
        source = profile.benchmarks[name]
        fields = changed if changed and isinstance(source, ProxyMirror) else ()
        found[name] = spec.model_copy(update={field: getattr(source, field) for field in fields})
    return found


def _over_others(document: Document, shelf: Shelf, heirs: tuple[Document, ...] = ()) -> Document:
    """The document over the one named by its `extends:`, and so on. Raises SpecError for an unknown name or a circle."""
    if not isinstance(document.data, dict) or "extends" not in document.data:
        return document
    heirs, name, place = (*heirs, document), document.data["extends"], document.place(("extends",))
    if not isinstance(name, str) or not name:
        raise SpecError(f"{place}: must be the name of a {shelf[:-1]}, not {show(name)}")
    try:
        under = read(find(name, shelf, here=document.path.parent))
    except SpecError as error:
        raise SpecError(f"{place}: {error}") from None
    if any(under.path.resolve() == heir.path.resolve() for heir in heirs):
        chain = " → ".join(each.name for each in (*heirs, under))
        raise SpecError(f"{place}: is circular: {chain}; one of them must have no parent")
    if not isinstance(under.data, dict):
        raise SpecError(f"{under.where()}: a {shelf[:-1]} is a mapping of options")
    own = replace(document, data={key: value for key, value in document.data.items() if key != "extends"})
    return layered(own, _over_others(under, shelf, heirs))


def load_benchmark(name: str, beside: Path | None = None) -> Loaded[Benchmark]:
    """A benchmark by name or path."""
    document = read(find(name, "benchmarks", beside))
    loaded = Loaded(validate(Benchmark, document.data, document.place), document)
    if "overall" not in loaded.value.scores:
        raise loaded.error("needs a score named overall: what a column shows when it names none", "scores")
    _check_tasks(loaded)
    return loaded


def _check_tasks(loaded: Loaded[Benchmark]) -> None:
    """Tasks of lmms-eval that a benchmark names exist, can be answered, read one data set, and have its scores' metrics."""
    if not loaded.value.tasks:
        return
    from models.evaluation.tasks import index

    sets: dict[str, str] = {}
    for protocol, names in loaded.value.tasks.items():
        for i, task in enumerate(names):
            try:
                index.check(task)
                sets.setdefault(index.data_set(task)[0], task)
            except index.BadTask as error:
                raise loaded.error(str(error), "tasks", protocol, i) from None
            if len(sets) > 1:
                listed = " and ".join(f"{name} ({one})" for name, one in sets.items())
                raise loaded.error(f"read different data sets, {listed}; make them two benchmarks", "tasks", protocol, i)
        known = list(dict.fromkeys(metric for task in names for metric in index.metrics_named(task)))
        for name, score in loaded.value.scores.items():
            metric = score.metric.get(protocol)
            if metric is None and name == "overall":
                raise loaded.error(f"needs metric: one of the task's, {', '.join(known)}", "scores", name)
            if metric is not None and loaded.value.reads(name, protocol)[0] not in known:
                what = f'{" and ".join(names)} has no metric "{metric}"'
                raise loaded.error(unknown(what, metric, known, "metrics"), "scores", name, "metric")


def data_set_of(benchmark: Benchmark) -> str:
    """The hub's name of the data set that a benchmark's tasks read."""
    from models.evaluation.tasks import index

    return index.data_set(next(iter(benchmark.tasks.values()))[0])[0]


def load_experiment(path: Path) -> LoadedExperiment:
    """An experiment file, with all that can be checked from its own text checked. Raises SpecError."""
    if path.is_dir():
        raise SpecError(f"{shown(path)}: is a folder; name its files, as in {shown(path)}/*.yaml")
    if not path.exists():
        known = sorted(shown(p) for p in EXPERIMENTS.glob("*.yaml"))
        raise SpecError(unknown(f'no such experiment "{path}"', str(path), known, "experiments"))
    document = read(path)
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.where()}: an experiment is a mapping (table:, title:, columns:, rows:)")
    data = {**document.data}
    data["rows"], written = _rows(document, data.get("rows"))
    data["claims"] = _typed(document, data.get("claims"), "claims", form_of)
    data["comparisons"] = _typed(document, data.get("comparisons"), "comparisons", comparison_form)

    def place(at: tuple[str | int, ...], message: str) -> str:
        return _row_place(document, written, [row["label"] for row in data["rows"]], at)

    loaded = LoadedExperiment(validate(Experiment, data, place), document, written)
    _check_names(loaded)
    return loaded


def _rows(document: Document, written: Any) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """(rows, sweeps written out; of each the number under which it is written)"""
    if not isinstance(written, list):
        raise SpecError(f"{document.where('rows')}: rows: must be a list of `- Label: {{stages: […], reported: […]}}`")
    rows, numbers = [], []
    for i, row in enumerate(written):
        if not isinstance(row, dict) or len(row) != 1 or not isinstance(next(iter(row.values())), dict):
            raise SpecError(
                f"{document.where('rows', i)}: row {i + 1}: a row is written `- Label: {{stages: […], reported: […]}}`"
            )
        label, body = next(iter(row.items()))
        try:
            for name, one in sweep.expand(label, body):
                rows.append({"label": name, **one})
                numbers.append(i)
        except ValueError as error:
            field = str(error).partition(": ")[0].split(".", 1)
            raise SpecError(f"{document.where('rows', i, label, *field)}: row {show(inert(label, keep=''))}: {error}") from None
    return rows, tuple(numbers)


def _typed(document: Document, written: Any, name: str, form: Callable[[Any], type[BaseModel]]) -> Any:
    """A list of mappings, each of the form that its own key names."""
    if written is None:
        return []
    if not isinstance(written, list):
        raise SpecError(f"{document.where(name)}: {name}: must be a list")
    typed = []
    for i, one in enumerate(written):
        try:
            found = form(one)
        except ValueError as error:
            raise SpecError(f"{document.where(name, i)}: {name}[{i}]: {error}") from None
        typed.append(validate(found, one, partial(_place_in_list, document, name, i)))
    return typed


def _place_in_list(document: Document, name: str, number: int, at: tuple[str | int, ...], message: str) -> str:
    return document.place((name, number, *at))


def _check_names(loaded: LoadedExperiment) -> None:
    """Labels are unique, and every name a claim or a delta speaks of exists; one value for each column."""
    spec = loaded.value
    labels = [row.label for row in spec.rows]
    columns = [column.name for column in spec.columns]
    for i, name in enumerate(columns):
        if name in columns[:i]:
            raise loaded.error(f'a second column "{name}"; keep one', "columns", i)
    for i, row in enumerate(spec.rows):
        if row.label in labels[:i]:
            raise loaded.error(f"a second row of this name (the first: {loaded.where('rows', labels.index(row.label))})", "rows", i)
        if row.reported and len(row.reported) != len(columns):
            raise loaded.error(
                f"{len(row.reported)} value{'s' * (len(row.reported) != 1)} for {len(columns)} columns "
                f"({', '.join(columns)}); write - for one that the paper does not print",
                "rows",
                i,
                "reported",
            )
        for name in row.cells:
            if name not in spec.cells:
                raise loaded.error(unknown("no such heading", name, spec.cells, "cells"), "rows", i, "cells", name)
        for role in ("of", "over") if row.delta else ():
            if (name := getattr(row.delta, role)) not in labels:
                raise loaded.error(unknown(f'no such row "{name}"', name, labels, "rows"), "rows", i, "delta", role)
    for i, claim in enumerate(spec.claims):
        for name in claim.rows:
            if name not in labels:
                raise loaded.error(unknown(f'no such row "{name}"', name, labels, "rows"), "claims", i)
        for name in claim.on if claim.on != "all" else ():
            if name not in columns:
                raise loaded.error(unknown(f'no such column "{name}"', name, columns, "columns"), "claims", i, "on")
        if isinstance(claim, LessTime):
            if not columns:
                raise loaded.error("less_time: belongs to a table with columns", "claims", i)
            if other := next((name for name in claim.rows if spec.row(name).stages is None), None):
                raise loaded.error(f'row "{other}" is no checkpoint of ours (stages: …), so its answers cannot be timed', "claims", i)
    for i, comparison in enumerate(spec.comparisons):
        for name in comparison.names:
            if name not in labels and not (isinstance(comparison, Against) and name == comparison.against == BASE):
                raise loaded.error(unknown(f'no such row "{name}"', name, labels, "rows"), "comparisons", i)
            if isinstance(comparison, Trend) and spec.row(name).x is None:
                raise loaded.error(f'row "{name}" has no x: a trend runs along the rows\' x', "comparisons", i, "trend")
    if spec.full is not None and spec.full not in labels:
        raise loaded.error(unknown(f'no such row "{spec.full}"', spec.full, labels, "rows"), "full")
    for name in spec.spread:
        if name not in columns:
            raise loaded.error(unknown(f'no such column "{name}"', name, columns, "columns"), "spread", name)


def _row_place(document: Document, written: Sequence[int], labels: Sequence[str], path: tuple[str | int, ...]) -> str:
    """`file:line: row "Stage 2 Only": set.stage2.p`: how an error about the path begins."""
    if len(path) < 2 or path[0] != "rows" or not isinstance(path[1], int):
        return document.place(path)
    at = _as_written(document, written, path)
    field = dotted(at[3:])
    return f"{document.where(*at)}: row {show(inert(labels[path[1]], keep=''))}" + (f": {field}" if field else "")


def _as_written(document: Document, written: Sequence[int], path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """("rows", 1, "set") → ("rows", 1, "Stage 2 Only", "set"): by the row's written number, through its label, to its sweep."""
    if len(path) < 2 or path[0] != "rows" or not isinstance(path[1], int):
        return path
    number = written[path[1]]
    if len(path) == 2:
        return ("rows", number)
    inside = ("rows", number, next(iter(document.data["rows"][number])))
    swept = (*inside, "sweep", *path[3:])
    return swept if path[2] == "set" and len(path) > 3 and swept in document.lines else (*inside, *path[2:])
