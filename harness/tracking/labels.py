"""Which tables and cells a job serves, and what a person calls it. Not part of a job, so it is kept apart: one file
for each table under each profile. A run of a part of the table adds to what the file says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.store import files
from harness.tracking.where import home

if TYPE_CHECKING:
    from harness.store import Store

NAMES_SHOWN = 2


class Use(NamedTuple):
    """One thing that a job is for. cell: "Stage 1 Only / mmvp". row, column, protocol, latents, stage: "" where it has none. name:
    what its run is called, as in "Stage 1 Only · MMVP · seed 0"; "" for what serves many cells alike, such as data."""

    cell: str
    row: str = ""
    column: str = ""
    protocol: str = ""
    latents: str = ""
    stage: str = ""
    seed: str = ""
    name: str = ""


@dataclass(frozen=True)
class Label:
    """tables: their names. uses: over all of these."""

    tables: tuple[str, ...] = ()
    uses: tuple[Use, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(sorted({use.cell for use in self.uses}))

    @property
    def name(self) -> str:
        """What the run is called; "" leaves it the job's own name."""
        names = list(dict.fromkeys(use.name for use in self.uses if use.name))
        more = len(names) - NAMES_SHOWN
        return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

    def tags(self) -> dict[str, str]:
        """For MLflow. What the job has none of is ""."""
        found = {"tables": ", ".join(self.tables), "cells": "; ".join(self.cells)}
        for name in ("row", "column", "protocol", "latents", "stage", "seed"):
            found[name] = ", ".join(dict.fromkeys(value for use in self.uses if (value := getattr(use, name))))
        return found


def save_labels(store: Store, table: str, profile: str, uses: Mapping[str, Iterable[Use]], *, whole: bool = True) -> None:
    """Remember what each job (by key) is for. whole: these are all of the table's; otherwise what was known stays beside them.
    Writes only what changed."""
    path = home(store) / "labels" / f"{table}--{profile}.json"
    value = {key: [_plain(use) for use in dict.fromkeys(found)] for key, found in sorted(uses.items())}
    known = files.read_note(path)
    if not whole:
        value = known | value
    if known != value:
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, value, durable=False)


def labels(store: Store) -> dict[str, Label]:
    """By job key, over all tables."""
    tables: dict[str, dict[str, None]] = {}
    uses: dict[str, dict[Use, None]] = {}
    for path in sorted(home(store).glob("labels/*--*.json")):
        for key, found in files.read_note(path).items():
            tables.setdefault(key, {})[_table(path)] = None
            uses.setdefault(key, {}).update(dict.fromkeys(_read(found)))
    return {key: Label(tuple(tables[key]), tuple(uses[key])) for key in tables}


def profiles_of(store: Store) -> dict[str, tuple[str, ...]]:
    """Job key -> names of the profiles under which a table needed it."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted(home(store).glob("labels/*--*.json")):
        for key in files.read_note(path):
            found.setdefault(key, {})[path.stem.rpartition("--")[2]] = None
    return {key: tuple(names) for key, names in found.items()}


def _table(path: Path) -> str:
    return path.stem.rpartition("--")[0]


def _plain(use: Use) -> dict[str, str]:
    return {name: value for name, value in zip(Use._fields, use, strict=True) if value}


def _read(found: Any) -> list[Use]:
    """What cannot be read labels nothing; the next run writes it again."""
    rows = [row for row in found if isinstance(row, dict) and "cell" in row] if isinstance(found, list) else []
    return [Use(**{name: str(value) for name, value in row.items() if name in Use._fields}) for row in rows]
