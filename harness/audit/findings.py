"""What an audit says, for a person and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """error: contradicts itself under every way of rounding. conditional: under the assumption named. flag: surprising."""

    ERROR = "error"
    CONDITIONAL = "conditional"
    FLAG = "flag"


@dataclass(frozen=True)
class Finding:
    """rule: its name. table, row, column: where the number stands. text: the arithmetic. hint: what it may have been.

    where: file:line of the number. quote: the sentence, for claims.
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


@dataclass(frozen=True)
class Audit:
    """checked: rule -> how many things were looked at, so that silence can be told from not looking."""

    findings: tuple[Finding, ...]
    checked: dict[str, int]
    files: tuple[str, ...]

    def json(self) -> str:
        return json.dumps(
            {"files": self.files, "checked": self.checked, "findings": [asdict(f) for f in self.findings]},
            indent=2,
            ensure_ascii=False,
        )

    def text(self, width: int = 110) -> str:
        """A table for a person: findings by rule, most severe first."""
        lines: list[str] = []
        for rule, checked in self.checked.items():
            mine = [finding for finding in self.findings if finding.rule == rule]
            kinds = Counter(str(finding.severity) for finding in mine)
            counted = ", ".join(f"{n} {kind}{'s' * (n != 1 and kind != 'conditional')}" for kind, n in kinds.items())
            lines.append(f"{rule}: {checked} checked, {counted or 'nothing found'}")
            for finding in sorted(mine, key=lambda f: (list(Severity).index(f.severity), f.table)):
                place = " / ".join(part for part in (finding.table, finding.row, finding.column) if part)
                lines += _wrapped(f"{finding.severity:<11} {place}: {finding.text}", width)
                if finding.quote:
                    lines += _wrapped(f"{'':<11} text: “{finding.quote}”", width)
                if finding.hint:
                    lines += _wrapped(f"{'':<11} {finding.hint}", width)
                if finding.where:
                    lines.append(f"  {'':<11} {finding.where}")
            lines.append("")
        total = Counter(str(finding.severity) for finding in self.findings)
        summary = ", ".join(f"{total[str(s)]} {s}" for s in Severity)
        found, files = len(self.findings), len(self.files)
        return "\n".join([*lines, f"{found} finding{'s' * (found != 1)} ({summary}) in {files} file{'s' * (files != 1)}"])


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent=" " * 14) or [""]
