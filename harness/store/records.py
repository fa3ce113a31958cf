"""What spec.json says about a job: enough to run it without the spec file or the planner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.identity import digest
from harness.jobs import Job, Source
from harness.kinds import kind_of
from harness.store import files
from harness.store.done import Damaged


@dataclass(frozen=True)
class Upstream:
    """A job to be found in the store by kind and key, or a source (kind "") that lies at `location`."""

    key: str
    kind: str = ""
    location: str = ""


@dataclass(frozen=True)
class Record:
    key: str
    kind: str
    version: int
    payload: Mapping[str, Any]
    inputs: Mapping[str, Upstream]
    slug: str
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Raises StoreError when the folder holds no spec.json, and Damaged when that is not what the job was begun with."""
        path = folder / "spec.json"
        try:
            text = files.read_json(path)
        except files.StoreError as error:
            raise Damaged(str(error)) from error
        if text is None and not path.is_symlink():
            raise files.StoreError(f"{folder}: no spec.json; this is not a job's folder")
        try:
            inputs = {
                role: Upstream(
                    entry.get("job") or f"source:{entry['digest']}", entry.get("kind", ""), entry.get("location", "")
                )
                for role, entry in text["inputs"].items()
            }
            record = cls(text["key"], text["kind"], text["version"], text["payload"], inputs, text["slug"], folder)
            key = record.computed_key()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Damaged(f"{path} is no job's spec") from error
        if key != record.key:
            raise Damaged(f"{path} was edited: its content has the key {key[:12]}, not {str(record.key)[:12]}")
        return record

    def computed_key(self) -> str:
        """The key that the content has. Raises TypeError or ValueError for what no key can be made of."""
        return digest(
            {
                "kind": self.kind,
                "version": self.version,
                "payload": self.payload,
                "inputs": {role: upstream.key for role, upstream in self.inputs.items()},
            }
        )


def record_of(job: Job) -> dict[str, Any]:
    """The content of the job's spec.json."""
    inputs = {}
    for role, upstream in job.inputs.items():
        if isinstance(upstream, Source):
            inputs[role] = {"location": str(upstream.location), "digest": upstream.digest}
        else:
            inputs[role] = {"job": upstream.key, "kind": upstream.kind, "name": upstream.name}
    return {
        "key": job.key,
        "kind": job.kind,
        "version": kind_of(job.kind).version,
        "slug": job.slug,
        "payload": dict(job.payload),
        "inputs": inputs,
    }
