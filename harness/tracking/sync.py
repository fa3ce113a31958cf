"""Copies the store into MLflow: a run for each job that was begun, found again by its key.

How far each run is copied stands in the run's own tags, so that the copying is idempotent whoever does it, and nothing
but the store is needed to do it all again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.kinds import KINDS
from harness.outgoing import inert
from harness.store import Record, files
from harness.store.attempts import Attempt
from harness.tracking import where
from harness.tracking.fingerprint import fingerprint, note, signature
from harness.tracking.labels import Label, labels
from harness.tracking.measured import artifacts_of, clean, flat, measured

if TYPE_CHECKING:
    from harness.store import Store

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
ARTIFACT_BYTES = 2**20
"""Larger files are not copied; they stay in the store."""
TAG_CHARACTERS = 4500
KIND_TAG, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""Without it MLflow's pages ask what the experiment is, and may open it as a chat application's."""
PARENT_TAG = "mlflow.parentRunId"


@contextmanager
def writer(store: Store) -> Iterator[bool]:
    """True inside when this process is now the only one that copies; the kernel ends that with the process."""
    home = where.home(store)
    with files.writing(home):
        home.mkdir(parents=True, exist_ok=True)
        file = files.opened(home / "writer.lock", "a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def client_of(store: Store) -> Any:
    """An MLflow client for the database that this store is copied into."""
    where.quiet_environment()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=where.address(store))


def make_database(store: Store) -> None:
    """A local database, complete from the moment that it has its name: MLflow needs seconds to make the tables, and two
    processes that make them in one file at once trip over each other. One of our own that is no database any more is set
    aside and made again from the store."""
    path = where.local_file(store)
    if path is None:
        return
    with database_lock(path):
        if where.is_own(store):
            set_aside_if_broken(path)
            relocate(path, where.artifacts(store).as_uri())
        if path.exists():
            return
        where.quiet_environment()
        from mlflow import MlflowClient

        for leaving in path.parent.glob(".mlflow-*.db*"):
            leaving.unlink(missing_ok=True)
        new = path.with_name(f".mlflow-{uuid.uuid4().hex[:8]}.db")
        with unsynced():
            MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments()
        with new.open("rb") as whole:
            os.fsync(whole.fileno())
        files.renamed(new, path)


@contextmanager
def unsynced() -> Iterator[None]:
    """Databases opened inside are not written through to the disk: MLflow's migrations commit several hundred times, and a file that
    nobody knows yet may be lost."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hasten(connection: Any, _record: Any) -> None:
        connection.execute("pragma synchronous = off")
        connection.execute("pragma journal_mode = memory")

    event.listen(Engine, "connect", hasten)
    try:
        yield
    finally:
        event.remove(Engine, "connect", hasten)


@contextmanager
def database_lock(path: Path) -> Iterator[None]:
    """Alone among those that would make the database `path`."""
    with files.opened(path.with_name(f".{path.name}.lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_aside_if_broken(path: Path) -> None:
    """Rename a file that sqlite cannot read to NAME.damaged-N, and say so."""
    if not os.path.lexists(path):
        return
    problem = ""
    if path.exists() and not path.is_file():
        problem = "is not a regular file"  # sqlite would wait for whoever writes into a pipe
    elif path.exists() and not path.stat().st_size:
        problem = "is empty"
    if not problem:
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=60)) as database:
                (answer,) = database.execute("pragma quick_check(1)").fetchone()
                database.execute("select count(*) from runs, experiments").fetchone()
            problem = "" if answer == "ok" else answer
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                return
            problem = str(error)
    if problem:
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
            number += 1
        files.renamed(path, aside)
        print(f"{path} {problem}; kept as {aside.name}, and made again from the store", flush=True)


def relocate(path: Path, artifacts: str) -> None:
    """Let our own database name the store's own folder for artifacts, wherever the store was copied or moved to."""
    if not path.is_file():
        return
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        found = database.execute("select artifact_location from experiments where name = ?", (where.EXPERIMENT,)).fetchone()
        if found is None or found[0] == artifacts:
            return
        database.execute("update experiments set artifact_location = ? where name = ?", (artifacts, where.EXPERIMENT))
        database.execute(  # ".../mlartifacts/RUN/artifacts": the last two parts stay
            "update runs set artifact_uri = ? || '/' || run_uuid || '/artifacts' where artifact_uri like '%/mlartifacts/%'",
            (artifacts,),
        )


