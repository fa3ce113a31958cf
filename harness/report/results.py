"""Numbers of a study, each computed once: answers, estimates and paired comparisons by row, column, protocol and latents."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness.jobs import Job
from harness.plan.cost import chain
from harness.report.measure import Measured, Reader, Unmeasured, check_aggregate
from harness.report.study import Arm, Evaluation, Study
from harness.report.types import JobRef, Rates
from harness.spec.benchmark import Protocol, Score
from harness.spec.experiment import Column
from harness.spec.reported import Reported
from harness.stats import Answers, Comparison, Estimate, SeedNoise, compare, estimate, families
from harness.store import Store
from models.config import ExternalMirror

BASE = "Base model"


@dataclass(frozen=True)
class Found:
    """What the runs of one cell hold. by_seed: seed -> answers. lost: what is missing among the seeds, in words."""

    by_seed: Mapping[int, Answers]
    measured: tuple[Measured, ...]
    score: Score
    lost: tuple[str, ...] = ()

    @property
    def by_job(self) -> dict[str, Measured]:
        """Job key -> what it measured. A model that is not trained here has one evaluation for all seeds, and no seed noise."""
        return {m.evaluation.job.key: m for m in self.measured}

    @property
    def seedless(self) -> bool:
        """Whether one evaluation stands for several seeds."""
        return len(self.by_job) == 1 < len(self.by_seed)

    @property
    def runs(self) -> list[Answers]:
        """The answers of each job, once."""
        jobs = [m.evaluation.job.key for m in self.measured]
        return list(dict(zip(jobs, self.by_seed.values(), strict=True)).values())

    @property
    def rates(self) -> Rates:
        """Mean over the seeds."""
        parts = [m.rates(self.score) for m in self.by_job.values()]

        def mean(name: str) -> float | None:
            known = [v for v in (getattr(part, name) for part in parts) if v is not None]
            return sum(known) / len(known) if known else None

        return Rates(mean("started"), mean("truncated"), mean("unparsed"), mean("latent_steps"))


@dataclass
class Results:
    """out_dir: where the report will lie, for relative links. links: job key -> MLflow address."""

    study: Study
    store: Store
    out_dir: Path
    links: Mapping[str, str] = field(default_factory=dict)
    _found: dict[tuple[str, str, str, str], Found | Unmeasured] = field(default_factory=dict)
    _estimates: dict[tuple[str, str, str, str], Estimate] = field(default_factory=dict)
    _noise: dict[tuple[str, str, str], SeedNoise | None] = field(default_factory=dict)
    _pairs: dict[tuple[tuple[str, str], tuple[str, str], str, str, bool], Comparison] = field(default_factory=dict)

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.store)

    @cached_property
    def columns(self) -> dict[str, Column]:
        return {column.name: column for column in self.study.columns}

    @cached_property
    def arms(self) -> dict[str, Arm]:
        return {arm.label: arm for arm in self.study.arms}

    @cached_property
    def trainings(self) -> dict[str, frozenset[str]]:
        """Row -> keys of the jobs that trained its checkpoints, of all stages and seeds together."""
        return {
            label: frozenset(job.key for last in arm.trainings().values() for job in chain(last))
            for label, arm in self.arms.items()
        }

    def score(self, column: str) -> Score:
        spec = self.columns[column]
        return self.study.benchmarks[spec.benchmark].scores[spec.score]

    def part(self, column: str, protocol: Protocol = "paper") -> str:
        """"14 of 300 questions" where the column's data set is only a part of the benchmark; "" where it is the whole, or was
        generated."""
        data = self.study.profile.benchmarks.get(self.columns[column].benchmark)
        if not isinstance(data, ExternalMirror):
            return ""
        measured = [e for row in self.arms if (e := self.estimate(row, column, protocol)) is not None]
        n, whole = min((e.n for e in measured), default=0), self.score(column).n
        return f"{n:,} of {whole:,} questions" if 0 < n < whole else ""

    def title(self, column: str) -> str:
        """As in the paper: the column's own title, else benchmark and score."""
        spec = self.columns[column]
        if spec.title:
            return spec.title
        benchmark, score = self.study.benchmarks[spec.benchmark], self.score(column)
        return benchmark.title if spec.score == "overall" else f"{benchmark.title} {score.title or spec.score}"

    def evaluations(self, row: str, column: str, protocol: Protocol, latents: str) -> tuple[Evaluation, ...]:
        benchmark = self.columns[column].benchmark
        if row == BASE and row not in self.arms:
            return tuple(e for e in self.study.base.get(benchmark, ()) if (e.protocol, e.latents) == (protocol, latents))
        return self.arms[row].runs(benchmark, protocol, latents)

    def found(self, row: str, column: str, protocol: Protocol = "paper", latents: str = "own") -> Found:
        """Raises Unmeasured when no seed has a result; a seed without one is named in `lost`."""
        name = (row, column, protocol, latents)
        if name not in self._found:
            try:
                self._found[name] = self._find(*name)
            except Unmeasured as problem:
                self._found[name] = problem
        found = self._found[name]
        if isinstance(found, Unmeasured):
            raise found
        return found

    def _find(self, row: str, column: str, protocol: Protocol, latents: str) -> Found:
        arm = self.arms.get(row)
        if arm is not None and arm.undefined:
            raise Unmeasured("not defined", arm.undefined)
        evaluations = self.evaluations(row, column, protocol, latents)
        if not evaluations:
            raise Unmeasured("not run", (arm.absent if arm else "") or "no evaluation is planned")
        spec = self.columns[column]
        benchmark, score = self.study.benchmarks[spec.benchmark], self.score(column)
        by_seed: dict[int, Answers] = {}
        measured, problems = [], []
        for evaluation in evaluations:
            try:
                one = self.reader.read(evaluation)
                check_aggregate(one, benchmark, spec.score)
                by_seed[evaluation.seed] = one.answers(score, arm.extract if arm else "strict")
                measured.append(one)
            except Unmeasured as problem:
                problems.append((evaluation.seed, problem))
        if not by_seed:
            raise problems[0][1]
        return Found(by_seed, tuple(measured), score, tuple(f"seed {s} {p.state}: {p}" for s, p in problems))

    def estimate(self, row: str, column: str, protocol: Protocol = "paper", latents: str = "own") -> Estimate | None:
        """None where nothing was measured."""
        name = (row, column, protocol, latents)
        if name not in self._estimates:
            try:
                runs = self.found(*name).runs
                self._estimates[name] = estimate(runs, noise=self.seed_noise(column, protocol, latents))
            except Unmeasured:
                return None
        return self._estimates[name]

    def pair(
        self,
        first: str,
        second: str,
        column: str,
        protocol: Protocol = "paper",
        latents: tuple[str, str] = ("own", "own"),
        *,
        pooled: bool = True,
    ) -> Comparison | None:
        """first minus second on the same questions, over the seeds that both have. None where one has no value.

        pooled: with the seed noise that other rows of the column lend (`difference_noise`), which supposes that they are
        equally noisy. Without: with that of these two alone, seeds - 1 degrees of freedom, which supposes nothing, and with
        three seeds shows large differences only.
        """
        name = ((first, latents[0]), (second, latents[1]), column, protocol, pooled)
        if name not in self._pairs:
            try:
                a = self.found(first, column, protocol, latents[0])
                b = self.found(second, column, protocol, latents[1])
            except Unmeasured:
                return None
            self._pairs[name] = self._compared(a, b, column, protocol, latents, (first, second), pooled=pooled)
        return self._pairs[name]

    def _compared(
        self,
        a: Found,
        b: Found,
        column: str,
        protocol: Protocol,
        latents: tuple[str, str],
        rows: tuple[str, str] | None = None,
        *,
        pooled: bool = True,
    ) -> Comparison:
        if a.seedless and b.seedless:
            return compare(a.runs, b.runs)
        common = sorted(a.by_seed.keys() & b.by_seed.keys())
        left = [a.by_seed[s] for s in common] if common else list(a.by_seed.values())
        right = [b.by_seed[s] for s in common] if common else list(b.by_seed.values())
        if not pooled:
            noise = None
        elif a.seedless or b.seedless:  # the noise is that of the side that was trained
            noise = self.seed_noise(column, protocol, latents[a.seedless])
        else:
            noise = self.difference_noise(column, protocol, latents, len(common), rows)
        return compare(left, right, noise=noise)

    def seed_means(self, column: str, protocol: Protocol, latents: str) -> dict[str, dict[int, float]]:
        """Row -> seed -> mean, of the rows that were trained; one of several rows that are the same run."""
        found: dict[str, dict[int, float]] = {}
        runs: set[tuple[str, ...]] = set()
        for label, arm in self.arms.items():
            jobs = tuple(e.job.key for e in self.evaluations(label, column, protocol, latents))
            if arm.row.stages and jobs and jobs not in runs:
                runs.add(jobs)
                try:
                    by_seed = self.found(label, column, protocol, latents).by_seed
                except Unmeasured:
                    continue
                found[label] = {seed: float(answers.values.mean()) for seed, answers in by_seed.items()}
        return found

    def seed_spread(self, column: str, protocol: Protocol = "paper") -> dict[str, float]:
        """Row -> standard deviation between its seeds' means, in points; rows with two seeds or more, equal runs once."""
        means = self.seed_means(column, protocol, "own")
        return {row: 100 * statistics.stdev(found.values()) for row, found in means.items() if len(found) > 1}

    def seed_noise(self, column: str, protocol: Protocol, latents: str) -> SeedNoise | None:
        """Between seeds of a row, pooled over the rows of a column. Rows that share a training count as one row."""
        name = (column, protocol, latents)
        if name not in self._noise:
            means = self.seed_means(*name)
            family = self._branches(means)
            self._noise[name] = SeedNoise.within(
                [list(by_seed.values()) for by_seed in means.values()], [family[row] for row in means]
            )
        return self._noise[name]

    def difference_noise(
        self,
        column: str,
        protocol: Protocol,
        latents: tuple[str, str],
        seeds: int,
        rows: tuple[str, str] | None = None,
    ) -> SeedNoise | None:
        """Between seeds of a difference of two rows (or of two latents modes), pooled over the rows of a column.

        seeds: how many both rows have. rows: the two; left out, two that share no training. None: the two can only be
        judged by their own noise.

        Like is pooled with like, since what two rows share cancels in their difference. Rows that share no training lend
        their noise to pairs that share none, families of rows counting as one row. Rows that part after the same training
        (one stage 1, several second stages) lend theirs to each other: that training is their common block, as the seed
        is everywhere. A row and one that trains it further are of a kind of their own, with one training's noise between
        them instead of two.
        """
        if seeds < 2:
            return None
        if latents[0] != latents[1]:
            return self._change_noise(column, protocol, latents)
        means = self.seed_means(column, protocol, latents[0])
        branch = self._branches((row for row, by_seed in means.items() if len(by_seed) >= seeds), rows)
        common = sorted(set.intersection(*(set(means[row]) for row in branch))) if branch else []
        if len(common) < seeds:
            return None
        return SeedNoise.of_differences([[means[row][s] for s in common] for row in branch], list(branch.values()))

    def _change_noise(self, column: str, protocol: Protocol, latents: tuple[str, str]) -> SeedNoise | None:
        """Between seeds of what another latents mode changes in a row; rows that share a training count as one row."""
        first, second = (self.seed_means(column, protocol, mode) for mode in latents)
        family = self._branches(row for row in first if row in second)
        changes = [[first[row][s] - second[row][s] for s in first[row] if s in second[row]] for row in family]
        return SeedNoise.within(changes, list(family.values()))

    def _branches(self, rows: Iterable[str], pair: tuple[str, str] | None = None) -> dict[str, int]:
        """Row -> number of the family it is in, of those rows that part from one another where the two of `pair` do.

        Without a pair: nothing is shared, and every row takes part. Empty when one of the two is where the other started.
        """
        if pair is None:
            return families({row: self.trainings[row] for row in rows})
        first, second = (self.trainings.get(row, frozenset()) for row in pair)
        shared = first & second
        if bool(first - shared) != bool(second - shared):
            return {}
        rest = {row: self.trainings[row] - shared for row in rows if self.trainings[row] >= shared}
        return families({row: own for row, own in rest.items() if bool(own) == bool(first - shared)})

    def same_run(self, first: str, second: str, column: str, protocol: Protocol = "paper") -> bool:
        """Whether both cells are made of the same jobs."""
        a, b = (self.evaluations(row, column, protocol, "own") for row in (first, second))
        return bool(a) and {e.job.key for e in a} == {e.job.key for e in b}

    def reported(self, row: str, column: str) -> Reported | None:
        """What the paper prints; None where it prints nothing."""
        arm = self.arms.get(row)
        names = [c.name for c in self.study.experiment.columns]
        if arm is None or not arm.row.reported:
            return None
        value = arm.row.reported[names.index(column)]
        return None if value.missing else value

    def measured_rows(self, column: str, protocol: Protocol = "paper") -> tuple[str, ...]:
        return tuple(label for label in self.arms if self.estimate(label, column, protocol) is not None)

    def job_ref(self, job: Job, seed: int | None) -> JobRef:
        folder = self.store.folder(job)
        winner = self.store.winner(job)
        newest = winner or next(reversed(self.store.attempts(job)), None)
        log = os.path.relpath(newest.path / "log", self.out_dir) if newest else ""
        samples = winner.out / "samples.jsonl" if winner and job.kind in ("evaluate", "ask") else None
        return JobRef(
            job.key,
            job.kind,
            job.name,
            seed,
            os.path.relpath(folder, self.out_dir),
            log,
            self.links.get(job.key, ""),
            os.path.relpath(samples, self.out_dir) if samples else "",
        )

    def jobs(self, row: str, column: str, protocol: Protocol, latents: str = "own") -> tuple[JobRef, ...]:
        """The evaluations of a cell, each followed by the training that made its checkpoint."""
        found: dict[str, JobRef] = {}
        for evaluation in self.evaluations(row, column, protocol, latents):
            for job in (evaluation.job, evaluation.training):
                if job is not None:
                    found.setdefault(job.key, self.job_ref(job, evaluation.seed))
        return tuple(found.values())
