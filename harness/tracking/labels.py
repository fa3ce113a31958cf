"""Which tables and cells a job serves. Not part of a job, so it is kept beside the mirror, one file for each table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.store import files
from harness.tracking.where import home

if TYPE_CHECKING:
    from harness.store import Store


@dataclass(frozen=True)
class Label:
    """tables: their names. cells: as a person calls them."""

    tables: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()


def save_labels(store: Store, table: str, cells: Mapping[str, Iterable[str]]) -> None:
    """Remember for `table` which cells each job (by key) serves. Writes only what changed."""
    path = home(store) / "labels" / f"{table}.json"
    value = {key: sorted(set(names)) for key, names in sorted(cells.items())}
    if files.read_note(path) != value:
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, value, durable=False)


def labels(store: Store) -> dict[str, Label]:
    """By job key, over all tables."""
    tables: dict[str, set[str]] = {}
    cells: dict[str, set[str]] = {}
    for path in sorted(home(store).glob("labels/*.json")):
        for key, names in files.read_note(path).items():
            tables.setdefault(key, set()).add(path.stem)
            cells.setdefault(key, set()).update(names)
    return {key: Label(tuple(sorted(tables[key])), tuple(sorted(cells[key]))) for key in tables}
