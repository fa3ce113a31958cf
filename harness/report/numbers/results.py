"""Numbers of a study, each computed once: answers, estimates and paired comparisons by row, column, protocol and latents."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.jobs import Job
from harness.kinds import kind_of
from harness.report.numbers.measure import Measured, Reader, Unmeasured, check_aggregate
from harness.report.numbers.noise import ColumnNoise, change
from harness.report.numbers.study import BASE, Arm, Evaluation, Study
from harness.report.numbers.trainings import Run, Trainings
from harness.report.numbers.values import JobRef, Rates
from harness.spec.benchmark import Protocol, Score
from harness.spec.experiment import Column
from harness.spec.reported import Reported
from harness.stats import Answers, Comparison, Estimate, SeedNoise, compare, contrast, estimate
from harness.store import Store
from models.config import ExternalMirror

T = TypeVar("T")
Metric = Literal["accuracy", "likelihood"]


@dataclass(frozen=True)
class Found:
    """What the runs of one cell hold. by_seed: seed -> answers. lost: what is missing among the seeds, in words."""

    by_seed: Mapping[int, Answers]
    measured: tuple[Measured, ...]
    score: Score
    lost: tuple[str, ...] = ()

    @property
    def by_job(self) -> dict[str, Measured]:
        """Job key -> its answers. A model that is not trained here has one evaluation for all seeds, and no seed
        noise."""
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
    def counts(self) -> bool:
        """Whether every answer is right or wrong and nothing between."""
        return all(bool(((one.values == 0) | (one.values == 1)).all()) for one in self.by_seed.values())

    @property
    def rates(self) -> Rates:
        """Mean over the seeds."""
        parts = [m.rates(self.score) for m in self.by_job.values()]

        def mean(name: str) -> float | None:
            known = [v for v in (getattr(part, name) for part in parts) if v is not None]
            return sum(known) / len(known) if known else None

        return Rates(mean("started"), mean("truncated"), mean("unparsed"), mean("latent_steps"), mean("rejected"))


def common_seeds(cells: Sequence[Found]) -> list[list[Answers]]:
    """The answers of each cell, over their common seeds. Models that were not trained here have one evaluation each."""
    if all(cell.seedless for cell in cells):
        return [cell.runs for cell in cells]
    seeds = set.intersection(*(set(cell.by_seed) for cell in cells))
    if not seeds:  # seeds do not match: take as many of each as the shortest list has
        fewest = min(len(cell.by_seed) for cell in cells)
        return [list(cell.by_seed.values())[:fewest] for cell in cells]
    return [[cell.by_seed[seed] for seed in sorted(seeds)] for cell in cells]


@dataclass
class Results:
    """out_dir: where the report will lie, for relative links. links: job key -> MLflow address."""

    study: Study
    store: Store
    out_dir: Path
    links: Mapping[str, str] = field(default_factory=dict)
    metric: Metric = "accuracy"
    """What is compared: the share of right answers, or the mean log-likelihood (nats) of the right letter (`likelihoods`)."""
    _found: dict[tuple[str, str, str, str], Found | Unmeasured] = field(default_factory=dict)
    _estimates: dict[tuple[str, str, str, str], Estimate] = field(default_factory=dict)
    _noise: dict[tuple[str, str, str, str], ColumnNoise | None] = field(default_factory=dict)
    _pairs: dict[tuple[tuple[str, str], tuple[str, str], str, str], Comparison] = field(default_factory=dict)
    _once: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def once(self, name: tuple[str, ...], make: Callable[[], T]) -> T:
        """`make()`, the first time that something of this name is asked for."""
        if name not in self._once:
            self._once[name] = make()
        return self._once[name]

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.store)

    @cached_property
    def likelihoods(self) -> Results:
        """The same rows by the other metric, from the same files."""
        other = Results(self.study, self.store, self.out_dir, self.links, "likelihood")
        other.__dict__ |= {"reader": self.reader, "trainings": self.trainings}
        return other

    @cached_property
    def columns(self) -> dict[str, Column]:
        return {column.name: column for column in self.study.columns}

    @cached_property
    def arms(self) -> dict[str, Arm]:
        return {arm.label: arm for arm in self.study.arms}

    @cached_property
    def trainings(self) -> Trainings:
        """Those that say how far seeds lie apart."""
        return Trainings.behind(self.study, self.store)

    @property
    def _share(self) -> bool:
        return self.metric == "accuracy"

    def score(self, column: str) -> Score:
        spec = self.columns[column]
        return self.study.benchmarks[spec.benchmark].scores[spec.score]

    def seen(self, column: str) -> str:
        """What the column's questions are about, and share: "clip" or "image"."""
        benchmark = self.columns[column].benchmark
        runs = (one for arm in self.arms.values() for one in arm.evaluations.get(benchmark, ()))
        return "clip" if any("clips" in one.job.payload for one in (*runs, *self.study.base.get(benchmark, ()))) else "image"

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

    def planned(self, column: str, protocol: Protocol, latents: str = "own") -> bool:
        """Whether any row is evaluated there under this protocol and latents mode."""
        return any(self.evaluations(row, column, protocol, latents) for row in (*self.arms, BASE))

    def columns_under(self, protocol: Protocol) -> list[str]:
        """All under the table's own protocol; under another, those that are evaluated there."""
        own = protocol == self.study.experiment.protocol
        return [name for name in self.columns if own or self.planned(name, protocol)]

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
                extract = arm.extract if arm else "strict"
                by_seed[evaluation.seed] = one.answers(benchmark, spec.score, extract) if self._share else one.likelihoods(score)
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
                self._estimates[name] = estimate(runs, noise=self.seed_noise(*name), share=self._share)
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
    ) -> Comparison | None:
        """first minus second on the same questions, over the seeds that both have. None where one has no value."""
        name = ((first, latents[0]), (second, latents[1]), column, protocol)
        if name not in self._pairs:
            try:
                a = self.found(first, column, protocol, latents[0])
                b = self.found(second, column, protocol, latents[1])
            except Unmeasured:
                return None
            left, right = common_seeds([a, b])
            self._pairs[name] = compare(left, right, noise=self.difference_noise(*name), share=self._share)
        return self._pairs[name]

    def contrast(self, weights: Mapping[str, float], column: str, protocol: Protocol = "paper") -> Comparison | None:
        """The weighted sum of several rows. None where one has no value.

        Where rows share a training, the noise is what these seeds show of the sum itself: what rows share cancels in it.
        """
        try:
            found = {row: self.found(row, column, protocol) for row in weights}
        except Unmeasured:
            return None
        runs = dict(zip(found, common_seeds(list(found.values())), strict=True))
        column_noise = self.column_noise(next(iter(weights)), column, protocol, "own")
        recipes = [self.run(row, column, protocol, "own") for row in weights]
        trained = [run for run in recipes if run is not None]
        shared = len(frozenset().union(*(run.trainings for run in trained))) < sum(len(run.trainings) for run in trained)
        noise = None
        if column_noise is not None and trained and not shared:
            parts = [(weights[row], column_noise.row(run.recipe)) for row, run in zip(weights, recipes) if run is not None]
            noise = SeedNoise.combined([(weight, one) for weight, one in parts if one is not None])
        return contrast([(weight, runs[row]) for row, weight in weights.items()], noise=noise, share=self._share)

    def run(self, row: str, column: str, protocol: Protocol, latents: str) -> Run | None:
        """The row's evaluation without its seed. None for a model that is not trained here."""
        found = self.evaluations(row, column, protocol, latents)
        return Run.of(found[0].job) if found else None

    def column_noise(self, row: str, column: str, protocol: Protocol, latents: str) -> ColumnNoise | None:
        """Of all trainings that answered this row's questions; its answers are read as the row's are."""
        run = self.run(row, column, protocol, latents)
        if run is None:
            return None
        extract = self.arms[row].extract
        name = (run.column, column, extract, latents)
        if name not in self._noise:
            spec = self.columns[column]
            benchmark, score = self.study.benchmarks[spec.benchmark], self.score(column)
            runs = self.trainings.runs.get(run.column, ())

            def mean(one: Run) -> float | None:
                return self.reader.mean(Evaluation(one.job, one.seed, protocol, latents), benchmark, spec.score, extract, self.metric)

            try:
                n = len(self.found(row, column, protocol, latents).runs[0])
            except Unmeasured:
                n = score.n
            self._noise[name] = ColumnNoise.read(runs, latents, mean, 1 / n if self._share else 0.0)
        return self._noise[name]

    def seed_spread(self, column: str, protocol: Protocol = "paper") -> dict[str, float]:
        """Row -> standard deviation between its seeds' means, in points; rows with two seeds or more, equal runs once."""
        found: dict[tuple[str, ...], tuple[str, float]] = {}
        for row, arm in self.arms.items():
            value = self.estimate(row, column, protocol) if arm.row.stages else None
            if value is not None and value.seed_sd is not None:
                jobs = tuple(e.job.key for e in self.evaluations(row, column, protocol, "own"))
                found.setdefault(jobs, (row, 100 * value.seed_sd))
        return dict(found.values())

    def seed_noise(self, row: str, column: str, protocol: Protocol = "paper", latents: str = "own") -> SeedNoise | None:
        """Of one seed of a row, moderated by the column; for a row of one seed the column's. None where nothing is known, and
        for a model that is not trained here."""
        noise, run = self.column_noise(row, column, protocol, latents), self.run(row, column, protocol, latents)
        return None if noise is None or run is None else noise.row(run.recipe)

    def difference_noise(
        self, first: tuple[str, str], second: tuple[str, str], column: str, protocol: Protocol = "paper"
    ) -> SeedNoise | None:
        """Of one seed of first minus second, each a row and a latents mode. None: the two are judged by their own seeds."""
        a, b = (self.run(row, column, protocol, latents) for row, latents in (first, second))
        if a is None or b is None:  # the noise is that of the side that was trained
            row, latents = second if a is None else first
            return self.seed_noise(row, column, protocol, latents)
        noise = self.column_noise(first[0], column, protocol, first[1])
        assert noise is not None
        if first[1] == second[1]:
            return noise.difference(a.recipe, b.recipe)
        other = self.column_noise(second[0], column, protocol, second[1])
        return change(noise, other, a.recipe) if other is not None and a.recipe == b.recipe else None

    def same_run(self, first: str, second: str, column: str, protocol: Protocol = "paper") -> bool:
        """Whether both cells are made of the same jobs."""
        a, b = (self.evaluations(row, column, protocol, "own") for row in (first, second))
        return bool(a) and {e.job.key for e in a} == {e.job.key for e in b}

    def reported(self, row: str, column: str) -> Reported | None:
        """The paper's value; None if it prints none."""
        arm = self.arms.get(row)
        if arm is None or not arm.row.reported:
            return None
        names = [c.name for c in self.study.experiment.columns]
        value = arm.row.reported[names.index(column)]
        return None if value.missing else value

    def trained(self, row: str) -> bool:
        """Whether the row's model is trained here, so that another seed would give another one."""
        return row in self.arms and bool(self.arms[row].row.stages)

    def measured_rows(self, column: str, protocol: Protocol = "paper") -> tuple[str, ...]:
        return tuple(label for label in self.arms if self.estimate(label, column, protocol) is not None)

    def job_ref(self, job: Job, seed: int | None) -> JobRef:
        folder = self.store.folder(job)
        winner = self.store.winner(job)
        newest = winner or next(reversed(self.store.attempts(job)), None)
        log = os.path.relpath(newest.path / "log", self.out_dir) if newest else ""
        samples = winner.out / "samples.jsonl" if winner and kind_of(job.kind).answers else None
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
