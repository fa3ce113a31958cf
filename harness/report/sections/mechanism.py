"""Whether an arm uses its latents, and what they hold: accuracy with other latents, and the training job's probe numbers."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from typing import Any

from harness.report.numbers.measure import Unmeasured
from harness.report.numbers.results import Results
from harness.report.numbers.study import Arm
from harness.report.sections.tables import difference_cell, scale_word
from harness.report.sections.types import Cell, Column, Table, TableRow
from harness.report.sections.words import (
    MINUS,
    interval,
    listed,
    p_value,
    percent,
    scaled,
    share,
)
from harness.spec.benchmark import Protocol
from harness.stats import Comparison, holm
from models.methods.registry import STAGES

PROBE: dict[str, tuple[str, str]] = {name: words for stage in STAGES.values() for name, words in stage.readings.items()}
"""Name in diagnostics.json -> heading and its group. Everything else found there stands in a table of its own."""

GENERAL = (
    "Instance std: how much a latent differs between boxes; 0 is collapse to a constant. Cosine of Z_T: between two "
    "boxes; 1 is collapse. Cosines with H are centred: the mean is taken off first, because a shared constant alone "
    "gives a cosine near 1. Attention in the box is to "
    "be read against the box's share of the image. Fed Z_T: the slots hold the teacher's latents of the true box; "
    "free: the model's own states, as in decoding. Exposure gap: distance between the two runs' states, in units of "
    "their spread over questions: 0 is none, about 1 is as far apart as different questions."
)
"""Under the table of probes: its readings in words, but for the means that a stage explains itself."""

REPLACED = {
    "zeroed": "by zeros",
    "noise": "by noise of the own latents' norm",
    "shuffled": "by another question's",
}


def replaced(results: Results, mode: str) -> str:
    """What replaces the latents, in words."""
    if mode == "oracle":
        return listed(oracles(results), "or")
    return REPLACED[mode]


def oracles(results: Results) -> list[str]:
    """What `latents: oracle` feeds to the arms that are decoded with it, in words."""
    arms = [arm for arm in results.arms.values() if any(e.latents == "oracle" for found in arm.evaluations.values() for e in found)]
    stages = [[STAGES[kind] for kind in arm.row.stages or () if STAGES[kind]().slots(1).of != "none"] for arm in arms]
    return list(dict.fromkeys(own[-1].oracle_words for own in stages if own))


def latent_modes(results: Results, protocol: Protocol = "paper") -> tuple[str, ...]:
    """The modes that were planned beside `own`, in the profile's order."""
    found = {
        e.latents: None for arm in results.arms.values() for es in arm.evaluations.values() for e in es if e.protocol == protocol
    }
    order = ["zeroed", "noise", "shuffled", "oracle"]
    return tuple(sorted((m for m in found if m != "own"), key=lambda m: order.index(m) if m in order else len(order)))


def latent_tests(results: Results) -> dict[tuple[str, str, str], tuple[Comparison, float]]:
    """(row, column, mode) -> mode minus own on the same questions, with Holm's p over all of them."""
    tested = {
        (row, column, mode): comparison
        for column in results.columns
        for row, arm in results.arms.items()
        if arm.row.delta is None
        for mode in latent_modes(results)
        if (comparison := results.pair(row, row, column, latents=(mode, "own"))) is not None
    }
    return dict(zip(tested, zip(tested.values(), holm([c.p for c in tested.values()]))))


def flipped(comparison: Comparison) -> float:
    """Share of answers that turn from right to wrong or back: accuracy hides it where gains and losses cancel."""
    return (comparison.gained + comparison.lost) / (comparison.n * comparison.seeds)


def replaced_rows(results: Results, protocol: Protocol = "paper") -> list[str]:
    """Rows that are decoded with other latents too; the others have none, or are not run."""
    return [
        label
        for label, arm in results.arms.items()
        if any(e.latents != "own" and e.protocol == protocol for found in arm.evaluations.values() for e in found)
    ]


