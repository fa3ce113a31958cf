"""The audit on invented papers: false errors on honest tables, and how many planted mistakes it finds."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.printed_tables import HONEST, KINDS, RULES, Printer
from harness.audit import Audit, Severity, audit, read_paper

PAPERS = 210
"""30 of each honest way."""


@dataclass
class Found:
    """Of one kind of mistake: planted; allowed = the numbers do not hide it; found, by severity; missed: seeds."""

    planted: int = 0
    allowed: int = 0
    found: Counter[str] = field(default_factory=Counter)
    missed: list[int] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return 1 - len(self.missed) / self.allowed if self.allowed else 1.0


@dataclass
class Outcome:
    """papers, clean: honest tables, and those without any finding, by way. severities: findings on honest tables, by way."""

    kinds: dict[str, Found]
    papers: Counter[str] = field(default_factory=Counter)
    clean: Counter[str] = field(default_factory=Counter)
    severities: dict[str, Counter[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return 1 - sum(len(f.missed) for f in self.kinds.values()) / sum(f.allowed for f in self.kinds.values())


def simulate(papers: int, folder: Path, kinds: Sequence[str] = KINDS, first: int = 0) -> Outcome:
    """Each honest paper once as it is, and once with a mistake of each kind. first: seed of the first paper."""
    outcome = Outcome(kinds={kind: Found() for kind in kinds})
    for seed in range(first, first + papers):
        honest = Printer.honest(seed)
        plain = read(honest, folder / f"{seed}")
        outcome.papers[honest.way] += 1
        outcome.clean[honest.way] += not plain.findings
        outcome.severities.setdefault(honest.way, Counter()).update(str(f.severity) for f in plain.findings)
        outcome.errors += [f"paper {seed}, {honest.way}: {f.place}: {f.text}" for f in plain.findings if f.severity is Severity.ERROR]
        for kind in kinds:
            _plant(kind, seed, plain, outcome.kinds[kind], folder / f"{seed}-{KINDS.index(kind)}")
    return outcome


def _plant(kind: str, seed: int, plain: Audit, found: Found, folder: Path) -> None:
    printer = Printer.honest(seed)
    row, column, allowed = printer.plant(kind)
    known = {(f.rule, f.row, f.column, f.severity, f.text) for f in plain.findings}
    new = [
        f
        for f in read(printer, folder).findings
        if f.rule in RULES[kind]
        and (f.rule, f.row, f.column, f.severity, f.text) not in known
        and (not row or f.row in (row, "both"))
        and (f.column == column or (kind == "swapped parts" and f.column.startswith(f"{column}.")) or not column)
    ]
    found.planted += 1
    if not allowed:
        return
    found.allowed += 1
    if new:
        found.found[str(min(new, key=lambda f: list(Severity).index(f.severity)).severity)] += 1
    else:
        found.missed.append(seed)


def read(printer: Printer, folder: Path) -> Audit:
    return audit(read_paper([printer.write(folder)]))


def section(seed: int, share: float = 1.0) -> str:
    """The section of statistics.md."""
    papers = max(round(PAPERS * share), len(HONEST))
    with tempfile.TemporaryDirectory() as folder:
        outcome = simulate(papers, Path(folder), first=seed * PAPERS)
    lines = [
        f"{papers} invented papers: 5 rows, 4 benchmarks of 2 or 3 parts (50 to 1169 questions), one row of differences, one claim;",
        "numbers have one or two decimals. Each is audited as it is, and once with a mistake of each kind.",
        "",
        f"**False errors on honest tables: {len(outcome.errors)}.** Conditional findings and remarks are not accusations; their number says how",
        "much a reader of the audit has to go through for a table without mistakes.",
        "",
        "| Honest way of printing | Tables | Errors | Conditional, per table | Remarks, per table | Without any finding |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for way in HONEST:
        n, found = outcome.papers[way], outcome.severities[way]
        per = [f"{found[kind] / n:.1f}" for kind in ("conditional", "remark")]
        lines.append(f"| {way} | {n} | {found['error']} | {per[0]} | {per[1]} | {outcome.clean[way]} |")
    lines += [
        "",
        f"**Planted mistakes found: {100 * outcome.recall:.1f} %** of those that can be found from the printed numbers. A mistake is hidden",
        "if some counts of questions, printed in the paper's own way, give exactly the changed number; then no audit of the printed table can find it.",
        "",
        "| Mistake | Planted | Hidden | Found | Recall | as error | as conditional | as remark |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for kind, found in outcome.kinds.items():
        hidden = found.planted - found.allowed
        kinds = " | ".join(str(found.found[str(severity)]) for severity in Severity)
        hits = found.allowed - len(found.missed)
        lines.append(f"| {kind} | {found.planted} | {hidden} ({100 * hidden / found.planted:.0f} %) | {hits} | {100 * found.recall:.1f} % | {kinds} |")
    return "\n".join([*lines, "", bar({kind: found.recall for kind, found in outcome.kinds.items()})])


def bar(recalls: Mapping[str, float], least: float = 0.95) -> str:
    """Which kinds of mistake are found as often as they should be."""
    missed = [f"{kind} ({100 * recall:.1f} %)" for kind, recall in recalls.items() if recall < least]
    text = f"Target (at least {100 * least:.0f} % of each kind): met for {len(recalls) - len(missed)} of {len(recalls)} kinds"
    if not missed:
        return f"{text}."
    return (
        f"{text}; not for {', '.join(missed)}.\nWhether a mistake can be found is decided here with the paper's own way of printing. The "
        "audit does not know that way, and reports no error\nthat any honest way (a plain mean, a mean over runs, cutting off) explains."
    )
