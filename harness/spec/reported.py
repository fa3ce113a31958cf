"""A number as a paper prints it: decimals kept, and the marks around it ("~15", "70.0 †", "-", "+1.45 %")."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator

from harness.characters import named, shown
from harness.spec.errors import show
from models.schema import Frozen

MISSING = frozenset({"", "-", "–", "—", "null", "~"})
UNKNOWN = "unknown"
"""Of a value that the paper prints and nobody here has read."""

_NUMBER = re.compile(
    r"(?P<about>[~≈]\s*)?(?P<sign>[-+−±]?)(?P<digits>[0-9]+(?:\.[0-9]+)?)\s*(?P<percent>%?)\s*(?P<marks>[†‡*§¶]*)"
)


class Reported(Frozen):
    """text: as printed. value: the number, None where the paper prints none. approximate: "~15".

    marks: footnote signs.
    """

    text: str
    value: Decimal | None = None
    approximate: bool = False
    marks: str = ""

    @property
    def missing(self) -> bool:
        """Nothing is printed in this cell."""
        return self.value is None and self.text in MISSING

    @property
    def decimals(self) -> int:
        """Digits after the point, as printed."""
        return max(0, -int(self.value.as_tuple().exponent)) if self.value is not None else 0


def parse(written: Any) -> Any:
    """A `Reported` from what stands in a spec."""
    if written is None:
        return Reported(text="-")
    if not isinstance(written, (str, int, float)):
        return written
    text = str(written).strip()
    match = _NUMBER.fullmatch(text)
    if match is None:
        if odd := next((named(c) for c in text if c.isdigit() and not c.isascii() and c not in "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"), ""):
            raise ValueError(f'"{text}" holds {odd}; write ASCII digits')
        if re.fullmatch(r"[-+−~]?\s*[0-9]+,[0-9]{1,2}\s*%?", text):
            raise ValueError(f'"{text}" has a decimal comma; write a point')
        if text in MISSING:
            return Reported(text="-")
        if text == UNKNOWN:
            return Reported(text=text)
        raise ValueError(
            f"{show(shown(text, keep=''))} is not a number as a paper prints it; write its digits, - where it prints none, or "
            f"{UNKNOWN} where it is not known"
        )
    sign = "-" if match["sign"] in ("-", "−") else ""
    return Reported(
        text=text, value=Decimal(sign + match["digits"]), approximate=bool(match["about"]), marks=match["marks"]
    )


ReportedValue = Annotated[Reported, BeforeValidator(parse)]