def latent_table(results: Results) -> Table | None:
    """Per column and arm: accuracy with its own latents, and what replacing them changes."""
    modes = latent_modes(results)
    if not modes:
        return None
    tested = latent_tests(results)
    shown = replaced_rows(results)
    others = [n for n, arm in results.arms.items() if n not in shown and arm.row.delta is None and not (arm.silent or arm.undefined)]
    columns = [Column("own", "accuracy")] + [Column(mode, "change when the latents are") for mode in modes]
    rows = []
    replaced_on = [name for name in results.columns if any(results.planned(name, "paper", mode) for mode in modes)]
    left_out = [results.title(name) for name in results.columns if name not in replaced_on]
    for name in replaced_on:
        for label in shown:
            own = results.estimate(label, name)
            if own is None:
                cells = [_missing(results, label, name, "own")] + [Cell("–", tone="muted") for _ in modes]
            else:
                cells = [Cell(percent(own.mean), 100 * own.mean, interval(own.interval), scaled(own.interval), n=own.n)]
                cells += [_mode_cell(results, label, name, mode, tested) for mode in modes]
            rows.append(TableRow(label, tuple(cells), group=results.title(name)))
    return Table(
        "latents",
        "Accuracy with the row's own latents, and the paired change in points (95 % interval) when the S latent inputs "
        f"are replaced: {listed([replaced(results, mode) for mode in modes], 'or')}{scale_word(results)}.",
        tuple(columns),
        tuple(rows),
        stub="Row",
        notes=(
            *([f"Without latent steps, so not among these rows: {listed(others)}."] if others else []),
            *([f"The profile does not ask for replaced latents on {listed(left_out)}."] if left_out else []),
            *_on_some_seeds(results),
            ("Flip: share of single answers that turn right or wrong; gains and losses may cancel. Bold: p ≤ 0.05 after Holm "
            "over the whole table. If zeroing or shuffling shows no change, the interval gives the largest dependence that could have "
            "been missed; where all Z_T are nearly one vector, shuffling cannot show more. If oracle is far above own, the model could use "
            "good latents but does not produce them."),
        ),
    )


def _on_some_seeds(results: Results, protocol: Protocol = "paper") -> tuple[str, ...]:
    """A note where the profile replaces latents for a part of the seeds only."""
    planned = [e for arm in results.arms.values() for es in arm.evaluations.values() for e in es if e.protocol == protocol]
    own, others = ({e.seed for e in planned if (e.latents == "own") == wanted} for wanted in (True, False))
    if others >= own:
        return ()
    return (f"Latents are replaced for {len(others)} of {len(own)} seeds; changes are within those.",)


def _mode_cell(
    results: Results, row: str, column: str, mode: str, tested: Mapping[tuple[str, str, str], tuple[Comparison, float]]
) -> Cell:
    if (row, column, mode) not in tested:
        return _missing(results, row, column, mode)
    comparison, adjusted = tested[row, column, mode]
    value = results.estimate(row, column, latents=mode)
    assert value is not None
    return difference_cell(
        comparison,
        f"{mode}: {percent(value.mean)} {interval(value.interval)}; Holm p = {p_value(adjusted)}",
        beside=f" · flip {share(flipped(comparison))}",
        adjusted=adjusted,
        jobs=results.jobs(row, column, "paper", mode),
    )


def _missing(results: Results, row: str, column: str, mode: str) -> Cell:
    try:
        results.found(row, column, latents=mode)
    except Unmeasured as problem:
        if "no evaluation is planned" in str(problem) and mode != "own":
            return Cell("–", note="the arm has no latents", tone="muted")
        return Cell(problem.state, note=str(problem), tone="warning")
    return Cell("–", tone="muted")


def probe(results: Results, arm: Arm) -> list[Mapping[str, Any]]:
    """diagnostics.json of the arm's final training, one per seed that is done."""
    found = []
    for _, job in sorted(arm.trainings().items()):
        if results.store.is_done(job):
            path = results.store.outputs(job) / "diagnostics.json"
            if path.is_file():
                found.append(json.loads(path.read_text()))
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Finite numbers by dotted name; texts and lists are left to the file."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            found[prefix + name] = float(value)
    return found


