"""Text helpers that several verbs share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.places import results_option


def as_json(data: Any) -> str:
    """JSON output of a verb; docs/json.md lists its fields."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def command(*words: object, results: Path | None = None, profile: str | None = None) -> str:
    """A command that the user can copy, with this command's store and profile where they are not the defaults."""
    said = ["run.py", *map(str, words)]
    said += ["--profile", profile] if profile not in (None, "proxy") else []
    text = " ".join(word if word.isupper() or "…" in word else shlex.quote(word) for word in said)
    return text + (results_option(results) if results is not None else "")


def plural(n: int, noun: str) -> str:
    """1 job · 2 jobs"""
    return f"{n} {noun}" + ("s" if n != 1 else "")


def columns(rows: Iterable[Sequence[str]], indent: str = "  ") -> str:
    """Rows of cells as aligned text; the last column is not padded."""
    table = [list(row) for row in rows]
    if not table:
        return ""
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(max(map(len, table)))]
    return "\n".join(indent + "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in table)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The names, or the first few and the number of the others."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
