"""Papers with a known truth: tables printed from counted answers, and mistakes planted into them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from harness.verdict.granularity import ROUNDINGS, round_fraction

SIZES = {"alpha": {"left": 120, "right": 180}, "beta": {"near": 76, "far": 115}}
"""Benchmark -> parts and their questions."""

COLUMNS = [f"{name}{part}" for name, parts in SIZES.items() for part in ["", *(f".{p}" for p in parts)]]
ROWS = {
    "base": "stages: []",
    "sft": "stages: [sft]",
    "first": "stages: [stage1]",
    "both": "stages: [stage1, stage2]",
    "again": "stages: [stage1, stage2]",
}
"""`again` is the same run as `both`."""


@dataclass
class Printer:
    """One invented paper. rounding: how all of its numbers are printed. values: (row, column) -> as printed."""

    random: random.Random
    rounding: str
    values: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    deltas: dict[str, Decimal] = field(default_factory=dict)
    claim: tuple[str, Decimal] = ("alpha", Decimal(0))

    def show(self, value: Fraction) -> Decimal:
        return round_fraction(value, 1, self.rounding)

    @classmethod
    def honest(cls, seed: int) -> Printer:
        printer = cls(random.Random(seed), ROUNDINGS[seed % 3])
        exact: dict[tuple[str, str], Fraction] = {}
        for row in ROWS:
            for name, parts in SIZES.items():
                right = {p: printer.random.randint(int(0.55 * n), int(0.95 * n)) for p, n in parts.items()}
                for part, k in right.items():
                    exact[row, f"{name}.{part}"] = Fraction(100 * k, parts[part])
                exact[row, name] = Fraction(100 * sum(right.values()), sum(parts.values()))
        for column in COLUMNS:
            exact["again", column] = exact["both", column]
            printer.deltas[column] = printer.show(exact["both", column] - exact["base", column])
        printer.values = {key: printer.show(value) for key, value in exact.items()}
        printer.claim = ("alpha", printer.deltas["alpha"])
        return printer

    def plant(self, kind: str) -> tuple[str, str]:
        """Spoil one number; returns (rule that must find it, column)."""
        column = self.random.choice(COLUMNS)
        name = column.split(".")[0]
        step = Decimal(self.random.choice(["-1.7", "-1.2", "0.9", "1.4", "2.3"]))
        if kind == "sums":
            self.values["sft", name] += step
            return "sums", name
        if kind == "differences":
            self.deltas[column] += step
            return "differences", column
        if kind == "equal runs":
            self.values["again", column] += step
            return "equal runs", column
        if kind == "claims":
            self.claim = (self.claim[0], self.claim[1] + step)
            return "claims", "alpha"
        if kind == "below chance":
            self.values["first", "beta.far"] = self.show(Fraction(100 * 4, 115))
            return "below chance", "beta.far"
        part = self.random.choice([c for c in COLUMNS if "." in c])
        n = SIZES[part.split(".")[0]][part.split(".")[1]]
        self.values["first", part] = impossible(self.values["first", part], n)
        return "counts", part

    def write(self, folder: Path) -> Path:
        """As spec files; the experiment's path."""
        (folder / "benchmarks").mkdir(parents=True, exist_ok=True)
        for name, parts in SIZES.items():
            scores = [f"  overall: {{n: {sum(parts.values())}, chance: 25}}"]
            scores += [f"  {p}: {{n: {n}, chance: 25, where: {{category: {p}}}}}" for p, n in parts.items()]
            text = f"title: {name}\nprotocols: {{paper: as printed}}\nscores:\n" + "\n".join(scores) + "\n"
            (folder / "benchmarks" / f"{name}.yaml").write_text(text)
        lines = ['table: "1"', "title: invented", f"columns: [{', '.join(COLUMNS)}]", "rows:"]
        for row, stages in ROWS.items():
            printed = ", ".join(str(self.values[row, column]) for column in COLUMNS)
            lines.append(f"  - {row}: {{{stages}, reported: [{printed}]}}")
        printed = ", ".join(f"{self.deltas[column]:+}" for column in COLUMNS)
        lines.append(f"  - gain: {{delta: {{of: both, over: base}}, reported: [{printed}]}}")
        column, points = self.claim
        lines += ["claims:", f"  - {{delta_equals: both, minus: base, points: {points}, on: {column}}}"]
        path = folder / "table.yaml"
        path.write_text("\n".join(lines) + "\n")
        return path


def impossible(near: Decimal, n: int) -> Decimal:
    """The nearest number with one decimal that n questions cannot give."""
    possible = {round_fraction(Fraction(100 * k, n), 1, rounding) for k in range(n + 1) for rounding in ROUNDINGS}
    steps = (near + Decimal(i) / 10 * sign for i in range(1, 1000) for sign in (1, -1))
    return next(value for value in steps if 0 < value < 100 and value not in possible)


KINDS = ("sums", "differences", "equal runs", "claims", "below chance", "counts")
