"""MME-RealWorld-Lite: 1919 questions with five options; perception and reasoning come from the column `category`."""

from __future__ import annotations

import re
from typing import Any

from models.evaluation.tasks.paper import Document, Reading


def _images(doc: Document) -> list[Any]:
    import base64
    import io

    from PIL import Image

    return [Image.open(io.BytesIO(base64.b64decode(doc["bytes"]))).convert("RGB")]


def _options(doc: Document) -> list[str]:
    return [re.sub(r"^\s*[(（][A-Z][)）]\s*", "", option) for option in doc["multi-choice options"]]


def _groups(doc: Document) -> dict[str, str]:
    return {"category": "perception" if "perception" in doc["category"].lower() else "reasoning"}


reading = Reading(
    images=_images,
    question=lambda doc: doc["question"],
    options=_options,
    target=lambda doc: doc["answer"].strip().upper(),
    groups=_groups,
)
images, prompt, target, judge = reading.images, reading.prompt, reading.target, reading.judge
