"""Queries for reports: a job's run, its address, and its numbers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from harness.tracking import where
from harness.tracking.fingerprint import identity
from harness.tracking.measured import measured

if TYPE_CHECKING:
    from harness.store import Store


@dataclass(frozen=True)
class Found:
    """One job's run. run_id and link are "" when it was read from the store because MLflow could not be asked."""

    key: str
    run_id: str = ""
    link: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def own_links(store: Store) -> dict[str, str] | None:
    """Job key -> address of its run in the database inside the results folder, read without MLflow, whose import takes seconds. None
    where something is wrong, so that MLflow has to say what."""
    path = where.database(store)
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=60)) as database:
            experiment = database.execute("select experiment_id, lifecycle_stage from experiments where name = ?", (where.EXPERIMENT,)).fetchone()
            if experiment is None or experiment[1] != "active":
                return None
            found = database.execute(
                "select tags.value, runs.run_uuid from runs join tags on tags.run_uuid = runs.run_uuid and tags.key = 'job_key' "
                "where runs.experiment_id = ? and runs.lifecycle_stage = 'active' order by runs.start_time desc, runs.run_uuid",
                experiment[:1],
            ).fetchall()
    except sqlite3.Error:
        return None
    return {key: where.run_link(store, str(experiment[0]), run) for key, run in found}


class Tracker:
    """Asks MLflow once, at the first query. unreachable: the line to show if the store had to answer instead."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.unreachable = ""
        self._found: dict[str, Found] | None = None

    def _ask(self) -> dict[str, Found]:
        """Every run of this store's jobs. Raises TrackingError."""
        if self._found is None:
            path = where.local_file(self.store)
            if path is not None and not identity(self.store):
                raise where.TrackingError(f"{path}: no database yet")
            from harness.tracking.sync import all_runs, client_of, existing, reaching

            with reaching(self.store):
                client = client_of(self.store)
                experiment = existing(client, self.store)
                runs = list(all_runs(client, experiment.experiment_id)) if experiment else []
            self._found = {
                run.data.tags["job_key"]: Found(
                    run.data.tags["job_key"],
                    run.info.run_id,
                    where.run_link(self.store, run.info.experiment_id, run.info.run_id),
                    run.data.metrics,
                    run.data.tags,
                )
                for run in runs
                if where.is_ours(self.store, run.data.tags)
            }
        return self._found

    def links(self, keys: Iterable[str]) -> dict[str, str]:
        """Job key -> address of its run, for those that have one: none in a store that nothing was copied from yet, as one that was
        imported. Raises TrackingError (an OSError) when unreachable."""
        if where.is_own(self.store) and not where.database(self.store).exists():
            return {}
        links = own_links(self.store) if where.is_own(self.store) else None
        if links is None:
            links = {key: run.link for key, run in self._ask().items()}
        return {key: links[key] for key in keys if key in links}

    def find_runs(self, keys: Iterable[str]) -> dict[str, Found]:
        """Job key -> its run; from the store, with `unreachable` set, when MLflow cannot be asked."""
        try:
            found = self._ask()
        except where.TrackingError as error:
            self.unreachable = f"{error}; read from the results folder instead"
            return self._stored(set(keys))
        return {key: found[key] for key in keys if key in found}

    def _stored(self, keys: set[str]) -> dict[str, Found]:
        answer = {}
        for record in self.store.records():
            if record.key not in keys or not self.store.is_done(record):
                continue
            numbers = measured(record.kind, self.store.outputs(record))
            answer[record.key] = Found(record.key, metrics=numbers, tags={"job_key": record.key, "kind": record.kind})
        return answer
