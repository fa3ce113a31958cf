"""Rows compared: what the table declares, with what it could have shown, and every other pair."""

from __future__ import annotations

import math

from harness.report.numbers.families import Tested, declared, exploratory, reach, uncompared
from harness.report.numbers.results import Results
from harness.report.sections.tables import difference_cell, scale_word
from harness.report.sections.types import Cell, Column, Table, TableRow
from harness.report.sections.words import MINUS, count, listed, p_value, scaled, signed, signed_interval
from harness.spec.benchmark import Protocol
from harness.spec.comparisons import MOST_ROWS
from harness.stats import Comparison


def declared_table(results: Results, protocol: Protocol = "paper") -> Table | None:
    """Every declared comparison, a line each, with the reach of each column under them."""
    tested = declared(results, protocol)
    if not tested.size:
        return None
    adjusted = tested.family.adjusted
    found = {(f"{a} {MINUS} {b}", column): (c, adjusted[a, b, column]) for (a, b, column), c in tested.pairs.items()}
    for (trend, column), comparison in tested.trends.items():
        ends = f"{trend.trend[0]} to {trend.trend[-1]}"
        label = f"trend from {ends}" if trend.shape == "line" else f"bend from {ends} (middle {MINUS} ends)"
        found[label, column] = comparison, adjusted[trend, column]
    columns = results.columns_under(protocol)
    rows = [
        TableRow(label, tuple(pair_cell(*found[label, name]) if (label, name) in found else Cell("–", tone="muted") for name in columns))
        for label in dict.fromkeys(label for label, _ in found)
    ]
    example = next(iter(tested.pairs), None)
    return Table(
        f"declared-{protocol}",
        f"The comparisons that this table declares, in points with the uncorrected 95 % interval; p after Holm over these "
        f"{count(tested.size, 'test')}, bold where it is at most 0.05{scale_word(results)}.",
        tuple(Column(results.title(name)) for name in columns),
        tuple(rows),
        stub="Comparison",
        notes=(
            *seed_notes(results, tested),
            *reach_notes(results, tested, protocol),
            *(["The answers of two rows to the questions on which they differ, with the pictures:"] if example else []),
        ),
        command=f'run.py samples {results.study.file} "{example[0]}" "{example[1]}"{results.study.profile_option}' if example else "",
    )


def reach_notes(results: Results, tested: Tested, protocol: Protocol = "paper") -> list[str]:
    """What this report could have shown, before anything is read from it."""
    found = {results.title(name): one for name in results.columns if (one := reach(results, name, tested, protocol)) is not None}
    if not found:
        return []
    single = all(comparison.seeds == 1 for comparison in tested.pairs.values())
    whose = "between these trained models" if single else "between recipes"
    said = listed([gap(one.shown, title) for title, one in found.items()])
    lines = [
        f"Smallest difference that a comparison would have shown four times in five, {whose}, among {count(tested.size, 'test')}: {said}."
    ]
    if single:
        known = [gap(one.recipes, title) for title, one in found.items() if one.recipes is not None]
        lines.append(
            f"Between recipes, with the seed noise of the column's other trainings: {listed(known)}."
            if known
            else "Between recipes it is unknown: nothing in the store has two seeds on these questions."
        )
    return lines


def gap(points: float, title: str) -> str:
    """Two shares differ by 100 points at most."""
    return f"{points:.1f} points on {title}" if points <= 100 else f"none of any size on {title}"


def seed_notes(results: Results, tested: Tested) -> list[str]:
    """Where seeds are missing: a pair is compared over the seeds that both have, so that its difference need not be that of
    the two means, and over one seed it says nothing of recipes, whatever the other pairs rest on."""
    most = max(comparison.seeds for comparison in (*tested.pairs.values(), *tested.trends.values()))
    by_seeds: dict[int, list[str]] = {}
    for (first, second, column), comparison in tested.pairs.items():
        if comparison.seeds < most:
            by_seeds.setdefault(comparison.seeds, []).append(f"{first} {MINUS} {second} on {results.title(column)}")
    return [
        f"Over {count(seeds, 'seed')} that both rows have, not {most}"
        f"{'; the difference, its interval and p are of these trained models, not of recipes' if seeds == 1 else ''}: {listed(pairs)}."
        for seeds, pairs in sorted(by_seeds.items())
    ]


def pair_cell(comparison: Comparison, adjusted: float) -> Cell:
    exact = f"McNemar exact p = {p_value(comparison.p_mcnemar)}; " if comparison.p_mcnemar is not None else ""
    note = f"{exact}{comparison.test} p = {p_value(comparison.p)} uncorrected; gained {comparison.gained}, lost {comparison.lost}"
    return difference_cell(comparison, note, beside=f" p {p_value(adjusted).replace('<', '< ')}", adjusted=adjusted)


def uncompared_note(results: Results, protocol: Protocol = "paper") -> list[str]:
    """What to do where not every pair is compared."""
    if not (rows := uncompared(results, protocol)):
        return []
    pairs = f"{rows:,} rows make {math.comb(rows, 2):,} pairs in each column"
    return [f"Not compared: {pairs}. Name those that matter under comparisons: in the experiment; up to {MOST_ROWS} rows all are compared."]


def exploratory_table(results: Results, protocol: Protocol = "paper") -> Table | None:
    """Every pair that the table does not declare."""
    tested = exploratory(results, protocol)
    if not tested:
        return None
    rows = [
        TableRow(
            f"{first} {MINUS} {second}",
            (
                Cell(signed(c.difference), 100 * c.difference, signed_interval(c.interval), scaled(c.interval), n=c.n, seeds=c.seeds),
                Cell(f"{c.gained} / {c.lost}"),
                Cell(p_value(c.p), c.p),
            ),
            group=results.title(name),
        )
        for name in results.columns
        for (first, second, column), c in tested.items()
        if column == name
    ]
    return Table(
        f"exploratory-{protocol}",
        f"Exploratory: {count(len(tested), 'pair')} that the table does not declare, in points with 95 % interval and p, neither "
        f"corrected; of 20 equal pairs one has p ≤ 0.05 by chance{scale_word(results)}.",
        (Column("difference"), Column("gained / lost", numeric=False), Column("p, uncorrected")),
        tuple(rows),
        stub="Pair",
        notes=("Gained / lost: questions that only the first, only the second row answers right (summed over seeds).",),
    )
