"""Stored records as jobs again, so that what knows jobs need not know how they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from harness.jobs import Job, Known, Source
from harness.kinds import KINDS
from harness.store.files import StoreError
from harness.store.records import Record, Upstream
from harness.store.store import Store


def stored_jobs(store: Store, records: Iterable[Record] | None = None) -> list[Job]:
    """The jobs of these records (default: all of the store) with their parents, from what their spec.json says.

    A `Known` stands for a job or parent whose spec.json cannot be read, was written by another version of its kind, or is
    gone. With `records`, only for those among them and their parents.
    """
    known = {record.key: record for record in (store.records() if records is None else records)}
    made: dict[str, Job] = {}
    unread: dict[str, Job] = {}

    @cache
    def damaged() -> dict[str, Known]:
        """By the key's first 12 digits, which are all that a folder's name says."""
        names = [(folder.parent.name, *folder.name.rpartition("-")) for folder in store.damaged_specs()]
        return {key12: Known(kind, {}, {}, slug, key12) for kind, slug, _, key12 in names}

    def job(record: Record) -> Job:
        if record.key not in made:
            if record.kind in KINDS and record.version == KINDS[record.kind].version:
                inputs = {role: parent(upstream) for role, upstream in record.inputs.items()}
                made[record.key] = Job(record.kind, record.payload, inputs, record.slug)
            else:
                made[record.key] = Known(record.kind, {}, {}, record.slug, record.key)
        return made[record.key]

    def parent(upstream: Upstream) -> Job | Source:
        if not upstream.kind:
            return Source(upstream.location, upstream.key.removeprefix("source:"))
        if upstream.key in known:
            return job(known[upstream.key])
        if (found := damaged().get(upstream.key[:12])) is not None:
            return unread.setdefault(found.known_key, Known(found.kind, {}, {}, found.slug, upstream.key))
        try:
            return job(store.record(upstream.key, upstream.kind))
        except StoreError:  # its folder is gone
            return Known(upstream.kind, {}, {}, "", upstream.key)

    found = [job(record) for record in known.values()]
    return found if records is not None else found + list((damaged() | unread).values())


def is_whole(job: Job) -> bool:
    """Whether everything about the job and what came before it is known."""
    return not isinstance(job, Known) and all(map(is_whole, job.parents))
