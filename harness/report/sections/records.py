"""A report's numbers as plain records, for other programs: cells, comparisons, claims.

Percentages and points throughout; None where there is no number. The same functions serve the JSON and CSV files and
`harness.load`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.report.numbers.families import declared, exploratory
from harness.report.numbers.results import BASE, Results
from harness.report.sections.claims import claims
from harness.report.sections.tables import measured_cell, own_base
from harness.report.sections.types import Cell, Table
from harness.spec.benchmark import Protocol
from harness.spec.claims import describe
from harness.stats import Comparison, Family
from harness.verdict.claims import LEVEL


def records(results: Results) -> dict[str, Any]:
    """What the JSON file holds beside its head."""
    return {
        "cells": list(cells(results)),
        "comparisons": [record for protocol in results.study.protocols for record in comparisons(results, protocol)],
        "claims": list(claim_records(results)),
    }


def claim_records(results: Results) -> Iterator[dict[str, Any]]:
    """What the paper's text claims, judged on the printed and on the regenerated numbers."""
    for reported, regenerated in claims(results):
        claim = reported.claim
        yield {
            "claim": describe(claim),
            "quote": claim.quote,
            "columns": list(results.columns) if claim.on == "all" else list(claim.on),
            "reported": str(reported.outcome),
            "regenerated": str(regenerated.outcome),
            "basis": regenerated.basis,
            "because": regenerated.text,
        }


def cells(results: Results) -> Iterator[dict[str, Any]]:
    """One record for each row, column, protocol and latents mode; a cell without a value says why in "state" and "note"."""
    labels = [*([BASE] if own_base(results) else []), *results.arms]
    for protocol in results.study.protocols:
        best = {column: best_row(results, column, protocol) for column in results.columns}
        for row in labels:
            for column in results.columns:
                if row in results.arms and results.arms[row].row.delta is not None:
                    continue  # a row of differences: see comparisons
                where = {"row": row, "column": column, "title": results.title(column), "protocol": protocol}
                own = measured_cell(results, row, column, protocol)
                yield {**where, "latents": "own", **cell(own), "best_shown": best[column] == row}
                for mode in modes(results, row, column, protocol):
                    value = results.estimate(row, column, protocol, mode)
                    if value is not None:
                        low, high = 100 * value.interval.low, 100 * value.interval.high
                        numbers = {
                            "value": 100 * value.mean,
                            "low": low,
                            "high": high,
                            "n": value.n,
                            "seeds": value.seeds,
                        }
                        keys = [job.key for job in results.jobs(row, column, protocol, mode)]
                        yield {**where, "latents": mode, "state": "measured", **numbers, "jobs": keys}


def modes(results: Results, row: str, column: str, protocol: Protocol) -> list[str]:
    """Latents modes, but for the model's own, under which the cell was evaluated."""
    if row not in results.arms:
        return []
    arm = results.arms[row]
    benchmark = results.columns[column].benchmark
    found = (e.latents for e in arm.evaluations.get(benchmark, ()) if e.protocol == protocol and e.latents != "own")
    return list(dict.fromkeys(found))


def cell(one: Cell) -> dict[str, Any]:
    """What is known about one number."""
    rates = one.rates
    measured = one.value is not None
    return {
        "state": "measured" if measured else one.display,
        "value": one.value,
        "low": one.interval.low if one.interval else None,
        "high": one.interval.high if one.interval else None,
        "n": one.n,
        "clusters": one.clusters,
        "seeds": one.seeds,
        "seed_sd": one.seed_sd,
        "reported": one.reported or None,
        "verdict": str(one.verdict.outcome) if one.verdict else None,
        "verdict_text": one.verdict.text if one.verdict else None,
        "unreadable": rates.unparsed if rates else None,
        "truncated": rates.truncated if rates else None,
        "opened": rates.started if rates else None,
        "note": one.note or None,
        "jobs": [job.key for job in one.jobs],
    }


def best_row(results: Results, column: str, protocol: Protocol) -> str | None:
    """The row that is shown to be above every other one, p after Holm over these at most 0.05; None where none is."""
    rows = [row for row in results.measured_rows(column, protocol) if results.arms[row].row.delta is None]
    if len(rows) < 2:
        return None
    means = {row: value.mean for row in rows if (value := results.estimate(row, column, protocol)) is not None}
    best = max(means, key=means.__getitem__)
    pairs = {row: results.pair(best, row, column, protocol) for row in rows if row != best}
    family = Family({row: pair.p if pair is not None else 1.0 for row, pair in pairs.items()})
    return best if max(family.adjusted.values()) <= LEVEL else None


def comparisons(results: Results, protocol: Protocol) -> Iterator[dict[str, Any]]:
    """The declared ones with their p after Holm, then all other pairs, which have none."""
    tested = declared(results, protocol)
    adjusted = tested.family.adjusted
    for (first, second, column), one in tested.pairs.items():
        yield comparison(
            one,
            {"first": first, "second": second, "column": column, "protocol": protocol},
            adjusted[first, second, column],
        )
    for (trend, column), one in tested.trends.items():
        where = {"trend": list(trend.trend), "shape": trend.shape, "column": column, "protocol": protocol}
        yield comparison(one, where, adjusted[trend, column])
    for (first, second, column), one in exploratory(results, protocol).items():
        yield comparison(one, {"first": first, "second": second, "column": column, "protocol": protocol}, None)


def comparison(one: Comparison, where: Mapping[str, Any], adjusted: float | None) -> dict[str, Any]:
    return {
        **where,
        "declared": adjusted is not None,
        "difference": 100 * one.difference,
        "low": 100 * one.interval.low,
        "high": 100 * one.interval.high,
        "p": one.p,
        "p_holm": adjusted,
        "test": one.test,
        "n": one.n,
        "clusters": one.clusters,
        "seeds": one.seeds,
        "gained": one.gained,
        "lost": one.lost,
    }


def of_tables(tables: Iterable[Table]) -> dict[str, Any]:
    """A report without accuracies (costs, attention): every number of its tables, by table, row and column."""
    found = [
        {
            "table": table.name,
            "row": row.label,
            "column": " ".join(filter(None, (column.group, column.title))),
            "display": one.display,
            **cell(one),
        }
        for table in tables
        if table.name != "jobs"
        for row in table.rows
        for column, one in zip(table.columns, row.cells)
        if one.value is not None
    ]
    return {"cells": found, "comparisons": [], "claims": []}
