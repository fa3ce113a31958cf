"""Stored records as jobs again, so that what knows jobs need not know how they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.jobs import Job, Source
from harness.kinds import KINDS
from harness.store.files import StoreError
from harness.store.records import Record


def stored_jobs(root: Path, kind: str) -> Iterator[Job]:
    """Every job of a kind that the store at `root` has with all its parents, in the order of their folders.

    Passed over: what cannot be read, what another version of this program wrote, and what has lost a parent.
    """
    records: dict[tuple[str, str], Record] = {}
    for spec in sorted(root.glob("[!.]*/*/spec.json")):
        try:
            record = Record.read(spec.parent)
        except (StoreError, KeyError, TypeError):
            continue
        if record.kind in KINDS and record.version == KINDS[record.kind].version:
            records[record.kind, record.key] = record
    made: dict[tuple[str, str], Job | None] = {}

    def job(record: Record) -> Job | None:
        name = record.kind, record.key
        if name not in made:
            inputs: dict[str, Job | Source | None] = {}
            for role, upstream in record.inputs.items():
                if not upstream.kind:
                    inputs[role] = Source(upstream.location, upstream.key.removeprefix("source:"))
                else:
                    parent = records.get((upstream.kind, upstream.key))
                    inputs[role] = job(parent) if parent else None
            whole = {role: upstream for role, upstream in inputs.items() if upstream is not None}
            found = Job(record.kind, record.payload, whole, record.slug) if len(whole) == len(inputs) else None
            made[name] = found if found is not None and found.key == record.key else None
        return made[name]

    for record in list(records.values()):
        if record.kind == kind and (found := job(record)) is not None:
            yield found
