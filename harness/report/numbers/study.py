"""What a report is about: the rows of an experiment with the jobs that answer for them. Light: no numbers, no pandas."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs import Job
from harness.plan.jobs import has_latents
from harness.plan.registration import content_of, name_of, standing
from harness.spec.benchmark import Benchmark, Protocol
from harness.spec.experiment import Column, Experiment, Row
from harness.spec.files import EXPERIMENTS, REPOSITORY, LoadedExperiment, written_in
from harness.spec.profile import Profile
from harness.spec.resolve import Value

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.plan.plan import Cell
    from harness.store import Store


BASE = "Base model"
"""The label of the checkpoint that training starts from, where it is measured beside the rows."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation job. protocol "paper" or "stock"; latents "own", "zeroed", …"""

    job: Job
    seed: int
    protocol: Protocol = "paper"
    latents: str = "own"

    @property
    def training(self) -> Job | None:
        """The job that made the checkpoint; None for a checkpoint that was given."""
        checkpoint = self.job.inputs.get("checkpoint")
        return checkpoint if isinstance(checkpoint, Job) else None


@dataclass(frozen=True)
class Arm:
    """A row of the table. evaluations: benchmark -> jobs. absent: why none can be run here ("no weights are public"); results
    from when they could be count even so."""

    row: Row
    values: Mapping[str, Value] = field(default_factory=dict)
    evaluations: Mapping[str, tuple[Evaluation, ...]] = field(default_factory=dict)
    absent: str = ""
    undefined: str = ""
    extract: str = "strict"
    latent: bool = False
    """Whether its model opens a latent segment at all."""
    impossible: tuple[str, ...] = ()
    """The parts that cannot be run here, each with the reason."""

    @property
    def label(self) -> str:
        return self.row.label

    def runs(self, benchmark: str, protocol: Protocol = "paper", latents: str = "own") -> tuple[Evaluation, ...]:
        """By seed."""
        found = [e for e in self.evaluations.get(benchmark, ()) if (e.protocol, e.latents) == (protocol, latents)]
        return tuple(sorted(found, key=lambda e: e.seed))

    @property
    def silent(self) -> bool:
        """Whether the row has nothing to show."""
        return bool(self.absent) and not self.evaluations

    def trainings(self) -> dict[int, Job]:
        """Seed -> the job that made the row's final checkpoint."""
        return {e.seed: e.training for es in self.evaluations.values() for e in es if e.training is not None}


