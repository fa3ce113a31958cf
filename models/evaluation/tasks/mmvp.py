"""MMVP: 300 questions in pairs, two options. The paper counts questions, on the labels as first published.

The stock data set carries four corrected labels (a wrong pair of elephants, a wrong pair of persons). The release read
the uncorrected file, so `target` restores those four; nothing else is touched, and only where question and index match.
"""

from __future__ import annotations

import re
from typing import Any

from models.evaluation.tasks.paper import Document, Reading

_UNCORRECTED = {99: (r"\btusk", "A"), 100: (r"\btusk", "B"), 279: (r"\bsit", "A"), 280: (r"\bsit", "B")}
"""1-based Index -> (what question or options say, the label as first published); lmms-eval issue 1018."""


def _text(doc: Document) -> str:
    return doc["Question"]


def _options(doc: Document) -> list[str]:
    return [
        o.strip() for o in re.findall(r"\([a-z]\)\s*(.+?)(?=\s*\([a-z]\)|$)", doc["Options"], re.IGNORECASE | re.DOTALL)
    ]


def _target(doc: Document) -> str:
    if (known := _UNCORRECTED.get(int(doc["Index"]))) and re.search(
        known[0], doc["Question"] + doc["Options"], re.IGNORECASE
    ):
        return known[1]
    return doc["Correct Answer"].strip().strip("()").upper()


def _pair(doc: Document) -> dict[str, str]:
    return {"pair": str((int(doc["Index"]) - 1) // 2)}


def _images(doc: Document) -> list[Any]:
    return [doc["image"].convert("RGB")]


reading = Reading(images=_images, question=_text, options=_options, target=_target, groups=_pair)
images, prompt, target, judge = reading.images, reading.prompt, reading.target, reading.judge
