"""How two stores, or two jobs' specs, differ. Reads spec.json and DONE.json; no result is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.store.files import StoreError
from harness.store.records import Record, Upstream
from harness.store.store import Store

ABSENT = "default"
"""A field that a spec does not state has its schema's default."""


@dataclass(frozen=True)
class Different:
    """A job that both stores have finished with different results. files: in out/. because: what else differs."""

    record: Record
    files: tuple[str, ...]
    because: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """Finished jobs of two stores. only_a, only_b: of one store alone. same: how many have equal digests in both."""

    only_a: tuple[Record, ...]
    only_b: tuple[Record, ...]
    same: int
    different: tuple[Different, ...]


def compare(a: Store, b: Store) -> Compared:
    ours, theirs = ({record.key: record for record in store.records() if store.done(record)} for store in (a, b))
    different = []
    for key in ours.keys() & theirs.keys():
        one, other = a.done(ours[key]), b.done(theirs[key])
        assert one is not None and other is not None
        if files := changed_files(one, other):
            different.append(Different(ours[key], files, circumstances(one, other)))
    different.sort(key=lambda one: (one.record.kind, one.record.name))
    return Compared(
        tuple(record for key, record in ours.items() if key not in theirs),
        tuple(record for key, record in theirs.items() if key not in ours),
        len(ours.keys() & theirs.keys()) - len(different),
        tuple(different),
    )


def changed_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in out/ whose content differs. one, other: DONE.json's records."""
    names = sorted(one["outputs"].keys() | other["outputs"].keys())
    return tuple(name for name in names if one["outputs"].get(name) != other["outputs"].get(name))


def circumstances(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between two runs of one job, apart from its spec: "commit 1a2b → 3c4d", "torch 2.12.0 → 2.13.0"."""
    found = []
    commits = [code_of(done) for done in (one, other)]
    if commits[0] != commits[1]:
        found.append(f"commit {commits[0]} → {commits[1]}")
    versions = [done.get("versions") or {} for done in (one, other)]
    for name in sorted(versions[0].keys() | versions[1].keys()):
        before, after = (version.get(name, "none") for version in versions)
        if before != after:
            found.append(f"{name} {before} → {after}")
    return tuple(found)


def code_of(done: Mapping[str, Any]) -> str:
    code = done.get("code") or {}
    return str(code.get("commit") or "unknown")[:12] + (" with changes" if code.get("dirty") else "")


def spec_changes(a: Store, one: Record, b: Store, other: Record) -> Iterator[str]:
    """What makes two jobs of a kind different ones, upstream jobs included, each once: "stage1.lr 0.0003 → 0.0006"."""
    seen: set[tuple[str, str]] = set()

    def walk(one: Record, other: Record) -> Iterator[str]:
        if one.key == other.key or (one.key, other.key) in seen:
            return
        seen.add((one.key, other.key))
        if one.version != other.version:
            yield f"{one.kind} version {one.version} → {other.version}"
        before, after = options(one), options(other)
        for name in [*before, *(name for name in after if name not in before)]:
            values = [json.dumps(side[name], ensure_ascii=False) if name in side else ABSENT for side in (before, after)]
            if values[0] != values[1]:
                yield f"{name} {values[0]} → {values[1]}"
        for role in [*one.inputs, *(role for role in other.inputs if role not in one.inputs)]:
            left, right = one.inputs.get(role), other.inputs.get(role)
            if left is None or right is None:
                yield f"{one.kind} has {role} on one side only"
            elif left.key != right.key:
                yield from below(role, left, right)

    def below(role: str, left: Upstream, right: Upstream) -> Iterator[str]:
        if left.kind and left.kind == right.kind:
            try:
                yield from walk(a.record(left.key, left.kind), b.record(right.key, right.kind))
                return
            except StoreError:
                pass  # its folder is gone, or an import of before left none
        yield f"{role} {left.key[:19]} → {right.key[:19]}"

    yield from dict.fromkeys(walk(one, other))


def options(record: Record) -> dict[str, Any]:
    """The payload's fields by dotted name: of a training's stage by the stage's name, of others after the kind's."""
    found: dict[str, Any] = {}

    def flat(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, one in value.items():
                flat(f"{prefix}.{name}", one)
        else:
            found[prefix] = value

    for name, value in record.payload.items():
        stage = value.get("kind") if name == "stage" and isinstance(value, Mapping) else None
        flat(str(stage) if stage else f"{record.kind}.{name}", value)
    return found