@dataclass(frozen=True)
class Study:
    """profile: scale and its name. base: the base model's own evaluations. overrides: `--set` texts.

    left_out: rows and columns that were not asked for. text: what is written in the files behind it, for the fingerprint.
    file: the experiment's, as a person types it.
    """

    name: str
    """The stem of the report's files. What `--set` changed, and a part of a table, never carry the table's own name."""
    experiment: Experiment
    profile: Profile
    profile_name: str
    recipes: tuple[str, ...]
    """Names: the experiment's first, then those of rows that have one of their own."""
    benchmarks: Mapping[str, Benchmark]
    columns: tuple[Column, ...]
    arms: tuple[Arm, ...]
    protocols: tuple[Protocol, ...] = ("paper",)
    base: Mapping[str, tuple[Evaluation, ...]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    file: str = "FILE"
    spec: str = ""
    """The same as reports record it."""
    profile_option: str = ""
    """ " --profile NAME": what a command about it needs, where the profile is not the commands' default."""
    loaded: LoadedExperiment | None = None
    """The experiment's file, for the audit of its printed numbers."""
    registers: tuple[str, Mapping[str, typing.Any]] = ("", {})
    """The name and content of what a run of it registers."""

    @property
    def recipe_text(self) -> str:
        """ "recipe vreflection", "recipes vreflection, visreflect"."""
        return f"recipe{'s' * (len(self.recipes) > 1)} {', '.join(self.recipes)}"

    @property
    def seeds(self) -> int:
        return len(self.registers[1].get("seeds", ()))

    def evaluations(self) -> Iterator[Evaluation]:
        for arm in self.arms:
            for found in arm.evaluations.values():
                yield from found
        for found in self.base.values():
            yield from found

    def jobs(self) -> dict[str, Job]:
        """Every job behind the report, parents included, by key."""
        found: dict[str, Job] = {}
        waiting = [evaluation.job for evaluation in self.evaluations()]
        while waiting:
            job = waiting.pop()
            if job.key not in found:
                found[job.key] = job
                waiting.extend(job.parents)
        return found


def report_name(plan: Plan) -> str:
    """The stem of the report's files."""
    return plan.name + ("-partial" if plan.partial else "")


def typed(path: Path) -> str:
    """A spec's file as a person types it from the project's folder; of one that lies elsewhere the end, which names no machine."""
    whole = path.resolve()
    return str(whole.relative_to(REPOSITORY)) if whole.is_relative_to(REPOSITORY) else "/".join(path.parts[-2:])


def profile_option(path: Path) -> str:
    named = path.stem if path.resolve().parent == EXPERIMENTS / "profiles" else typed(path)
    return "" if named == "proxy" else f" --profile {named}"


def study_of(plan: Plan) -> Study:
    """A plan as reports see it."""
    spec = plan.experiment.value
    arms = []
    by_row: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        by_row.setdefault(cell.row, []).append(cell)
    for resolved in plan.rows:
        cells = by_row.get(resolved.label, [])
        evaluations: dict[str, dict[Evaluation, None]] = {}
        for cell in cells:
            for (seed, latents), job in cell.jobs.items():
                evaluation = Evaluation(job, seed, cell.protocol, latents)
                evaluations.setdefault(cell.column.benchmark, {})[evaluation] = None
        arms.append(
            Arm(
                resolved.row,
                resolved.values,
                {benchmark: tuple(found) for benchmark, found in evaluations.items()},
                next((cell.not_run for cell in cells if cell.not_run), "") if all(c.not_run for c in cells) else "",
                resolved.undefined,
                resolved.options.extract,
                has_latents(resolved),
                tuple(f"{cell.column.benchmark}: {cell.not_run}" for cell in cells if cell.not_run),
            )
        )
    there = {arm.label for arm in arms}
    left_out = [row.label for row in spec.rows if row.label not in there]
    left_out += [column.name for column in spec.columns if column not in plan.columns]
    base = {  # one evaluation stands for every seed, as where the base model is a row
        benchmark: tuple(Evaluation(job, seed, protocol) for protocol, job in by_protocol.items() for seed in plan.seeds)
        for benchmark, by_protocol in getattr(plan, "base", {}).items()
    }
    documents = [plan.experiment.document, plan.profile.document, *plan.recipes]
    documents += [loaded.document for loaded in plan.benchmarks.values()]
    return Study(
        name=report_name(plan),
        experiment=spec,
        profile=plan.profile.value,
        profile_name=plan.profile.name,
        recipes=tuple(recipe.path.stem for recipe in plan.recipes),
        benchmarks={name: loaded.value for name, loaded in plan.benchmarks.items()},
        columns=plan.columns,
        arms=tuple(arms),
        protocols=plan.protocols,
        base=base,
        overrides=tuple(plan.overrides) + (() if plan.own_recipe else (f"--recipe {plan.recipe.path.stem}",)),
        left_out=tuple(left_out),
        text=tuple(repr(document.data) for document in documents),
        file=typed(plan.experiment.document.path),
        spec=written_in(plan.experiment.document.path),
        profile_option=profile_option(plan.profile.document.path),
        loaded=plan.experiment,
        registers=(name_of(plan), content_of(plan)),
    )


def settled(study: Study, store: Store) -> Study:
    """Without the evaluations that cannot be run here and were not run before."""

    def kept(arm: Arm) -> Arm:
        found = {name: tuple(e for e in es if store.is_done(e.job)) for name, es in arm.evaluations.items()}
        return replace(arm, evaluations={name: es for name, es in found.items() if es})

    return replace(study, arms=tuple(kept(arm) if arm.absent else arm for arm in study.arms))


def registered(study: Study, store: Store) -> str:
    """How the study stands to what was registered, in words; "" where there is nothing to register."""
    name, content = study.registers
    return standing(store, name, content).text if content.get("cells") else ""


class Tracking(typing.Protocol):
    """What reports need from the tracker."""

    def links(self, keys: list[str]) -> Mapping[str, str]:
        """Job key -> address of its run, for those that have one. Raises OSError when the tracker is unreachable."""
