"""BLINK, five of its fourteen configurations. Several images stand before the question, in column order."""

from __future__ import annotations

import re
from typing import Any

from models.evaluation.tasks.paper import Document, Reading


def _images(doc: Document) -> list[Any]:
    return [doc[key].convert("RGB") for key in doc if re.fullmatch(r"image_\d+", key) and doc[key] is not None]


reading = Reading(
    images=_images,
    question=lambda doc: doc["question"],
    options=lambda doc: list(doc["choices"]),
    target=lambda doc: doc["answer"].strip("() ").upper(),
)
images, prompt, target, judge = reading.images, reading.prompt, reading.target, reading.judge
