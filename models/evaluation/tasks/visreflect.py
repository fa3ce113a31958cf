"""V*, BLINK and HR-Bench as VisReflect's released evaluation asks them and reads their answers. Torch-free.

Every question ends in the same instruction; letters are read by `releases.read_visreflect`. Where the options of HR-Bench are
separated, and that BLINK is asked by its own prompt, follows the one example of its prompts that was at hand.
"""

from __future__ import annotations

import string
from typing import Any

from models.evaluation.releases import read_visreflect
from models.evaluation.tasks.blink import images as blink_images
from models.evaluation.tasks.hrbench import images as hrbench_images
from models.evaluation.tasks.paper import INSTRUCTION, Document
from models.evaluation.tasks.vstar import images as vstar_images

__all__ = ["accuracy", "blink_images", "blink_prompt", "hrbench_images", "hrbench_prompt", "judge", "target", "vstar_images", "vstar_prompt"]

ASKED = "\nOutput the letter of the correct answer only."


def vstar_prompt(doc: Document) -> str:
    """The question's own instruction is replaced."""
    return doc["text"].replace(INSTRUCTION.strip(), "").rstrip() + ASKED


def blink_prompt(doc: Document) -> str:
    """BLINK's own prompt, which lists the options as "(A) …"."""
    return doc["prompt"].rstrip() + ASKED


def hrbench_prompt(doc: Document) -> str:
    options = ((letter, doc.get(letter)) for letter in string.ascii_uppercase)
    listed = "".join(f"\n({letter}){text}" for letter, text in options if isinstance(text, str))
    return doc["question"].strip() + listed + ASKED


def target(doc: Document) -> str:
    """The right letter."""
    return (doc["label"] if "label" in doc else doc["answer"]).strip("() ").upper()


def judge(doc: Document, results: list[str]) -> dict[str, dict[str, Any]]:
    """lmms-eval's `process_results`."""
    letter = read_visreflect(results[0])
    return {"accuracy": {"score": int(letter == target(doc)), "prediction": letter}}


def accuracy(records: list[dict[str, Any]]) -> float:
    """Share of right answers, 0 to 1."""
    return sum(record["score"] for record in records) / len(records)
