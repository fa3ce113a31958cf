"""The comparisons that a table is about, as a closed set of typed forms over row names.

What a table declares before its results are there is one family: its p-values are corrected together. Any other pair of rows
can be looked at, and is exploratory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from harness.spec.claims import Best, Greater, Unimodal
from harness.spec.errors import unknown
from models.schema import Frozen

if TYPE_CHECKING:
    from harness.spec.experiment import Experiment

BASE = "base"
"""What `against:` calls the checkpoint that all training starts from, unless a row has this name."""


class Against(Frozen):
    """Each row minus one row, or minus the base model (`against: base`). rows: only these (default: all others)."""

    against: str
    rows: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every row label it speaks of; `base` may be none."""
        return (self.against, *(self.rows or ()))


class Pair(Frozen):
    """One row minus another."""

    pair: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]

    @property
    def names(self) -> tuple[str, ...]:
        return self.pair


class Trend(Frozen):
    """One test over rows along their `x`. line: whether values rise or fall with x. bend: whether they rise and fall again."""

    trend: Annotated[tuple[str, ...], Field(min_length=3)]
    shape: Literal["line", "bend"] = "line"

    @property
    def names(self) -> tuple[str, ...]:
        return self.trend


MOST_ROWS = 40
"""All pairs of more rows are too many tests to correct, and too many lines to read."""
Declared = Against | Pair | Trend
FORMS: dict[str, type[Against | Pair | Trend]] = {"against": Against, "pair": Pair, "trend": Trend}


def comparison_form(written: Any) -> type[Against | Pair | Trend]:
    """The form whose key is present. Raises ValueError naming the forms."""
    if not isinstance(written, dict):
        raise ValueError("a comparison is a mapping such as {against: ROW} or {pair: [ROW, ROW]}")  # noqa: TRY004
    present = [name for name in FORMS if name in written]
    if len(present) == 1:
        return FORMS[present[0]]
    if present:
        raise ValueError(f"a comparison has one form, this has {' and '.join(present)}; write two comparisons")
    odd = next(iter(map(str, written)), "")
    raise ValueError(unknown(f'"{odd}" is not a kind of comparison', odd, list(FORMS), "forms"))


def full_method(spec: Experiment) -> str | None:
    """The table's own full method: the row it names, else the one row that its claims call best, else greater than others."""
    if spec.full is not None:
        return spec.full
    for form, name in ((Best, "best"), (Greater, "greater")):
        named = {getattr(claim, name) for claim in spec.claims if isinstance(claim, form)}
        if len(named) == 1:
            return str(named.pop())
    return None


def comparisons_of(spec: Experiment) -> tuple[Declared, ...]:
    """Those that the table declares; else a trend where its rows are points of an axis, else each row against the full method;
    and each against the base. A table without a full method declares all its pairs, if it has at most `MOST_ROWS` rows."""
    if spec.comparisons:
        return spec.comparisons
    rows = [row for row in spec.rows if row.delta is None]
    base = Against(against=BASE)
    if spec.plot is not None and len(rows) > 2 and all(row.x is not None for row in rows):
        bends = any(isinstance(claim, Unimodal) for claim in spec.claims)
        return Trend(trend=tuple(row.label for row in rows), shape="bend" if bends else "line"), base
    if (full := full_method(spec)) is not None:
        return Against(against=full), base
    labels = [row.label for row in rows if row.stages != ()]
    if len(labels) > MOST_ROWS:
        return (base,)
    return *(Pair(pair=(b, a)) for i, a in enumerate(labels) for b in labels[i + 1 :]), base


def trend_weights(x: tuple[float, ...], shape: Literal["line", "bend"]) -> tuple[float, ...]:
    """Weights of rows at these places of an axis, positive ones summing to 1 and negative ones to -1.

    line: high x minus low x. bend: the middle minus both ends, free of any line (the quadratic contrast, its sign turned).
    """
    middle = sum(x) / len(x)
    line = [place - middle for place in x]
    if shape == "line":
        weights = line
    else:
        squares = [value**2 for value in line]
        slope = sum(s * v for s, v in zip(squares, line)) / sum(squares)
        mean = sum(squares) / len(squares)
        weights = [mean + slope * value - square for value, square in zip(line, squares)]
    scale = sum(weight for weight in weights if weight > 0)
    if scale <= 0:
        raise ValueError("all rows have the same value on the axis")
    return tuple(weight / scale for weight in weights)
