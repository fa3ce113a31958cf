"""What a person sees of a report on a terminal."""

from __future__ import annotations

from typing import Any

from harness.cli.screen import screen


def cell(row: str, column: str, value: float | None = 61.24, **more: Any) -> dict[str, Any]:
    interval = {"low": None, "high": None} if value is None else {"low": value - 5, "high": value + 5}
    known = {"row": row, "column": column, "title": column.upper(), "protocol": "paper", "latents": "own", "value": value}
    rest = {"state": "measured" if value is not None else "failed", "reported": "70.9", "verdict": "proxy", "best_shown": False}
    return {**known, **interval, **rest, **more}


def report(cells: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"table": "Table 9", "title": "A title", "subtitle": "profile p", "warning": "", "conclusion": "word " * 60, "headline": []}
    return {**head, "cells": cells, **more}


def test_no_line_is_longer_than_the_terminal_and_no_column_is_lost():
    names = [f"column{n}" for n in range(9)]
    cells = [cell(row, name) for row in ("short", "a row with a label that is very long indeed, too long") for name in names]
    text = screen(report(cells), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(name.upper() in text for name in names)
    assert text.count("61.2 [56.2, 66.2]") == 18


def test_a_cell_without_a_value_says_why_and_the_best_row_has_a_star():
    text = screen(report([cell("a", "mmvp", best_shown=True), cell("b", "mmvp", None)]), width=100)
    assert "61.2 [56.2, 66.2]*" in text and "failed" in text


def test_only_the_papers_protocol_and_the_models_own_latents_are_shown():
    others = [cell("a", "mmvp", 11.0, protocol="stock"), cell("a", "mmvp", 22.0, latents="zeroed")]
    text = screen(report([cell("a", "mmvp"), *others]), width=100)
    assert "11.0" not in text and "22.0" not in text


def test_a_verdict_stands_beside_the_papers_value_where_the_scale_allows_one():
    text = screen(report([cell("a", "mmvp", verdict="consistent"), cell("b", "mmvp")]), width=100)
    assert "70.9 consistent" in text and "proxy" not in text


def test_a_report_without_accuracies_shows_its_first_table():
    cells = [
        {"table": "cost", "row": "S = 8", "column": "latency", "display": "1.3 s", "value": 1.3},
        {"table": "other", "row": "x", "column": "y", "display": "no", "value": 1},
    ]
    text = screen(report(cells, headline=["Measured on one core."]), width=100)
    assert "1.3 s" in text and "Measured on one core." in text and "no" not in text.split("latency")[1]


def test_a_report_of_nothing_is_its_words():
    assert screen(report([]), width=100).startswith("Table 9: A title\nprofile p\n")
