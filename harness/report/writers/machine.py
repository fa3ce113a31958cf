"""A report's numbers for other programs: JSON with everything, CSV with a line for each cell.

JSON: {"format", "stamp", "table", "title", "subtitle", "profile", "paper", "conclusion", "headline", "warning", "cells", "comparisons",
"claims"}. A cell: row, column, title, protocol, latents; state ("measured", or why there is no value), value, low, high (percent,
95 %), n questions in so many clusters, seeds, seed_sd (points), reported (the paper's text), verdict, verdict_text; unreadable,
truncated, opened (shares of the answers, 0 to 1); note; jobs (keys); best_shown (whether the row is shown to be above all others).
Of a report without
accuracies a cell is a number of one of its tables: table, row, column, display, value, … A comparison: first, second (or trend, shape), column, protocol, declared, difference, low, high (points), p, p_holm (declared ones
only), test, n, clusters, seeds, gained, lost. A claim: claim, quote, columns, reported, regenerated, basis, because.
"""

from __future__ import annotations

import json

from harness.report.numbers.fingerprint import STAMP
from harness.report.sections.types import Report

FORMAT = 1


def as_json(report: Report) -> str:
    head = {
        "format": FORMAT,
        "stamp": f"{STAMP} {report.fingerprint}",
        "table": report.label,
        "title": report.title,
        "subtitle": report.subtitle,
        "profile": report.profile,
        "paper": report.paper,
        "conclusion": report.conclusion,
        "headline": list(report.headline),
        "warning": report.warning,
    }
    return json.dumps({**head, **report.data}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(report: Report) -> str:
    """The cells; keys of jobs with a blank between them."""
    import pandas as pd

    cells = [{**cell, "jobs": " ".join(cell.get("jobs", ()))} for cell in report.data["cells"]]
    return pd.DataFrame(cells).to_csv(index=False)
