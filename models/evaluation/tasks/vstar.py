"""V*Bench: 115 questions on direct attributes (four options), 76 on relative positions (two options).

Question and options are one text, "… (A) … (B) …", that ends in the very instruction the prompt adds; it is removed.
Some copies of the data set have lost the column `category`: it follows from the number of options.
"""

from __future__ import annotations

import re
from typing import Any

from models.evaluation.tasks.paper import INSTRUCTION, Document, Reading

_OPTION = re.compile(r"\(([A-E])\)\s*(.*?)(?=\s*\([A-E]\)|$)", re.DOTALL)


def _text(doc: Document) -> str:
    return doc["text"].replace(INSTRUCTION.strip(), "")


def _options(doc: Document) -> list[str]:
    return [option.strip() for _, option in _OPTION.findall(_text(doc))]


def _category(doc: Document) -> dict[str, str]:
    inferred = "relative_position" if len(_options(doc)) == 2 else "direct_attributes"
    return {"category": doc.get("category") or inferred}


def _images(doc: Document) -> list[Any]:
    return [doc["image"].convert("RGB")]


reading = Reading(
    images=_images,
    question=lambda doc: _text(doc).split("(A)")[0],
    options=_options,
    target=lambda doc: doc["label"].strip().upper(),
    groups=_category,
)
images, prompt, target, judge = reading.images, reading.prompt, reading.target, reading.judge
