"""A bundle: one zip file with what tables rest on, to be checked by a reviewer and taken into a colleague's store.

Its `store/` is a part of a results folder: jobs that are whole. Its `lineage/` says of the jobs before them (trainings,
unless their weights were asked for) what they were and how they went, without what they made. `specs/` holds the YAML
files. MANIFEST.json lists every file with its sha256. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.identity import digest
from harness.jobs import Graph, Job, Known
from harness.kinds import kind_of
from harness.store.done import Damaged
from harness.store.files import StoreError, renamed, sync_folder, writing
from harness.store.jobs import stored_jobs
from harness.store.records import Record, record_of
from harness.store.store import Held, Store

FORMAT = 1
MANIFEST = "MANIFEST.json"
REGISTERED = ".registered"


@dataclass(frozen=True)
class Taken:
    """What an import did. new: jobs that are in the store now. known: those that it had already, with the same outputs.
    other: those that it has with other outputs; its own were kept."""

    new: tuple[str, ...]
    known: tuple[str, ...]
    other: tuple[str, ...]


# Writing


def write(
    path: Path,
    store: Store,
    jobs: Iterable[Job],
    specs: Mapping[str, Path],
    facts: Mapping[str, Any],
    *,
    registered: Iterable[str] = (),
    everything: bool = False,
) -> dict[str, int]:
    """Write the bundle of these jobs and all before them; returns how many jobs are in its store/ and in its lineage/.

    specs: name in the bundle -> file. registered: names of tables whose registrations go along. facts: of who made it, for the manifest. everything: also weights, data and pictures.
    Raises StoreError when there is a file already, a job is damaged, or the disk refuses; then nothing is left behind.
    """
    if os.path.lexists(path):
        raise StoreError(f"{path}: exists already; name another file")
    listed: dict[str, dict[str, Any]] = {}
    counts = {"store": 0, "lineage": 0}
    with writing(path), _appearing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            archive.writestr(name, content)

        def copy(name: str, file: Path) -> None:
            sha, size = hashlib.sha256(), 0
            with file.open("rb") as source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
                while block := source.read(1 << 20):
                    sha.update(block)
                    size += target.write(block)
            listed[name] = {"sha256": sha.hexdigest(), "bytes": size}

        for job in Graph(jobs):
            if damage := store.damage(job):
                raise Damaged(f"damaged: {damage}; nothing was exported")
            winner = store.winner(job)
            home = store.folder(job)
            whole = winner is not None and (everything or kind_of(job.kind).shown) and not _linked(winner.out)
            place = f"{'store' if whole else 'lineage'}/{job.kind}/{home.name}"
            add(f"{place}/spec.json", (json.dumps(_without_places(record_of(job)), indent=1) + "\n").encode())
            if winner is not None:
                copy(f"{place}/DONE.json", home / "DONE.json")
                for attempt in store.attempts(job):
                    if attempt.metrics.exists():
                        copy(f"{place}/attempts/{attempt.number}/metrics.jsonl", attempt.metrics)
            if whole and winner is not None:
                for file in sorted(file for file in winner.out.rglob("*") if file.is_file()):
                    copy(f"{place}/attempts/{winner.number}/out/{file.relative_to(winner.out).as_posix()}", file)
            counts["store" if whole else "lineage"] += 1
        for name in registered:
            for file in sorted((store.root / REGISTERED / name).glob("*.json")):
                copy(f"store/{REGISTERED}/{name}/{file.name}", file)
        for name, file in specs.items():
            copy(f"specs/{name}", file)
        text = {"format": FORMAT, "time": time.time(), **facts, "jobs": counts, "files": listed}
        archive.writestr(MANIFEST, json.dumps({**text, "checksum": digest(text)}, indent=1))
    return counts


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A temporary file that becomes `path` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        renamed(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _without_places(spec: dict[str, Any]) -> dict[str, Any]:
    """spec.json without the folders of whoever made it; where a source lies is part of no key."""
    for entry in spec["inputs"].values():
        if os.path.isabs(entry.get("location", "")):
            entry["location"] = os.path.basename(entry["location"])
    return spec


def _linked(out: Path) -> bool:
    """Whether outputs lie elsewhere: a benchmark of somebody else is named, not copied."""
    return any(file.is_symlink() for file in out.rglob("*"))


# Reading


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The bundle unpacked into a folder that lasts as long as the block, and its manifest. Every file was compared.

    Raises StoreError for what is not a bundle and Damaged for one that was changed: in one line, before anything is used.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise StoreError(f"{path}: is not a regular file; name a bundle's file, which run.py export writes")
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            manifest = _manifest(path, archive)
            _unpack(path, archive, manifest["files"], Path(folder))
            yield Path(folder), manifest
    except FileNotFoundError as error:
        if error.filename != str(path):
            raise
        raise StoreError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise StoreError(f"{path}: is a folder; name a bundle's file, which run.py export writes") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise StoreError(f"{path}: is not a bundle, or was cut short ({error})") from None


def _manifest(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        text = json.loads(archive.read(MANIFEST))
        files = text["files"]
        listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
        same = digest({name: value for name, value in text.items() if name != "checksum"}) == text["checksum"]
        version = text["format"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise StoreError(f"{path}: is not a bundle: {MANIFEST} is missing or unreadable") from None
    if version != FORMAT:
        raise StoreError(f"{path}: has format {version}; this program reads format {FORMAT}")
    if not same:
        raise Damaged(f"{path}: {MANIFEST} was edited: its checksum is another")
    names = [entry.filename for entry in archive.infolist()]
    if len(set(names)) != len(names) or set(names) != {MANIFEST, *listed}:
        odd = sorted(set(names) ^ {MANIFEST, *listed}) or ["a name that is listed twice"]
        raise Damaged(f"{path}: holds other files than {MANIFEST} lists: {odd[0]}")
    return text


def _unpack(path: Path, archive: zipfile.ZipFile, listed: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or kind not in (0, stat.S_IFREG):
            raise Damaged(f"{path}: {entry.filename!r} is no plain file below the bundle")
        if entry.filename == MANIFEST:
            continue
        target, sha, size = folder / name, hashlib.sha256(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as file:
            while block := source.read(1 << 20):
                sha.update(block)
                size += file.write(block)
                if size > listed[entry.filename]["bytes"]:
                    break
        if (sha.hexdigest(), size) != (listed[entry.filename]["sha256"], listed[entry.filename]["bytes"]):
            raise Damaged(f"{path}: {entry.filename} differs from its digest in {MANIFEST}")


def check(folder: Path) -> Iterator[tuple[Record, dict[str, Any] | None, str]]:
    """(job, DONE.json's record, damage or "") of every whole job of an unpacked bundle."""
    store = Store(folder / "store")
    for spec, damage in store.damaged_specs().items():
        raise Damaged(f"{spec.relative_to(folder)}: {damage}")
    for record in store.records():
        found = store.examined(record, afresh=True)
        yield record, found.done, found.damage or ("" if found.done else "is not done")


def take(folder: Path, jobs: Iterable[tuple[Job, Record]], store: Store, source: str) -> Taken:
    """Publish every whole job of an unpacked bundle in `store`, as any result is published; what DONE.json says of code and versions goes along.

    source: the bundle's name, for the record. A job that somebody is at work on there is left to them. A table
    that was registered in `store` keeps its registration; otherwise the bundle's comes along. Raises StoreError.
    """
    theirs = Store(folder / "store")
    new: list[str] = []
    known: list[str] = []
    other: list[str] = []
    for job, record in jobs:
        done = theirs.done(record)
        assert done is not None
        if (mine := store.done(job)) is not None:
            (known if mine["outputs"] == done["outputs"] else other).append(job.name)
            continue
        if damage := store.damage(job):
            raise Damaged(f"damaged: {damage}")
        store.ensure_all([job])
        try:
            attempt = store.begin_attempt(job)
        except Held:
            other.append(job.name)
            continue
        try:
            winner = theirs.winner(record)
            assert winner is not None
            with writing(attempt.path):
                shutil.copytree(winner.out, attempt.out, dirs_exist_ok=True)
                if winner.metrics.exists():
                    shutil.copyfile(winner.metrics, attempt.metrics)
            kept = {name: done[name] for name in ("versions", "code", "adopted") if name in done}
            facts = {"from": source, "finished": done["finished"], "checksum": done.get("checksum", "")}
            store.publish(attempt, seconds=done["seconds"], **kept, imported=facts)
        except BaseException as error:
            attempt.fail("storage", type(error).__name__, str(error).partition("\n")[0])
            raise
        new.append(job.name)
    # What the trainings behind the results were, without what they made: which evaluations differ in their seeds alone rests on it.
    store.ensure_all(job for job in stored_jobs(Store(folder / "lineage")) if not isinstance(job, Known))
    for home in sorted((folder / "store" / REGISTERED).glob("*/")):
        place = store.root / REGISTERED / home.name
        if not place.exists():
            with writing(place):
                shutil.copytree(home, place)
    return Taken(tuple(new), tuple(known), tuple(other))
