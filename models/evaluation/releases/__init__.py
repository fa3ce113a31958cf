"""How the releases of LVR and VisReflect read an answer, their errors included; V-Reflection's is `extract.read_release`.

For numbers that are to be compared with theirs. Torch-free.
"""

from __future__ import annotations

import re

_VISREFLECT = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"answer\s+is\s*:\s*\(?([A-Z])",
        r"answer\s+is\s*\(?([A-Z])",
        r"answer\s*[:\-]\s*\(?([A-Z])",
        r"^\s*\(?([A-Z])[.):]",
        r"^\s*\(?([A-Z])\)?\s*$",
    )
)
"""Written after a description of the release's five patterns and held to its twelve cases; the patterns themselves were not
at hand."""
_LONE = re.compile(r"\b[A-Z]\b")


def read_lvr(response: str) -> str | None:
    """The first character of the first word after the last `<answer>`, up to `</answer`, or of the response without one.

    Case counts, and brackets are not taken off: "(A)" and "a" are no A, "The answer is B" is T. None for no word.
    """
    text = response.split("<answer>")[-1].split("</answer")[0].split()
    return text[0][0] if text else None


def read_visreflect(response: str) -> str | None:
    """The letter of the first of five patterns that occurs, in either case, else the first capital that stands alone.

    "The answer is: the left one" is T, "I think it is B" is I, "The answer isn't A" is N. None for none of these.
    """
    for pattern in _VISREFLECT:
        if found := pattern.search(response):
            return found[1].upper()
    alone = _LONE.search(response)
    return alone[0] if alone else None
