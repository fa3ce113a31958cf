"""Numbers of a study, each computed once: answers, estimates and paired comparisons by row, column, protocol and latents."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness.jobs import Job
from harness.report.measure import Measured, Reader, Unmeasured, check_aggregate
from harness.report.study import Arm, Evaluation, Study
from harness.report.types import JobRef, Rates
from harness.spec.benchmark import Score
from harness.spec.experiment import Column
from harness.spec.reported import Reported
from harness.stats import Answers, Comparison, Estimate, SeedNoise, compare, estimate
from harness.store import Store

BASE = "Base model"


@dataclass(frozen=True)
class Found:
    """What the runs of one cell hold. by_seed: seed -> answers. lost: what is missing among the seeds, in words."""

    by_seed: Mapping[int, Answers]
    measured: tuple[Measured, ...]
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
        parts = [m.rates for m in self.by_job.values()]

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
    _noise: dict[tuple[str, ...], SeedNoise | None] = field(default_factory=dict)
    _pairs: dict[tuple[tuple[str, str], tuple[str, str], str, str], Comparison] = field(default_factory=dict)

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.store)

    @cached_property
    def columns(self) -> dict[str, Column]:
        return {column.name: column for column in self.study.columns}

    @cached_property
    def arms(self) -> dict[str, Arm]:
        return {arm.label: arm for arm in self.study.arms}

    def score(self, column: str) -> Score:
        spec = self.columns[column]
        return self.study.benchmarks[spec.benchmark].scores[spec.score]

    def title(self, column: str) -> str:
        """As in the paper: the column's own title, else benchmark and score."""
        spec = self.columns[column]
        if spec.title:
            return spec.title
        benchmark, score = self.study.benchmarks[spec.benchmark], self.score(column)
        return benchmark.title if spec.score == "overall" else f"{benchmark.title} {score.title or spec.score}"

    def evaluations(self, row: str, column: str, protocol: str, latents: str) -> tuple[Evaluation, ...]:
        benchmark = self.columns[column].benchmark
        if row == BASE and row not in self.arms:
            return tuple(e for e in self.study.base.get(benchmark, ()) if (e.protocol, e.latents) == (protocol, latents))
        return self.arms[row].runs(benchmark, protocol, latents)

    def found(self, row: str, column: str, protocol: str = "paper", latents: str = "own") -> Found:
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

    def _find(self, row: str, column: str, protocol: str, latents: str) -> Found:
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
        return Found(by_seed, tuple(measured), tuple(f"seed {s} {p.state}: {p}" for s, p in problems))

    def estimate(self, row: str, column: str, protocol: str = "paper", latents: str = "own") -> Estimate | None:
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
        self, first: str, second: str, column: str, protocol: str = "paper", latents: tuple[str, str] = ("own", "own")
    ) -> Comparison | None:
        """first minus second on the same questions, over the seeds that both have. None where one has no value."""
        name = ((first, latents[0]), (second, latents[1]), column, protocol)
        if name not in self._pairs:
            try:
                a = self.found(first, column, protocol, latents[0])
                b = self.found(second, column, protocol, latents[1])
            except Unmeasured:
                return None
            self._pairs[name] = self._compared(a, b, column, protocol, latents)
        return self._pairs[name]

    def _compared(self, a: Found, b: Found, column: str, protocol: str, latents: tuple[str, str]) -> Comparison:
        if a.seedless and b.seedless:
            return compare(a.runs, b.runs)
        common = sorted(a.by_seed.keys() & b.by_seed.keys())
        left = [a.by_seed[s] for s in common] if common else list(a.by_seed.values())
        right = [b.by_seed[s] for s in common] if common else list(b.by_seed.values())
        if a.seedless or b.seedless:  # the noise is that of the side that was trained
            noise = self.seed_noise(column, protocol, latents[a.seedless])
        else:
            noise = self.difference_noise(column, protocol, latents, len(common))
        return compare(left, right, noise=noise)

    def seed_means(self, column: str, protocol: str, latents: str) -> dict[str, dict[int, float]]:
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

    def seed_noise(self, column: str, protocol: str, latents: str) -> SeedNoise | None:
        """Between seeds of a row, pooled over the rows of a column."""
        name = (column, protocol, latents)
        if name not in self._noise:
            means = self.seed_means(*name)
            self._noise[name] = SeedNoise.within([list(by_seed.values()) for by_seed in means.values()])
        return self._noise[name]

    def difference_noise(self, column: str, protocol: str, latents: tuple[str, str], seeds: int) -> SeedNoise | None:
        """Between seeds of a difference of two rows (or of two latents modes), pooled over the rows of a column."""
        if seeds < 2:
            return None
        name = (column, protocol, *latents)
        if name not in self._noise:
            first, second = (self.seed_means(column, protocol, mode) for mode in latents)
            if latents[0] == latents[1]:
                whole = [list(by_seed.values()) for by_seed in first.values() if len(by_seed) == seeds]
                self._noise[name] = SeedNoise.of_differences(whole)
            else:
                changes = [
                    [value - second[row][seed] for seed, value in by_seed.items() if seed in second.get(row, {})]
                    for row, by_seed in first.items()
                ]
                self._noise[name] = SeedNoise.within(changes)
        return self._noise[name]

    def same_run(self, first: str, second: str, column: str, protocol: str = "paper") -> bool:
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

    def measured_rows(self, column: str, protocol: str = "paper") -> tuple[str, ...]:
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

    def jobs(self, row: str, column: str, protocol: str, latents: str = "own") -> tuple[JobRef, ...]:
        """The evaluations of a cell, each followed by the training that made its checkpoint."""
        found: dict[str, JobRef] = {}
        for evaluation in self.evaluations(row, column, protocol, latents):
            for job in (evaluation.job, evaluation.training):
                if job is not None:
                    found.setdefault(job.key, self.job_ref(job, evaluation.seed))
        return tuple(found.values())
