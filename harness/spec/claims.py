"""What the text of a paper claims about its own table, as a closed set of typed forms over row and column names.

Nothing is executed from YAML, and nothing is judged here: `harness.verdict` does that, on reported and on regenerated
numbers. A claim is recognised by its form's own key: `best: Two-stage (Ours)` is a `Best`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.spec.errors import unknown
from models.schema import Frozen

AtLeastTwo = Annotated[tuple[str, ...], Field(min_length=2)]
Points = Annotated[Decimal, Field(allow_inf_nan=False)]
"""Percentage points, with the decimals the text gives."""


class Claim(Frozen):
    """on: "all" columns or a list of them; the claim holds when it holds on each. quote: the paper's words. source: where."""

    on: tuple[str, ...] | Literal["all"] = "all"
    quote: str = ""
    source: str = ""

    @field_validator("on", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("names no column; leave it out for all")
        return [value] if isinstance(value, str) and value != "all" else value

    @property
    def form(self) -> str:
        """The key that names the form, as written: "best", "greater", …"""
        return next(name for name in FORMS if name in type(self).model_fields)

    @property
    def rows(self) -> tuple[str, ...]:
        """Every row label that the claim speaks of."""
        named: list[str] = []
        for name in (
            "best",
            "worst",
            "among",
            "greater",
            "than",
            "margin",
            "over",
            "delta_equals",
            "mean_delta",
            "minus",
            "equals",
            "unimodal",
            "peak",
            "increasing",
            "decreasing",
            "close",
            "below_chance",
            "less_time",
        ):
            value = getattr(self, name, None)
            named += [value] if isinstance(value, str) else list(value or ())
        return tuple(dict.fromkeys(named))


class Best(Claim):
    """The row has the highest value of the column. among: only of these rows (default: all)."""

    best: str
    among: tuple[str, ...] | None = None


class Worst(Claim):
    """The row has the lowest value of the column."""

    worst: str
    among: tuple[str, ...] | None = None


class Greater(Claim):
    """greater > every row in than."""

    greater: str
    than: tuple[str, ...]

    @field_validator("than", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Margin(Claim):
    """margin − over ≥ at_least points ("a clear lead")."""

    margin: str
    over: str
    at_least: Points


class DeltaEquals(Claim):
    """delta_equals − minus = points, as the text prints it ("+2.8 on MMVP over BCM alone")."""

    delta_equals: str
    minus: str
    points: Points


class MeanDelta(Claim):
    """The mean over the columns of mean_delta − minus = points, for a text that gives nothing but an average."""

    mean_delta: str
    minus: str
    points: Points


class Equals(Claim):
    """The row's value = points, as the text prints it."""

    equals: str
    points: Points


class Unimodal(Claim):
    """Along these rows, in this order, values rise to the peak and fall after it ("inverted U")."""

    unimodal: AtLeastTwo
    peak: str


class Increasing(Claim):
    """Along these rows, in this order, values rise."""

    increasing: AtLeastTwo


class Decreasing(Claim):
    """Along these rows, in this order, values fall."""

    decreasing: AtLeastTwo


class Close(Claim):
    """All these rows lie within `within` points of each other."""

    close: AtLeastTwo
    within: Points


class BelowChance(Claim):
    """The row does no better than guessing."""

    below_chance: str


class LessTime(Claim):
    """The row answers questions about clips in percent less time than `than`, a row with `decode.zoom: predicted`. Timed by a job of its own, for the first seed."""

    less_time: str
    than: str
    percent: Annotated[Decimal, Field(gt=0, lt=100)]

    @model_validator(mode="after")
    def _two_rows(self) -> LessTime:
        if self.less_time == self.than:
            raise ValueError(f'than: is "{self.than}" itself; name the row that zooms')
        return self


FORMS: dict[str, type[Claim]] = {
    "best": Best,
    "worst": Worst,
    "greater": Greater,
    "margin": Margin,
    "delta_equals": DeltaEquals,
    "mean_delta": MeanDelta,
    "equals": Equals,
    "unimodal": Unimodal,
    "increasing": Increasing,
    "decreasing": Decreasing,
    "close": Close,
    "below_chance": BelowChance,
    "less_time": LessTime,
}


def form_of(written: Any) -> type[Claim]:
    """The form whose key is present. Raises ValueError naming the forms."""
    if not isinstance(written, dict):
        raise ValueError("a claim is a mapping such as {best: ROW, on: all, quote: …}")  # noqa: TRY004
    present = [name for name in FORMS if name in written]
    if len(present) == 1:
        return FORMS[present[0]]
    if present:
        raise ValueError(f"a claim has one form, this has {' and '.join(present)}; write two claims")
    others = set(Claim.model_fields) | {"among", "than", "over", "at_least", "minus", "points", "peak", "within", "percent"}
    odd = next((key for key in written if key not in others), "")
    raise ValueError(unknown(f'"{odd}" is not a kind of claim' if odd else "no kind of claim", odd, list(FORMS), "forms"))


def describe(claim: Claim) -> str:
    """The predicate in words."""
    match claim:
        case Best():
            return f"{claim.best} is best"
        case Worst():
            return f"{claim.worst} is worst"
        case Greater():
            return f"{claim.greater} > {', '.join(claim.than)}"
        case Margin():
            return f"{claim.margin} leads {claim.over} by at least {claim.at_least}"
        case DeltaEquals():
            return f"{claim.delta_equals} - {claim.minus} = {claim.points:+}"
        case MeanDelta():
            return f"{claim.mean_delta} - {claim.minus} = {claim.points:+} on average"
        case Equals():
            return f"{claim.equals} = {claim.points}"
        case Unimodal():
            return f"rises to {claim.peak}, falls after it"
        case Increasing():
            return "rises along " + ", ".join(claim.increasing)
        case Decreasing():
            return "falls along " + ", ".join(claim.decreasing)
        case Close():
            return f"{', '.join(claim.close)} within {claim.within} of each other"
        case BelowChance():
            return f"{claim.below_chance} is no better than guessing"
        case LessTime():
            return f"{claim.less_time} takes {claim.percent} % less time than {claim.than}"
    return claim.form
