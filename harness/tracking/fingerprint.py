"""Whether MLflow shows what is in the store, told without importing MLflow."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from harness.store import files
from harness.store.attempts import attempts_of
from harness.tracking import where
from harness.tracking.measured import artifacts_of

if TYPE_CHECKING:
    from harness.store import Store

SQLITE = b"SQLite format 3\0"
"""How every sqlite file begins."""


def signature(store: Store, kind: str, name: str) -> str:
    """Of one job: changes whenever something about it could be copied to MLflow. "" when there is nothing yet."""
    try:
        return " ".join(["done", str(store.done_ns(kind, name)), *artifacts_of(kind)])
    except FileNotFoundError:
        pass
    parts = []
    for attempt in attempts_of(store.root / kind / name):
        metrics = attempt.metrics.stat().st_size if attempt.metrics.exists() else 0
        ended = (attempt.path / "failure.json").exists() or attempt.alive() is False
        parts.append(f"{attempt.number} {metrics} {'ended' if ended else 'alive'}")
    return "; ".join(parts)


def fingerprint(store: Store) -> str:
    """Of the whole store, the tables' labels, and the database that it is copied into."""
    lines = [where.shown_address(store)]
    for kind, name in store.job_names():
        lines.append(f"{name} {signature(store, kind, name)}")
    for path in sorted(where.home(store).glob("labels/*.json")):
        lines.append(f"{path.name} {path.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def up_to_date(store: Store) -> bool:
    """Whether the last sync copied everything, and the database has not changed since."""
    noted, now = _noted(store), identity(store)
    same = bool(now) and noted.get("database") == now and noted.get("stamp") == stamp(store)
    return same and noted.get("fingerprint") == fingerprint(store)


def _noted(store: Store) -> dict[str, Any]:
    return files.read_note(where.home(store) / "mirrored.json")


def identity(store: Store) -> str:
    """Identifies the database file: another file under the same name is another database; "" if it is not a
    database."""
    path = where.local_file(store)
    if path is None:
        return where.shown_address(store)
    try:
        with files.reading(path) as file:
            return f"{path} {path.stat().st_ino}" if file.read(len(SQLITE)) == SQLITE else ""
    except OSError:
        return ""


def stamp(store: Store) -> list[int]:
    """Changes whenever a local database file is written, by whomever."""
    path = where.local_file(store)
    if path is None or not path.is_file():
        return []
    return [path.stat().st_size, path.stat().st_mtime_ns]


def note(store: Store, seen: str) -> None:
    """Record that the state with fingerprint `seen` is in MLflow."""
    path = where.home(store) / "mirrored.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(
        path, {"fingerprint": seen, "database": identity(store), "stamp": stamp(store)}, durable=False
    )
