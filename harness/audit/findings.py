"""What an audit says, for a person and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby


class Severity(StrEnum):
    """error: no honest way of printing or averaging that the audit knows gives the numbers. conditional: the finding's
    condition would explain them. remark: surprising, or a slip of printing; nothing is contradicted."""

    ERROR = "error"
    CONDITIONAL = "conditional"
    REMARK = "remark"


HEADINGS = {
    Severity.ERROR: "Errors: no honest way of rounding or averaging gives these",
    Severity.CONDITIONAL: "Conditional: right only if the assumption named holds",
    Severity.REMARK: "Remarks: surprising or a slip, nothing is contradicted",
}


class Basis(StrEnum):
    """arithmetic: follows from the printed numbers. summary: rests on a person's summary (`says:`) of a sentence."""

    ARITHMETIC = "arithmetic"
    SUMMARY = "summary"


@dataclass(frozen=True)
class Finding:
    """rule: its name. table, row, column: where the number stands. text: the arithmetic. hint: what it may have been.

    condition: what has to be assumed for the numbers to be right. where: file:line. quote: the sentence, for claims.
    """

    rule: str
    severity: Severity
    table: str
    row: str
    column: str
    text: str
    hint: str = ""
    quote: str = ""
    where: str = ""
    condition: str = ""
    basis: Basis = Basis.ARITHMETIC

    @property
    def place(self) -> str:
        return " / ".join(part for part in (self.table, self.row, self.column) if part)


@dataclass(frozen=True)
class Audit:
    """checked: rule -> how many things were looked at, so that silence can be told from not looking."""

    findings: tuple[Finding, ...]
    checked: dict[str, int]
    files: tuple[str, ...]

    def count(self, severity: Severity, basis: Basis) -> int:
        return sum(f.severity is severity and f.basis is basis for f in self.findings)

    def json(self) -> str:
        counts = {str(basis): {str(s): self.count(s, basis) for s in Severity} for basis in Basis}
        return json.dumps(
            {
                "files": self.files,
                "checked": self.checked,
                "counts": counts,
                "findings": [asdict(f) for f in by_severity(self.findings)],
            },
            indent=2,
            ensure_ascii=False,
        )

    @property
    def summary(self) -> str:
        """The counts in one line, what rests on summaries of sentences apart."""
        arithmetic = ", ".join(counted(self.count(s, Basis.ARITHMETIC), str(s)) for s in Severity)
        summaries = [counted(n, NAMES.get(s, str(s))) for s in Severity if (n := self.count(s, Basis.SUMMARY))]
        apart = f"; from our summaries of the paper's sentences: {', '.join(summaries)}" if summaries else ""
        return f"From the printed numbers: {arithmetic}{apart}. {counted(len(self.files), 'file')}."

    def text(self, width: int = 110) -> str:
        """For a person: errors, conditional findings, remarks; then what rests on summaries; then the counts."""
        lines: list[str] = []
        for severity in Severity:
            mine = [f for f in by_severity(self.findings) if f.severity is severity and f.basis is Basis.ARITHMETIC]
            lines += _section(HEADINGS[severity], mine, width)
        summaries = [f for f in by_severity(self.findings) if f.basis is Basis.SUMMARY]
        lines += _section("From our summaries of the paper's sentences (a person judged what each one says)", summaries, width)
        looked = ", ".join(f"{rule} {n}" for rule, n in self.checked.items())
        lines += textwrap.wrap(f"Checked: {looked}.", width)
        return "\n".join([*lines, *textwrap.wrap(self.summary, width)])


NAMES = {Severity.ERROR: "contradiction"}
"""What a finding of that severity is called where it rests on summaries of sentences."""


def counted(n: int, noun: str) -> str:
    """ "1 error", "3 errors", "2 conditional"."""
    return f"{n} {noun}{'s' * (n != 1 and noun != 'conditional')}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; the findings of one rule stay together, in the order of the tables."""
    return sorted(findings, key=lambda f: (f.basis, list(Severity).index(f.severity)))


def _section(heading: str, findings: list[Finding], width: int) -> Iterator[str]:
    if not findings:
        return
    yield from textwrap.wrap(f"{heading} ({len(findings)})", width)
    for rule, of_rule in groupby(findings, key=lambda f: f.rule):
        yield f"  {rule}"
        for finding in of_rule:
            label = "" if finding.basis is Basis.ARITHMETIC else f"{NAMES.get(finding.severity, str(finding.severity))}: "
            yield from textwrap.wrap(
                f"{label}{finding.place}: {finding.text}", width, initial_indent="    - ", subsequent_indent=" " * 6
            )
            extras = [
                f"only if {finding.condition}" if finding.condition and "only if" not in finding.text else "",
                f"text: “{finding.quote}”" if finding.quote else "",
                finding.hint,
                finding.where,
            ]
            for extra in filter(None, extras):
                yield from textwrap.wrap(extra, width, initial_indent=" " * 6, subsequent_indent=" " * 8)
    yield ""