def existing(client: Any, store: Store) -> Any:
    """Our experiment, or None. Raises TrackingError when somebody deleted it: MLflow then refuses its name."""
    found = client.get_experiment_by_name(where.EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":
        raise where.TrackingError(
            f'MLflow at {where.shown_address(store)}: the experiment "{where.EXPERIMENT}" was deleted there; restore it: '
            f"MLFLOW_TRACKING_URI={where.shown_address(store)} mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return found


@contextmanager
def reaching(store: Store) -> Iterator[None]:
    """Turns MLflow's errors into one line, and says which addresses it could never use."""
    where.check(store)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except where.TrackingError:
        raise
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise where.TrackingError(f"MLflow at {where.shown_address(store)}: {inert(line.strip())[:300]}") from None


@dataclass
class Copied:
    """How far one run is copied. offsets: bytes of metrics.jsonl that are copied, by attempt. signature: of the job,
    then."""

    run_id: str
    signature: str = ""
    offsets: dict[str, int] = field(default_factory=dict)
    label: str = ""
    status: str = ""


class Syncer:
    """Opens (or makes) the experiment and reads what was copied before. Use it as the one writer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name = where.identity(store, make=True)
        with reaching(store):
            make_database(store)
            self.client = client_of(store)
            self.experiment = self._experiment()
            self.copied = self._known()

    def _experiment(self) -> str:
        found = existing(self.client, self.store)
        if found is not None:
            if KIND_TAG not in found.tags:
                self.client.set_experiment_tag(found.experiment_id, KIND_TAG, TRAINING)
            return found.experiment_id
        path = where.local_file(self.store)  # a server knows where artifacts go; of a file MLflow would say: where we are
        place = (path.absolute().parent / "mlartifacts").as_uri() if path is not None else None
        return self.client.create_experiment(where.EXPERIMENT, artifact_location=place, tags={KIND_TAG: TRAINING})

    def _known(self) -> dict[str, Copied]:
        known: dict[str, Copied] = {}
        for run in all_runs(self.client, self.experiment):
            tags = run.data.tags
            if where.is_ours(self.store, tags):
                known[tags["job_key"]] = Copied(
                    run.info.run_id,
                    tags.get("mirror.signature", ""),
                    json.loads(tags.get("mirror.offsets", "{}")),
                    tags.get("mirror.label", ""),
                    run.info.status,
                )
        return known

    def copy(self) -> int:
        """Copy what is new; returns the number of jobs. Raises TrackingError."""
        seen, known_labels, changed = fingerprint(self.store), labels(self.store), 0
        with reaching(self.store):
            for record in sorted(self.store.records(), key=_parents_first):
                changed += self._job(record, known_labels.get(record.key, Label()))
        note(self.store, seen)
        return changed

    def _job(self, record: Record, label: Label) -> bool:
        if self.store.damage(record):
            return False  # what was copied before the damage stays
        now, label_text = signature(self.store, record.kind, record.name), json.dumps([label.tables, label.tags(), label.name])
        copied = self.copied.get(record.key)
        if not now or (copied and copied.signature == now and copied.label == label_text):
            return False
        attempts = self.store.attempts(record)
        if copied is None:
            copied = self.copied[record.key] = self._create(record, attempts[0])
        done = self.store.done(record)
        newest = self.store.winner(record) if done else attempts[-1]
        if newest is None:
            return False
        for attempt in attempts:
            self._curves(copied, attempt)
        if done:
            self._numbers(copied, record.kind, newest.out, int(done["finished"] * 1000))
        ended = bool(done) or newest.alive(self.store.schedulers) is False
        if ended:
            self._artifacts(copied, record, newest)
        self._status(copied, newest, done, ended)
        self._tag(
            copied,
            {
                **label.tags(),
                "mlflow.runName": label.name or record.name,
                **self._parent(record),
                "state": "done" if done else "failed" if newest.failure else "running" if not ended else "interrupted",
                "attempts": str(attempts[-1].number),
                "host": newest.owner.host if "owner" in newest.claim else "",
                **({"failure": str(newest.failure)} if newest.failure else {}),
                **({"code": (done.get("code") or {}).get("commit", "")} if done else {}),
                "mirror.store": self.name,
                "mirror.offsets": json.dumps(copied.offsets),
                "mirror.label": label_text,
                "mirror.signature": now,
            },
        )
        copied.signature, copied.label = now, label_text
        return True

    def _create(self, record: Record, first: Attempt) -> Copied:
        from mlflow.entities import Param

        run = self.client.create_run(
            self.experiment,
            start_time=int(first.claim.get("started", time.time()) * 1000),
            run_name=record.name,
            tags={
                "job_key": record.key,
                "kind": record.kind,
                "slug": record.slug,
                "mirror.store": self.name,
                "folder": str(record.folder),
                "kind_version": str(record.version),
                **{f"input.{role}": upstream.key[:19] for role, upstream in record.inputs.items()},
            },
        )
        listed = [Param(clean(name), str(value)[:6000]) for name, value in parameters(record).items()]
        for first_of in range(0, len(listed), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, params=listed[first_of : first_of + PARAMS_A_BATCH])
        return Copied(run.info.run_id, status="RUNNING")

    def _parent(self, record: Record) -> dict[str, str]:
        """An evaluation stands under the training whose checkpoint it reads."""
        checkpoint = record.inputs.get("checkpoint")
        parent = self.copied.get(checkpoint.key) if checkpoint is not None else None
        return {PARENT_TAG: parent.run_id} if parent is not None else {}

    def _curves(self, copied: Copied, attempt: Attempt) -> None:
        """The lines of metrics.jsonl since the last time, with their own times."""
        from mlflow.entities import Metric

        name = str(attempt.number)
        rows, offset = files.read_lines(attempt.metrics, copied.offsets.get(name, 0))
        points = [
            Metric(clean(key), float(value), int(row["time"] * 1000), int(row["step"]))
            for row in rows
            for key, value in (row.get("values") or {"progress": row["step"] / max(1, row["total"])}).items()
            if isinstance(value, (int, float))
        ]
        for first in range(0, len(points), METRICS_A_BATCH):
            self.client.log_batch(copied.run_id, metrics=points[first : first + METRICS_A_BATCH])
        copied.offsets[name] = offset

    def _numbers(self, copied: Copied, kind: str, out: Path, milliseconds: int) -> None:
        """What the finished job measured, as metrics without a curve."""
        from mlflow.entities import Metric

        found = sorted(measured(kind, out).items())
        points = [Metric(key, value, milliseconds, 0) for key, value in found][:METRICS_A_BATCH]
        if points:
            self.client.log_batch(copied.run_id, metrics=points)

    def _artifacts(self, copied: Copied, record: Record, attempt: Attempt) -> None:
        candidates = [
            record.folder / "spec.json",
            record.folder / "DONE.json",
            attempt.path / "failure.json",
            attempt.log,
        ]
        candidates += [attempt.out / name for name in artifacts_of(record.kind)]
        for path in candidates:
            if path.is_file() and path.stat().st_size <= ARTIFACT_BYTES:
                self.client.log_artifact(copied.run_id, str(path))

    def _status(self, copied: Copied, attempt: Attempt, done: Mapping[str, Any] | None, ended: bool) -> None:
        failure = attempt.failure
        if done:
            status, end = "FINISHED", done["finished"]
        elif not ended:
            status, end = "RUNNING", None
        elif failure and failure.cause != "interrupted":
            status, end = "FAILED", (attempt.path / "failure.json").stat().st_mtime
        else:
            status, end = "KILLED", attempt.last_beat
        if end is not None:
            self.client.set_terminated(copied.run_id, status, end_time=int(end * 1000))
        elif copied.status != status:
            self.client.update_run(copied.run_id, status=status)
        copied.status = status

    def _tag(self, copied: Copied, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        listed = [RunTag(name, value[:TAG_CHARACTERS]) for name, value in tags.items()]
        self.client.log_batch(copied.run_id, tags=listed)


def all_runs(client: Any, experiment_id: str) -> Iterator[Any]:
    page = None
    while True:
        found = client.search_runs([experiment_id], max_results=1000, page_token=page)
        yield from found
        page = found.token
        if not page:
            return


def _parents_first(record: Record) -> int:
    order = list(KINDS)
    return order.index(record.kind) if record.kind in order else len(order)


def parameters(record: Record) -> dict[str, Any]:
    """Every option of the job, defaults too, by dotted name; digests are no parameters. Of a payload that this version cannot
    read, what stands in it."""
    whole: Mapping[str, Any] = record.payload
    kind = KINDS.get(record.kind)
    if kind is not None and kind.schema:
        try:
            whole = kind.spec(record.payload).model_dump(mode="json")
        except ValueError:
            pass
    return {name: value for name, value in flat(whole).items() if value is not None and not _DIGEST.fullmatch(str(value))}


_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
