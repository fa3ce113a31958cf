"""Claims about time: the rounds of the job that timed the two rows, and on what they rest."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from harness.plan.plan import time_column
from harness.report.numbers.results import Results
from harness.spec.claims import LessTime
from harness.verdict.claims import Times


def times_of(results: Results, claim: LessTime, number: int, column: str) -> Times | str:
    """The times for the table's claim of this number, from 1, or why there are none."""
    name = time_column(number, results.columns[column].benchmark)
    arm = results.arms[claim.less_time]
    if not (runs := arm.runs(name, results.study.experiment.protocol)):
        return next((text.partition(": ")[2] for text in arm.impossible if text.startswith(f"{name}: ")), "no job is planned")
    job = runs[0].job
    if not results.store.is_done(job):
        return results.reader.why(job)[1]
    try:
        found = json.loads((results.store.outputs(job) / "measure.json").read_text())
        return _times(found)
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        return f"{job.name}: measure.json cannot be read ({error!r})"


def _times(found: dict[str, Any]) -> Times | str:
    ways, n = found["ways"], found["questions"]
    row, predicted, used = ways["row"], ways["zooming"], ways.get("given", ways["zooming"])
    if used["whole"] == n:
        return f"none of {n} clips could be cut, so that nothing zoomed"

    def ratios(zooming: dict[str, Any]) -> tuple[float, ...]:
        found = tuple(own / other for own, other in zip(row["seconds"], zooming["seconds"], strict=True))
        if not found or not all(0 < ratio < float("inf") for ratio in found):
            raise ValueError("no times")
        return found

    def tokens(what: str) -> str:
        return f"{row[what] / n:.0f} against {used[what] / n:.0f}"

    rest = f"the median and the range of {len(row['seconds'])} rounds of {n} questions"
    if "given" in ways:
        rest += (
            f"; zooming named no usable span for {predicted['whole']} of them and is timed with the middle half of the clip there"
            f" (as it answers, so that these are asked once more but not zoomed: {100 * (1 - median(ratios(predicted))):.0f} % less time)"
        )
    rest += f"; tokens a question: {tokens('read')} read, {tokens('encoded')} encoded, {tokens('said')} decoded; measured on {found['device']}"
    if found["unreadable"]:
        rest += f"; {found['unreadable']} questions are left out, as their clips cannot be read"
    return Times(ratios(used), rest)
