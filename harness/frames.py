"""Results as pandas DataFrames, for notebooks:

    from harness import load
    table = load("results").table("3c")
    table.frame()                                   # a line for each cell, with its interval
    table.samples("Two-stage (Ours)", "mmvp")       # a line for each question
    table.curves("Two-stage (Ours)")                # a line for each logged step of its trainings

The numbers are those of the reports, by the same functions. Nothing is run and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs import Job, trainings
from harness.spec.errors import SpecError, meant, unknown

if TYPE_CHECKING:
    import pandas as pd

    from harness.plan import Plan
    from harness.report.numbers.results import Results
    from harness.report.numbers.study import Evaluation
    from harness.store import Store


def load(results: str | Path = "results") -> Stored:
    """A results folder. Raises FileNotFoundError when there is none."""
    if not Path(results).is_dir():
        raise FileNotFoundError(f"{results}: no results folder; `python run.py experiments/table3c.yaml` makes one")
    return Stored(Path(results))


class Stored:
    """A results folder to ask for tables."""

    def __init__(self, root: Path) -> None:
        from harness.store import Store

        self.store: Store = Store(root)

    def table(self, name: str, profile: str = "proxy", seeds: int | None = None, recipe: str | None = None) -> TableFrames:
        """name: as the paper calls it ("3c", "4"), the spec's file name ("table3c"), or a path. Raises SpecError with near names."""
        from harness.plan import plan_experiment

        plan = plan_experiment(experiment(name), profile, seeds=seeds, recipe=recipe, digests=self.store.root / ".digests.json")
        return TableFrames(plan, self.store)


def experiment(name: str) -> Path:
    """The spec's file."""
    from harness.spec.files import EXPERIMENTS, load_experiment

    if name.endswith((".yaml", ".yml")) or os.sep in name:
        return Path(name)
    named = {path.stem: path for path in sorted(EXPERIMENTS.glob("*.yaml"))}
    if name not in named:
        named |= {load_experiment(path).value.name: path for path in named.values()}
    if name not in named:
        raise SpecError(unknown(f'no experiment "{name}"', name, list(named), "experiments"))
    return named[name]


class TableFrames:
    """One experiment under one profile, as it stands in the store."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store

    @cached_property
    def _results(self) -> Results:
        from harness.report.numbers.results import Results
        from harness.report.numbers.study import settled, study_of

        return Results(settled(study_of(self.plan), self.store), self.store, Path("."))

    def frame(self) -> pd.DataFrame:
        """A line for each row, column, protocol and latents mode: value, low, high in percent (95 %), n, seeds, reported, …; where
        there is no value, `state` says why. The columns are those of the report's CSV (`harness.report.writers.machine`)."""
        import pandas as pd

        return pd.DataFrame(self.cells())

    def cells(self) -> list[dict]:
        """The lines of `frame`, as a report's JSON has them."""
        from harness.report.sections.records import cells

        return list(cells(self._results))

    def comparisons(self) -> pd.DataFrame:
        """A line for each pair of rows: difference, low, high in points, p, p_holm (of declared pairs), …"""
        import pandas as pd

        from harness.report.sections.records import comparisons

        return pd.DataFrame([one for protocol in self.plan.protocols for one in comparisons(self._results, protocol)])

    def samples(self, row: str, column: str, protocol: str = "paper", latents: str = "own") -> pd.DataFrame:
        """A line for each question and seed, as samples.jsonl has them; the base model, which has no seeds, was asked once. Raises SpecError for an unknown name, and LookupError when
        nothing of the cell is done."""
        import pandas as pd

        row, column = self._named(row, self._measured, "row"), self._named(column, [c.name for c in self.plan.columns], "column")
        frames = []
        asked: dict[str, Evaluation] = {}
        for evaluation in self._results.evaluations(row, column, protocol, latents):  # type: ignore[arg-type]
            asked.setdefault(evaluation.job.key, evaluation)
        for evaluation in asked.values():
            if self.store.is_done(evaluation.job):
                lines = pd.read_json(self.store.outputs(evaluation.job) / "samples.jsonl", lines=True, dtype=False)
                frames.append(lines.assign(seed=evaluation.seed))
        if not frames:
            raise LookupError(f"{row} / {column} ({protocol}, latents {latents}): nothing is done")
        return pd.concat(frames, ignore_index=True)

    def curves(self, row: str) -> pd.DataFrame:
        """A line for each logged step of the row's trainings: stage, seed, step, total, and the logged values. Raises as `samples`."""
        import pandas as pd

        row = self._named(row, self._rows, "row")
        lines = [
            {"stage": job.payload["stage"]["kind"], "seed": seed, "step": line["step"], "total": line["total"], **line["values"]}
            for seed, last in self.plan.checkpoints.get(row, {}).items()
            for job in trainings(last)
            for line in logged(self.store, job)
        ]
        if not lines:
            raise LookupError(f"{row}: no training of it has logged anything here")
        return pd.DataFrame(lines)

    @property
    def _rows(self) -> list[str]:
        return [row.label for row in self.plan.rows]

    @property
    def _measured(self) -> list[str]:
        """The rows, and the base model where a report shows it beside them."""
        from harness.report.numbers.results import BASE
        from harness.report.sections.tables import own_base

        return [*self._rows, *([BASE] if own_base(self._results) else [])]

    def _named(self, name: str, known: list[str], what: str) -> str:
        found = meant(name, known)
        if len(found) != 1:
            raise SpecError(unknown(f'no {what} "{name}"', name, known, f"{what}s"))
        return found[0]

    def __repr__(self) -> str:
        return f"<{self.plan.name}, profile {self.plan.profile.name}: {len(self._rows)} rows, {len(self.plan.columns)} columns>"


def logged(store: Store, job: Job) -> Iterator[dict]:
    """The lines of a job's metrics, each step once: a later attempt went on from an earlier one's checkpoint."""
    from harness.store.files import read_lines

    by_step: dict[int, dict] = {}
    for attempt in store.attempts(job):
        for line in read_lines(attempt.metrics)[0]:
            by_step[line["step"]] = line
    yield from (by_step[step] for step in sorted(by_step))
