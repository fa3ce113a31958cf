"""Which stored evaluations estimate the seed noise of a column. Light: no numbers, no pandas.

A *recipe* is a job without its seed: evaluations of one recipe differ in nothing but the seed of their trainings. All
recipes of a column count, whichever table asked for them, so that two runs compare alike wherever they stand; a table may
confine it to its own (`noise_from: table`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.identity import digest, digest_of, text
from harness.jobs import Job, Source, trainings
from harness.store import Store
from harness.store.jobs import is_whole, stored_jobs

if TYPE_CHECKING:
    from harness.report.numbers.study import Study


@dataclass(frozen=True)
class Run:
    """A stored evaluation of a trained checkpoint. column: the same questions, asked alike of models from the same base.
    recipe: what was trained and how it is decoded, but for seed and latents mode. trainings: recipes of the trainings behind
    it, of all stages."""

    job: Job
    column: str
    latents: str
    recipe: str
    seed: int
    trainings: frozenset[str]

    @staticmethod
    @cache
    def of(job: Job) -> Run | None:
        """None for an evaluation of what is not trained here, which has no seed."""
        last = job.inputs.get("checkpoint")
        if not isinstance(last, Job):
            return None
        base, trained = _behind(last)
        asked = text(job.payload)
        decode, latents = _decoding(asked)
        column = _column(asked, job.inputs["mirror"].key, base)
        recipe = digest_of(f'["{column}",{decode},"{seedless(last)}"]')
        return Run(job, column, latents, recipe, last.payload.get("seed", 0), trained)


@cache
def _behind(last: Job) -> tuple[str, frozenset[str]]:
    """The key of the base model of a checkpoint, and the recipes of the trainings between them."""
    chain = trainings(last)
    return chain[0].inputs["init"].key, frozenset(map(seedless, chain))


@cache
def _decoding(asked: str) -> tuple[str, str]:
    """Of an evaluation's payload, a canonical JSON that many share: how is decoded, but for the latents mode, as canonical JSON; the
    latents mode."""
    decode = json.loads(asked).get("decode", {})
    latents = decode.pop("latents", "own")
    return text(decode), latents


@cache
def _column(asked: str, mirror: str, base: str) -> str:
    payload = json.loads(asked)
    payload.pop("decode", None)
    return digest([payload, mirror, base])


@cache
def seedless(job: Job | Source) -> str:
    """What the job is, but for the seeds of the trainings in it."""
    if isinstance(job, Source):
        return job.key
    payload = {name: value for name, value in job.payload.items() if (job.kind, name) != ("train", "seed")}
    return digest([job.kind, payload, {role: seedless(upstream) for role, upstream in job.inputs.items()}])


@dataclass(frozen=True)
class Trainings:
    """runs: column -> those of its recipes that have two seeds or more."""

    runs: Mapping[str, tuple[Run, ...]]

    @classmethod
    def behind(cls, study: Study, store: Store) -> Trainings:
        """From the finished evaluations that the study's `noise_from` names."""
        found = cls.stored(store)
        if study.experiment.noise_from == "store":
            return found
        own = study.jobs()
        return cls.among(run for runs in found.runs.values() for run in runs if run.job.key in own)

    @classmethod
    def stored(cls, store: Store) -> Trainings:
        """From all finished evaluations in the store."""
        return store.kept("trainings", lambda: cls.among(run for run in _runs(store) if store.is_done(run.job)))

    @classmethod
    def among(cls, runs: Iterable[Run]) -> Trainings:
        by_recipe: dict[tuple[str, str, str], dict[int, Run]] = {}
        for run in runs:
            by_recipe.setdefault((run.column, run.recipe, run.latents), {})[run.seed] = run
        found: dict[str, list[Run]] = {}
        for (column, _, _), seeds in sorted(by_recipe.items()):
            if len(seeds) > 1:
                found.setdefault(column, []).extend(run for _, run in sorted(seeds.items()))
        return cls({column: tuple(members) for column, members in found.items()})

    @cached_property
    def keys(self) -> dict[str, list[str]]:
        """Column -> keys of its evaluations: what an estimate of its seed noise is made from."""
        return {column: sorted(run.job.key for run in runs) for column, runs in self.runs.items()}


def _runs(store: Store) -> tuple[Run, ...]:
    """Of every evaluation with a folder. Those that this look found done need not be read again."""
    home = store.root / "evaluate"
    try:
        listed, names = home.stat().st_mtime_ns, os.listdir(home)
    except OSError:
        return ()
    seen = {key[:12]: job for key, job in store.seen_done().items() if job.kind == "evaluate"}
    found = [seen.get(name.rpartition("-")[2]) for name in names]
    jobs = [job for job in found if job is not None]
    if len(jobs) < len(names):
        return _read(store.root, listed)
    return tuple(run for job in jobs if (run := Run.of(job)))


@lru_cache(maxsize=4)
def _read(root: Path, listed: int) -> tuple[Run, ...]:
    """listed: mtime of the folder, so that several reports of one command read it once."""
    store = Store(root)
    evaluations = (job for job in stored_jobs(store, store.records()) if job.kind == "evaluate" and is_whole(job))
    return tuple(run for job in evaluations if (run := Run.of(job)))


def columns_of(jobs: Iterable[Job]) -> set[str]:
    """The columns that these jobs' evaluations belong to."""
    return {run.column for job in jobs if job.kind == "evaluate" and (run := Run.of(job))}