def probe_table(results: Results) -> Table | None:
    """What the latents hold: the training jobs' own numbers on their held-out probe set."""
    by_arm = {row: found for row, found in probes(results).items() if any(name in PROBE for one in found for name in one)}
    named = {row: {name: words for name, words in _readings(results, row).items() if any(name in one for one in found)} for row, found in by_arm.items()}
    columns = [(name, words) for name in PROBE for words in dict.fromkeys(own[name] for own in named.values() if name in own)]
    groups = list(dict.fromkeys(group for _, (_, group) in columns))
    columns.sort(key=lambda column: groups.index(column[1][1]))
    names = {name for name, _ in columns}
    if {"teacher_fed.box_area", "free_running.box_area"} <= names:
        columns = [column for column in columns if column[0] != "free_running.box_area"]  # the same boxes
    if not columns:
        return None
    spread = any(len(found) > 1 for found in by_arm.values())
    means = [(name, own[name]) for stage in STAGES.values() if (own := stage.readings) for name in stage.means if name in own]
    return Table(
        "probe",
        "What the latents hold, on a held-out probe set at the end of training"
        + (" (± standard deviation between seeds)" if spread else "")
        + f"{scale_word(results)}.",
        tuple(Column(*words) for _, words in columns),
        tuple(
            TableRow(row, tuple(_probe_cell(by_arm[row] if own.get(name) == words else [], name) for name, words in columns))
            for row, own in named.items()
        ),
        stub="Row",
        notes=(
            *([GENERAL] if set(columns) - set(means) else []),
            *dict.fromkeys(
                stage.reading_note
                for stage in STAGES.values()
                if stage.reading_note and any((name, stage.readings.get(name)) in columns for name in stage.means)
            ),
        ),
    )


def _readings(results: Results, row: str) -> Mapping[str, tuple[str, str]]:
    """What the numbers of a row's last stage are called: stages may give one name to different things."""
    stages = results.arms[row].row.stages
    return PROBE | dict(STAGES[stages[-1]].readings) if stages else PROBE


def probe_details(results: Results) -> Table | None:
    """The probe's other numbers, under their own names."""
    by_arm = probes(results)
    found = [name for arm in by_arm.values() for one in arm for name in one if name not in PROBE]
    names = sorted(dict.fromkeys(found))
    if not names:
        return None
    turned = tuple(
        TableRow(name, tuple(_probe_cell(found, name) for found in by_arm.values())) for name in names
    )
    return Table(
        "probe-details", "Other numbers of the probe.", tuple(Column(label) for label in by_arm), turned, stub="Number"
    )


def probes(results: Results) -> dict[str, list[dict[str, float]]]:
    """Row -> numbers by name, one dictionary a seed."""
    return {
        label: found
        for label, arm in results.arms.items()
        if arm.row.delta is None and (found := [numbers(values) for values in probe(results, arm)])
    }


def numbers(diagnostics: Mapping[str, Any]) -> dict[str, float]:
    """The probe's numbers by their own names, then what else the file counts; times are no result."""
    rest = {name: value for name, value in diagnostics.items() if name not in ("probe", "seconds")}
    return flat(diagnostics.get("probe", {})) | flat(rest)


def _probe_cell(found: list[dict[str, float]], name: str) -> Cell:
    values = [one[name] for one in found if name in one]
    if not values:
        return Cell("–", note="not defined for this arm", tone="muted")
    mean = statistics.fmean(values)
    if all(value == int(value) for value in values) and abs(mean) >= 1:
        text = f"{mean:,.0f}"  # a count
    else:
        text = f"{mean:.3f}".replace("-", MINUS) if f"{mean:.3f}" != "-0.000" else "0.000"
    spread = f"±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return Cell(text, mean, spread)
