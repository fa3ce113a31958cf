"""MVBench, Video-MME and MLVU as VisReflect's released evaluation asks them and counts their answers. Torch-free.

Clips are found as lmms-eval's own tasks find them. A question whose clip is not there is left out of the denominator, one whose
clip cannot be read counts as wrong, as in the release. That MLVU's options, which stand in its questions, get the form of the
others' follows no example.
"""

from __future__ import annotations

import re
import string
from typing import Any

from models.backbone.clips import MISSING
from models.evaluation.releases import read_visreflect
from models.evaluation.tasks.paper import INSTRUCTION, Document

_LISTED = re.compile(r"^\(([A-Z])\) ?", re.MULTILINE)


def mvbench_prompt(doc: Document, lmms_eval_specific_kwargs: Any = None) -> str:
    return _prompt(doc["question"], [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, doc["candidates"])])


def videomme_prompt(doc: Document, lmms_eval_specific_kwargs: Any = None) -> str:
    """Its options begin with their letters."""
    return _prompt(doc["question"], doc["options"])


def mlvu_prompt(doc: Document, lmms_eval_specific_kwargs: Any = None) -> str:
    """Its question lists its options as "(A) …"."""
    return _prompt(_LISTED.sub(r"\1. ", doc["question"].strip()), [])


def _prompt(question: str, options: list[str]) -> str:
    return "\n".join([question.strip(), *options]) + INSTRUCTION


def target(doc: Document) -> str:
    """The right letter. An answer of one letter is that letter, even if it is an option's text."""
    answer = doc["answer"].strip()
    if len(answer) == 1 and answer.upper() in string.ascii_uppercase:
        return answer.upper()
    return string.ascii_uppercase[doc["candidates"].index(doc["answer"])] if "candidates" in doc else answer.strip("() ").upper()


def judge(doc: Document, results: list[str]) -> dict[str, dict[str, Any]]:
    """lmms-eval's `process_results`; {} for a question that does not count."""
    if results[0] == MISSING:
        return {}
    letter = read_visreflect(results[0])
    return {"accuracy": {"score": int(letter == target(doc)), "prediction": letter, "type": doc.get("task_type")}}


def by_type(records: list[dict[str, Any]]) -> float:
    """The mean over MLVU's types of question of their shares of right answers, 0 to 1."""
    types: dict[str, list[int]] = {}
    for record in records:
        types.setdefault(record["type"], []).append(record["score"])
    return sum(sum(scores) / len(scores) for scores in types.values()) / len(types)
