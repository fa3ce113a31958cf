"""Preregistration: what a table was planned to be, recorded by the first `run` before results existed, and later
changes.

A registration is a file in the store that is created once and never changed: `.registered/NAME--PROFILE/0.json`. A later run
of the same table under another plan adds 1.json and so on. Each says which results were there when it was written; the last
one before any of its results counts as what was registered. Nothing in it names a place, so a store can be copied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.identity import digest
from harness.kinds import KINDS
from harness.spec.comparisons import comparisons_of
from harness.spec.files import written_in
from harness.store.files import StoreError, link_json, read_json, writing

if TYPE_CHECKING:
    from harness.plan.plan import Plan
    from harness.store import Store

FOLDER = ".registered"


@dataclass(frozen=True)
class Registration:
    """number: its place among those of its table. content: what was registered. there: how many of its results, and of
    those that earlier ones of its table are about, existed when it was written. time: Unix seconds. commit: of the code, "" outside a checkout.
    file: of the spec (`harness.spec.files.written_in`), "" in registrations that are older than this field."""

    number: int
    content: Mapping[str, Any]
    there: int
    time: float
    commit: str
    file: str = ""


@dataclass(frozen=True)
class Standing:
    """registered: what counts, None before the first run. changes: in what the plan differs from it, in words."""

    registered: Registration | None
    changes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For a report's first lines."""
        if self.registered is None:
            return "not registered"
        of = len(list(evaluations(self.registered.content)))
        late = f"registered when {self.registered.there} of {of} results were there" if self.registered.there else ""
        if self.changes:
            return "; ".join([late or "registered", "changed after results were there: " + "; ".join(self.changes)])
        return late or "as registered"


def content_of(plan: Plan) -> dict[str, Any]:
    """What a plan registers. cells: "row / column" -> seed -> key of the evaluation, of the paper's own reading."""
    spec = plan.experiment.value
    shown = {column.name for column in plan.columns}
    cells = {
        f"{cell.row} / {cell.column.name}": {str(seed): job.key for seed, job in sorted(cell.by_seed().items())}
        for cell in plan.cells
        if cell.protocol == spec.protocol and cell.column.name in shown
    }
    return {
        "seeds": list(plan.seeds),
        "rows": [row.label for row in plan.rows],
        "columns": [column.name for column in plan.columns],
        "comparisons": [one.model_dump(mode="json") for one in comparisons_of(spec)],
        "claims": [{"form": one.form, **one.model_dump(mode="json", exclude={"quote", "source"})} for one in spec.claims],
        "equivalence": float(spec.equivalence),
        "cells": cells,
        **({"noise_from": spec.noise_from} if spec.noise_from != "store" else {}),
    }


def evaluations(content: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the results that a registration is about, each once."""
    yield from dict.fromkeys(key for by_seed in content["cells"].values() for key in by_seed.values())


def name_of(plan: Plan) -> str:
    """The folder of a table's registrations. A part of a table, and one with overridden options, are runs of their own."""
    part = ""
    if plan.partial:
        part = "-part-" + digest([[row.label for row in plan.rows], [column.name for column in plan.columns]])[:8]
    return f"{plan.name}{part}--{plan.profile.name}"


def registrations(folder: Path) -> list[Registration]:
    """Oldest first; up to the first that is missing. Raises StoreError for a file that is not JSON."""
    found: list[Registration] = []
    while (text := read_json(folder / f"{len(found)}.json")) is not None:
        try:
            content = text["content"]
            found.append(Registration(len(found), content, text["results_there"], text["time"], text["commit"], text.get("file", "")))
            if text["digest"] != digest(content):
                raise StoreError(f"{folder}/{len(found) - 1}.json: its digest is not that of its content; it was changed by hand")
        except (KeyError, TypeError) as error:
            raise StoreError(f"{folder}/{len(found)}.json: is not a registration ({error!r})") from None
    return found


def register(plan: Plan, store: Store, commit: Callable[[], str]) -> Registration | None:
    """Write down what the plan is, unless the last registration says the same. None for a plan without results of its own.

    Of any number of drivers that start at once, one creates each file; the others read it. Raises StoreError when the store
    cannot be written.
    """
    content = content_of(plan)
    if not content["cells"]:
        return None
    folder = store.root / FOLDER / name_of(plan)
    while True:
        known = registrations(folder)
        if known and known[-1].content == content:
            return known[-1]
        about = {key for one in (content, *(earlier.content for earlier in known)) for key in evaluations(one)}
        there = sum(_is_done(store, key) for key in about)
        record = {
            "table": plan.name,
            "profile": plan.profile.name,
            "file": written_in(plan.experiment.document.path),
            "digest": digest(content),
            "results_there": there,
            "time": time.time(),
            "commit": commit(),
            "content": content,
        }
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            link_json(folder / f"{len(known)}.json", record)


def _is_done(store: Store, key: str) -> bool:
    """Whether an evaluation is done, which may belong to an old plan."""
    return any((folder / "DONE.json").exists() for kind in KINDS.values() if kind.answers and (folder := store.find(kind.name, key)))


def standing(store: Store, name: str, content: Mapping[str, Any]) -> Standing:
    """What was registered under this name, and in what `content` differs from it. Raises StoreError for a broken file."""
    known = registrations(store.root / FOLDER / name)
    if not known:
        return Standing(None)
    before = [one for one in known if one.there == 0]
    counts = before[-1] if before else known[0]
    return Standing(counts, tuple(changes(counts.content, content)))


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The differences between two registrations, in words."""
    for name in ("seeds", "rows", "columns"):
        added = [str(one) for one in now[name] if one not in then[name]]
        gone = [str(one) for one in then[name] if one not in now[name]]
        for what, which in (("added", added), ("left out", gone)):
            if which:
                yield f"{name} {what}: {', '.join(which)}"
    for name in ("comparisons", "claims"):
        if now[name] != then[name]:
            yield f"{name} changed"
    if now["equivalence"] != then["equivalence"]:
        yield f"equivalence changed from {then['equivalence']:g} to {now['equivalence']:g} points"
    before, after = (one.get("noise_from", "store") for one in (then, now))
    if before != after:
        yield f"seed noise from the {after}'s trainings, not the {before}'s"
    redefined = {
        cell.rpartition(" / ")[0]
        for cell, by_seed in now["cells"].items()
        for seed, key in by_seed.items()
        if then["cells"].get(cell, {}).get(seed, key) != key
    }
    if redefined:
        yield f"options of rows changed: {', '.join(row for row in now['rows'] if row in redefined)}"
