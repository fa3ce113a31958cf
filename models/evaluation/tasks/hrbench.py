"""HR-Bench 4K and 8K: 200 images, each question under four rotations of its options; `single` is FSP, `cross` FCP.

`judge_stock` replaces the stock judge, which asks GPT when its own rules find no option: here such an answer is wrong.
Everything else of the stock task (its rules, prompt and averages) is the stock code.
"""

from __future__ import annotations

import math
import string
from typing import Any

from models.evaluation.tasks.paper import Document, Reading


def _images(doc: Document) -> list[Any]:
    import base64
    import io

    from PIL import Image

    return [Image.open(io.BytesIO(base64.b64decode(doc["image"]))).convert("RGB")]


def _options(doc: Document) -> list[str]:
    """Texts of A, B, … as far as the document has them (a missing one is None or NaN)."""
    texts = [doc.get(letter) for letter in string.ascii_uppercase]
    return [str(t) for t in texts if t is not None and not (isinstance(t, float) and math.isnan(t))]


reading = Reading(
    images=_images,
    question=lambda doc: doc["question"],
    options=_options,
    target=lambda doc: doc["answer"].strip().upper(),
    groups=lambda doc: {"category": doc["category"], "cycle": str(doc["cycle_category"])},
)
images, prompt, target, judge = reading.images, reading.prompt, reading.target, reading.judge


def judge_stock(doc: Document, results: list[str]) -> dict[str, dict[str, Any]]:
    """lmms-eval's `process_results` for the stock protocol: the stock rules for option letter and option text, no GPT."""
    from lmms_eval.tasks.hrbench.hrbench_evals import HRBenchEval

    rules = HRBenchEval(api_key="", max_workers=1)
    options = dict(zip(string.ascii_uppercase, _options(doc), strict=False))
    found = rules.can_infer(results[0].strip(), options)
    record = {
        "index": doc["index"],
        "cycle_category": doc["cycle_category"],
        "gpt_score": int(bool(found) and found.lower() == doc["answer"].strip().lower()),
        "prediction": found or None,
    }
    return {doc["category"]: record, "average": record}
