"""The rules by name, and the audit that runs them. Each looks at every number of its kind and yields what does not add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.audit.findings import Audit, Finding
from harness.audit.paper import Paper
from harness.audit.repeats import duplicates, equal_runs
from harness.audit.single import below_chance, counts, one_rounding
from harness.audit.text import claims, statements
from harness.audit.totals import differences, sums, swapped

Rule = Callable[[Paper], Iterator[Finding | None]]
"""Yields a finding, or None for something that was looked at and is fine."""

RULES: dict[str, Rule] = {
    "sums": sums,
    "swapped parts": swapped,
    "differences": differences,
    "counts": counts,
    "one rounding": one_rounding,
    "equal runs": equal_runs,
    "duplicates": duplicates,
    "below chance": below_chance,
    "claims": claims,
    "statements": statements,
}


def audit(paper: Paper, rules: tuple[str, ...] = tuple(RULES)) -> Audit:
    """Every rule over every number."""
    findings: list[Finding] = []
    checked: dict[str, int] = {}
    for name in rules:
        found = list(RULES[name](paper))
        checked[name] = len(found)
        findings += [finding for finding in found if finding is not None]
    return Audit(tuple(findings), checked, paper.files)
