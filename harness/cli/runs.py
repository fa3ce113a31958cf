"""The part of `run.py diff` that compares what was run: two stores, or a table in two stores or two of its JSON files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.stored import open_store
from harness.cli.words import columns, plural
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.report.numbers.moved import Moved, Run
    from harness.store import Store
    from harness.store.compare import Compared
    from harness.store.records import Record

LISTED = 20


def is_run(text: str) -> bool:
    return text.endswith(".json") or Path(text).is_dir()


def main(options: argparse.Namespace) -> tuple[str, Any]:
    """(text for a person, data for a program). Raises SpecError."""
    for text in (options.a, options.b):
        if not is_run(text):
            raise SpecError(f"{text}: is neither a results folder nor a report's JSON file; compare two of these, or two recipes or rows")
    if not options.table and all(Path(text).is_dir() for text in (options.a, options.b)):
        from harness.store.compare import compare

        compared = compare(existing(options.a), existing(options.b))
        return stores(options.a, options.b, compared), stores_record(options.a, options.b, compared)
    texts, records = [], []
    for table in options.table or [None]:
        from harness.report.numbers.moved import moved

        a, b = (run(text, table, options) for text in (options.a, options.b))
        found = moved(a, b)
        texts.append(cells(a, b, found))
        records.append(cells_record(a, b, found))
    return "\n".join(texts), records


def existing(results: str) -> Store:
    store = open_store(Path(results), one_look=True)
    if next(store.records(), None) is None:
        raise SpecError(f"{results}: holds no jobs; name a results folder")
    return store


def run(text: str, table: str | None, options: argparse.Namespace) -> Run:
    """A report's JSON file with the jobs of --results, or a table in a results folder."""
    from harness.report.numbers.moved import Run

    if Path(text).is_dir():
        if table is None:
            raise SpecError(f"{text}: a folder and a report's file: name the table, --table FILE")
        from harness.frames import load

        frames = load(text).table(table, options.profile or "proxy")
        return Run(f"{text} {frames.plan.name}", frames.cells(), existing(text))
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"))
        return Run(text, found["cells"], open_store(options.results, one_look=True))
    except OSError as error:
        raise SpecError(f"{text}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SpecError(f"{text}: is not a report's JSON file; run.py report FILE writes one beside the page") from None


def stores(a: str, b: str, found: Compared) -> str:
    """Counts, then the jobs that differ, then the jobs that only one store has."""
    counts = f"{plural(found.same, 'finished job')} the same in both, {len(found.different)} with different results"
    lines = [f"{counts}, {len(found.only_a)} only in {a}, {len(found.only_b)} only in {b}"]
    if found.different:
        lines.append("different results:")
        rows = [[one.record.kind, one.record.name, ", ".join(one.files), ", ".join(one.because)] for one in found.different]
        lines.append(columns(rows[:LISTED]))
        lines += more(len(rows))
    for name, records in ((a, found.only_a), (b, found.only_b)):
        if records:
            lines += [f"only in {name}:", columns([record.kind, record.name] for record in records[:LISTED]), *more(len(records))]
    return "\n".join(lines)


def more(n: int) -> list[str]:
    return [f"  and {n - LISTED} more: --json"] if n > LISTED else []


def stores_record(a: str, b: str, found: Compared) -> dict[str, Any]:
    def plain(record: Record) -> dict[str, str]:
        return {"key": record.key, "kind": record.kind, "name": record.name}

    return {
        "a": a,
        "b": b,
        "same": found.same,
        "different": [{**plain(one.record), "files": list(one.files), "because": list(one.because)} for one in found.different],
        "only_a": list(map(plain, found.only_a)),
        "only_b": list(map(plain, found.only_b)),
    }


def cells(a: Run, b: Run, found: Sequence[Moved]) -> str:
    """A line for each cell that moved."""
    total = len({**a.by_place(), **b.by_place()})
    still = sum(one.by == 0 for one in found)
    lines = [f"{a.name} → {b.name}: {len(found)} of {plural(total, 'cell')} moved" + (f", {still} by the interval alone" if still else "")]
    rows = []
    for one in found:
        row, column, protocol, latents = one.where
        how = " ".join(word for word, usual in ((protocol, "paper"), (latents, "own")) if word != usual)
        by = "" if one.by is None else f"{one.by:+.1f}"
        rows.append([f"{row} / {column}" + (f" ({how})" if how else ""), value(one.a), "→", value(one.b), by, "; ".join(one.because)])
    return "\n".join([*lines, *([columns(rows)] if rows else [])])


def value(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return str(cell["state"]) if cell["value"] is None else f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]"


def cells_record(a: Run, b: Run, found: Sequence[Moved]) -> dict[str, Any]:
    names = ("state", "value", "low", "high", "n", "seeds", "jobs")

    def plain(cell: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if cell is None else {name: cell.get(name) for name in names}

    places = ("row", "column", "protocol", "latents")
    return {
        "a": a.name,
        "b": b.name,
        "cells": len({**a.by_place(), **b.by_place()}),
        "moved": [
            {**dict(zip(places, one.where, strict=True)), "a": plain(one.a), "b": plain(one.b), "by": one.by, "because": list(one.because)}
            for one in found
        ],
    }
