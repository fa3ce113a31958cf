"""A report's numbers for other programs: JSON with everything, CSV with a line for each cell.

Fields: docs/json.md, which a test compares with what is written.
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
        "spec": report.spec,
        "table": report.label,
        "title": report.title,
        "subtitle": report.subtitle,
        "profile": report.profile,
        "paper": report.paper,
        "conclusion": report.conclusion,
        "headline": list(report.headline),
        "warning": report.warning,
    }
    fields = (f" {_dumped(name)}: {_dumped_lines(value)}" for name, value in {**head, **report.data}.items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


_dumped = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _dumped_lines(value: object) -> str:
    """A list with an element on each line, so that two reports can be compared line by line."""
    if not isinstance(value, list) or not value:
        return _dumped(value)
    return "[\n  " + ",\n  ".join(map(_dumped, value)) + "\n ]"


def as_csv(report: Report) -> str:
    """The cells; keys of jobs with a blank between them."""
    import pandas as pd

    cells = [{**cell, "jobs": " ".join(cell.get("jobs", ()))} for cell in report.data["cells"]]
    return pd.DataFrame(cells).to_csv(index=False)
