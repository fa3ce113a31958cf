"""What the paper's text claims about its table, judged on the reported and on the regenerated numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from harness.report.numbers.families import declared, one_seed
from harness.report.numbers.results import Results
from harness.report.numbers.times import times_of
from harness.report.sections.tables import difference_apart, verdict_on
from harness.report.sections.types import Cell, Column, Table, TableRow, Tone
from harness.report.sections.words import MINUS, listed
from harness.spec.claims import LessTime, MeanDelta, describe
from harness.spec.reported import Reported
from harness.verdict import ClaimResult, Holds, judge_measured, judge_reported
from harness.verdict.claims import Part


def claims(results: Results) -> list[tuple[ClaimResult, ClaimResult]]:
    """Each claim judged on the reported and on the regenerated numbers."""
    study = results.study
    columns = list(results.columns)
    chance = {name: level for name in columns if (level := results.score(name).chance) is not None}
    printed = {
        (row, column): value
        for row in results.arms
        for column in columns
        if (value := results.reported(row, column)) is not None
    }
    rows = [label for label, arm in results.arms.items() if arm.row.delta is None]
    family = declared(results).family
    judged = []
    for number, claim in enumerate(study.experiment.claims, start=1):
        spoken = columns if claim.on == "all" else [name for name in claim.on if name in results.columns]
        if not spoken or any(row not in results.arms for row in claim.rows):
            continue
        narrowed = claim if claim.on == "all" else claim.model_copy(update={"on": tuple(spoken)})
        # Systems that are not run here leave the claim's range; a row that failed does not, or the claim would gain by it.
        run = [row for row in rows if not results.arms[row].silent and not results.arms[row].undefined]
        judged.append(
            (
                judge_reported(narrowed, printed, rows, spoken, chance),
                unless_part(
                    results,
                    judge_measured(
                        narrowed,
                        results.pair,
                        results.estimate,
                        run,
                        spoken,
                        proxy=study.profile.proxy,
                        delta=float(study.experiment.equivalence),
                        against=lambda row, column, points: verdict_on(results, row, column, Reported(text=str(points), value=points)),
                        apart=lambda first, second, column: difference_apart(results, first, second, column),
                        chance=chance,
                        family=family,
                        timed=partial(times_of, results, claim, number) if isinstance(claim, LessTime) else None,
                    ),
                ),
            )
        )
    return judged


def unless_part(results: Results, judged: ClaimResult) -> ClaimResult:
    """A column on whose benchmark only a part was asked says nothing about the paper's claim, nor does a mean over it; but for time,
    which is measured on a few questions anyway."""
    if isinstance(judged.claim, LessTime):
        return judged
    parts = {name: text for name in results.columns if (text := results.part(name))}
    if not any(part.column in parts for part in judged.parts):
        return judged
    mean = isinstance(judged.claim, MeanDelta)
    why = {name: f"part of the benchmark: {text}" for name, text in parts.items()}
    return replace(
        judged,
        parts=tuple(
            Part(part.column, Holds.NOT_JUDGED, why.get(part.column, "the mean needs the other columns whole"))
            if mean or part.column in why
            else part
            for part in judged.parts
        ),
    )


def claim_table(results: Results) -> Table | None:
    judged = claims(results)
    if not judged:
        return None
    scale = " at proxy scale" if results.study.profile.proxy else ""
    tones: dict[Holds, Tone] = {Holds.HOLDS: "strong", Holds.FAILS: "warning", Holds.UNDETERMINED: "plain", Holds.NOT_JUDGED: "muted"}
    rows = []
    only_one = one_seed(results)
    for reported, regenerated in judged:
        claim = reported.claim
        where = "every column" if claim.on == "all" else ", ".join(results.title(name) for name in claim.on)
        absent = any(arm.silent for arm in results.arms.values() if arm.row.delta is None)
        if absent and claim.form in ("best", "worst") and regenerated.outcome is not Holds.NOT_JUDGED:
            suffix = f"{scale}, among the rows run here"
        else:
            suffix = scale
        if only_one and regenerated.outcome in (Holds.HOLDS, Holds.FAILS):
            suffix += ", one seed"
        again = str(regenerated.outcome) + (suffix if regenerated.outcome is not Holds.NOT_JUDGED else "")
        rows.append(
            TableRow(
                f"{describe(claim).replace(' - ', f' {MINUS} ')} ({where})",
                (
                    Cell(f"“{claim.quote}”" if claim.quote else "", note=claim.source),
                    Cell(str(reported.outcome), note=titled(results, reported), tone=tones[reported.outcome]),
                    Cell(again, note=titled(results, regenerated), tone=tones[regenerated.outcome]),
                    Cell(titled(results, regenerated), tone="muted"),
                ),
            )
        )
    columns = ("The paper's words", "on the reported numbers", "on the regenerated numbers", "what that rests on")
    return Table(
        "claims",
        "What the paper's text claims about this table.",
        tuple(Column(title, numeric=False) for title in columns),
        tuple(rows),
        stub="Claim",
    )


def titled(results: Results, result: ClaimResult) -> str:
    """The deciding numbers column by column; if a claim fails or is undetermined, then the columns on which it
    holds."""
    parts = [part for part in result.parts if part.outcome is result.outcome] or result.parts
    text = "; ".join(f"{results.title(part.column)}: {part.text}" for part in parts)
    held = [results.title(part.column) for part in result.parts if part.outcome is Holds.HOLDS]
    if held and result.outcome is not Holds.HOLDS:
        text += f"; it holds on {listed(held)}"
    return re.sub(r"(?<=[ \[])-(?=[ \d])", MINUS, text)  # never a command's options
