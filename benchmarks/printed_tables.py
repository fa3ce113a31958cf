"""Invented papers whose truth is known: tables printed from counted answers in every honest way, and mistakes planted into them.

Whether a planted mistake can be found at all is decided here by enumeration, printing forwards from counts; the audit
reasons backwards from print, so that the two share no arithmetic but `round_fraction`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path

from harness.verdict.granularity import ROUNDINGS, round_fraction

SIZES = {
    "alpha": {"left": 120, "right": 180},
    "beta": {"near": 76, "middle": 50, "far": 115},
    "gamma": {"one": 400, "two": 400},
    "delta": {"seen": 750, "told": 1169},
}
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

HONEST = ("rounded", "formatted", "cut off", "plain mean", "mean over runs", "runs rounded first", "from printed parts")
"""Ways of printing a table: half up, even or down; Python's own formatting; truncation; overall scores as plain means; means
over 2 to 5 runs, of exact or of rounded accuracies; overall scores computed from the printed parts."""

KINDS = (
    "impossible k/n",
    "wrong sum",
    "sum off by one digit",
    "wrong difference",
    "difference off by one digit",
    "swapped parts",
    "copied row",
    "one run, two numbers",
    "wrong text",
    "text off by one digit",
    "below chance",
)
RULES = dict(
    zip(
        KINDS,
        (
            ("counts",),
            ("sums", "counts"),
            ("sums", "counts"),
            ("differences",),
            ("differences",),
            ("sums", "counts", "one rounding", "swapped parts"),
            ("duplicates",),
            ("equal runs",),
            ("claims",),
            ("claims",),
            ("below chance",),
        ),
        strict=True,
    )
)
"""Kind of mistake -> the rules of the audit that may find it."""


@dataclass
class Printer:
    """One invented paper. way: of HONEST. rounding: of ROUNDINGS, or "" for Python's formatting. values: (row, column) -> as printed."""

    random: random.Random
    way: str
    rounding: str
    decimals: int = 1
    runs: int = 1
    values: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    deltas: dict[str, Decimal] = field(default_factory=dict)
    claim: tuple[str, Decimal] = ("alpha", Decimal(0))

    # --- printing -------------------------------------------------------------------------------------------------

    def show(self, value: Fraction) -> Decimal:
        """Printed once. Formatting rounds a binary fraction, so that a tie goes either way."""
        return round_fraction(value, self.decimals, self.rounding) if self.rounding else Decimal(f"{float(value):.{self.decimals}f}")

    @property
    def unit(self) -> Decimal:
        return Decimal(1).scaleb(-self.decimals)

    @classmethod
    def honest(cls, seed: int, way: str | None = None) -> Printer:
        draw = random.Random(seed)
        way = way or HONEST[seed % len(HONEST)]
        rounding = {"formatted": "", "cut off": "truncation"}.get(way, draw.choice(ROUNDINGS[:3]))
        runs = draw.choice([2, 3, 4, 5]) if "runs" in way else 1
        printer = cls(draw, way, rounding, decimals=draw.choice([1, 1, 2]), runs=runs)
        exact: dict[tuple[str, str], Fraction] = {}
        for row in ROWS:
            for name in SIZES:
                exact |= {(row, column): value for column, value in printer.draw_benchmark(name).items()}
        for column in COLUMNS:
            exact["again", column] = exact["both", column]
            printer.deltas[column] = printer.show(exact["both", column] - exact["base", column])
        printer.values = {key: printer.show(value) for key, value in exact.items()}
        claimed = draw.choice(COLUMNS)
        printer.claim = (claimed, printer.deltas[claimed])
        return printer

    def draw_benchmark(self, name: str) -> dict[str, Fraction]:
        """Column -> exact value, of one row."""
        parts, level = SIZES[name], self.random.uniform(0.55, 0.9)
        right = {p: [round(n * min(0.98, max(0.5, self.random.gauss(level, 0.06)))) for _ in range(self.runs)] for p, n in parts.items()}
        if self.way == "runs rounded first":
            exact = {p: _mean(Fraction(self.show(Fraction(100 * k, parts[p]))) for k in counts) for p, counts in right.items()}
            totals = [sum(counts) for counts in zip(*right.values(), strict=True)]
            whole = _mean(Fraction(self.show(Fraction(100 * k, sum(parts.values())))) for k in totals)
        else:
            exact = {p: Fraction(100 * sum(counts), self.runs * parts[p]) for p, counts in right.items()}
            whole = self.overall(name, exact)
        return {name: whole, **{f"{name}.{p}": value for p, value in exact.items()}}

    def overall(self, name: str, exact: Mapping[str, Fraction]) -> Fraction:
        """The overall score that this paper's way makes of the parts' exact values."""
        parts = SIZES[name]
        if self.way == "plain mean":
            return _mean(exact.values())
        if self.way == "from printed parts":
            exact = {p: Fraction(self.show(value)) for p, value in exact.items()}
        return sum((exact[p] * n for p, n in parts.items()), Fraction(0)) / sum(parts.values())

    # --- mistakes -------------------------------------------------------------------------------------------------

    def plant(self, kind: str) -> tuple[str, str, bool]:
        """Spoil one number. (row, column of the table; "" for any) where it shows, and whether the printed numbers allow it
        to be found: whether no counts, printed in this paper's own way, give what now stands there."""
        column = self.random.choice(COLUMNS)
        name = column.partition(".")[0]
        step = self.unit * self.random.choice([-1, 1])
        far = Decimal(self.random.choice(["-1.7", "-1.2", "-0.6", "0.7", "1.4", "2.3"]))
        if kind in ("wrong sum", "sum off by one digit"):
            self.values["sft", name] += far if kind == "wrong sum" else step
            return "sft", name, not self.some_counts("sft", name)
        if kind in ("wrong difference", "difference off by one digit"):
            self.deltas[column] += far if kind == "wrong difference" else step
            return "gain", column, not self.difference_possible(column, self.deltas[column])
        if kind in ("wrong text", "text off by one digit"):
            column = self.claim[0]
            self.claim = (column, self.claim[1] + (far if kind == "wrong text" else step))
            return "both", column, not self.difference_possible(column, self.claim[1])
        if kind == "swapped parts":
            first, second = self.random.sample(list(SIZES[name]), 2)
            keys = ("first", f"{name}.{first}"), ("first", f"{name}.{second}")
            self.values[keys[0]], self.values[keys[1]] = self.values[keys[1]], self.values[keys[0]]
            return "first", name, not self.some_counts("first", name)
        if kind == "copied row":
            same = [self.values["sft", column] == self.values["first", column] for column in COLUMNS]
            self.values |= {("first", column): self.values["sft", column] for column in COLUMNS}
            return "", "", not all(same)
        if kind == "one run, two numbers":
            self.values["again", column] += self.random.choice([far, step])
            return "again", column, True
        if kind == "below chance":
            self.values["first", "beta.far"] = self.show(Fraction(100 * 4, 115))
            return "first", "beta.far", True
        part = self.random.choice([c for c in COLUMNS if "." in c])
        n = SIZES[part.partition(".")[0]][part.partition(".")[2]]
        if (value := impossible(self.values["first", part], n, self.unit)) is None:
            return "first", part, False
        self.values["first", part] = value
        return "first", part, not list(self.counts(value, n))

    def counts(self, value: Decimal, n: int) -> Iterator[Fraction]:
        """Exact accuracies of n questions and this paper's number of runs that are printed as `value` in its way."""
        total = n * self.runs
        reach = 2 if self.way == "runs rounded first" else 1  # each run's rounding may add as much again
        first, last = (int((Fraction(value) + sign * reach * Fraction(self.unit)) * total / 100) for sign in (-1, 1))
        for k in range(max(0, first - 1), min(total, last + 1) + 1):
            exact = Fraction(100 * k, total)
            if self.may_print(exact, value):
                yield exact

    def may_print(self, exact: Fraction, value: Decimal, slack: int = 1) -> bool:
        """Whether this paper's way may print `value`. A tie may go either way, as in binary fractions; where runs were rounded
        before averaging, the printed number may be a unit off, and twice that for a difference."""
        if self.way == "runs rounded first":
            return abs(exact - Fraction(value)) <= slack * Fraction(self.unit)
        ways = [self.rounding] if self.rounding == "truncation" else ROUNDINGS[:3]
        return any(round_fraction(exact, self.decimals, way) == value for way in ways)

    def some_counts(self, row: str, name: str) -> list[tuple[Fraction, ...]]:
        """Exact values (whole, *parts) that are printed as this row's scores of the benchmark, the whole counted or made in this
        paper's own way: print does not tell which."""
        parts, printed = SIZES[name], self.values[row, name]
        choices = [list(self.counts(self.values[row, f"{name}.{p}"], n)) for p, n in parts.items()]
        found = []
        for exact in product(*choices):
            counted = sum((value * n for value, n in zip(exact, parts.values(), strict=True)), Fraction(0)) / sum(parts.values())
            for whole in {counted, self.overall(name, dict(zip(parts, exact, strict=True)))}:
                if self.may_print(whole, printed):
                    found.append((whole, *exact))
        return found

    def difference_possible(self, column: str, points: Decimal) -> bool:
        """Whether both − base can be printed as `points`, from exact or from printed values."""
        name, _, part = column.partition(".")
        index = 1 + list(SIZES[name]).index(part) if part else 0
        both, base = ({exact[index] for exact in self.some_counts(row, name)} for row in ("both", "base"))
        if self.values["both", column] - self.values["base", column] == points:
            return True
        return any(self.may_print(a - b, points, slack=2) for a in both for b in base)

    # --- files ----------------------------------------------------------------------------------------------------

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
            printed = ", ".join(f'"{self.values[row, column]}"' for column in COLUMNS)
            lines.append(f"  - {row}: {{{stages}, reported: [{printed}]}}")
        printed = ", ".join(f'"{self.deltas[column]:+}"' for column in COLUMNS)
        lines.append(f"  - gain: {{delta: {{of: both, over: base}}, reported: [{printed}]}}")
        column, points = self.claim
        lines += ["claims:", f'  - {{delta_equals: both, minus: base, points: "{points}", on: {column}}}']
        path = folder / "table.yaml"
        path.write_text("\n".join(lines) + "\n")
        return path


def impossible(near: Decimal, n: int, unit: Decimal) -> Decimal | None:
    """The nearest number of as many decimals that no n questions give; None where n questions give all of them."""
    decimals = -int(unit.as_tuple().exponent)
    possible = {round_fraction(Fraction(100 * k, n), decimals, rounding) for k in range(n + 1) for rounding in ROUNDINGS}
    steps: Sequence[Decimal] = [near + i * unit * sign for i in range(1, 500) for sign in (1, -1)]
    return next((value for value in steps if 0 < value < 100 and value not in possible), None)


def _mean(values: object) -> Fraction:
    found = list(values)  # type: ignore[call-overload]
    return sum(found, Fraction(0)) / len(found)
