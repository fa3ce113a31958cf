"""What the `paper` tasks share: the prompt, the reading of an answer, the averages.

A benchmark describes its documents with a `Reading`; lmms-eval's hooks are made from it. Prompt and scores follow the
evaluation of the public release, except that the answer is read strictly; the release's reading is kept beside it.
Imported by lmms-eval through the task YAMLs; torch-free.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.evaluation.extract import read_release, read_strict

Document = dict[str, Any]
INSTRUCTION = "\nAnswer with the option's letter from the given choices directly."


def paper_prompt(question: str, options: list[str]) -> str:
    """Question, "Options:", lettered options, the instruction; the text that follows the image."""
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False))
    return f"{question}\nOptions:{listed}{INSTRUCTION}"


def _nothing(doc: Document) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Reading:
    """How one benchmark's documents are read.

    images: RGB pictures in prompt order. question, options: texts, no letters. target: the right letter, upper case.
    groups: the partitions a score may be split by ("category", "cycle", "pair"); the two questions of a pair share a
    cluster, as questions on one image do.
    """

    images: Callable[[Document], list[Any]]
    question: Callable[[Document], str]
    options: Callable[[Document], list[str]]
    target: Callable[[Document], str]
    groups: Callable[[Document], dict[str, str]] = _nothing

    def prompt(self, doc: Document) -> str:
        """lmms-eval's `doc_to_text`."""
        return paper_prompt(self.question(doc).strip(), self.options(doc))

    def judge(self, doc: Document, results: list[str]) -> dict[str, dict[str, Any]]:
        """lmms-eval's `process_results`: one record, under the name of every metric that counts it."""
        response, target = results[0], self.target(doc)
        strict, release = read_strict(response, self.options(doc)), read_release(response)
        record = {
            "prediction": strict,
            "correct": strict == target,
            "prediction_release": release,
            "correct_release": release == target,
            "groups": self.groups(doc),
        }
        names = ["accuracy", "accuracy_release"]
        if category := record["groups"].get("category"):
            names.append(category)  # the metric of that name averages the documents that carry it
        if "pair" in record["groups"]:
            names.append("pair_accuracy")
        return dict.fromkeys(names, record)


def accuracy(records: list[dict[str, Any]]) -> float:
    """Share of records whose strictly read answer is right, 0 to 1."""
    return sum(r["correct"] for r in records) / len(records)


def accuracy_release(records: list[dict[str, Any]]) -> float:
    """Share of records right by the release's reading, 0 to 1."""
    return sum(r["correct_release"] for r in records) / len(records)


def pair_accuracy(records: list[dict[str, Any]]) -> float:
    """Share of pairs with both questions right, 0 to 1; 0 if no pair is complete."""
    pairs = defaultdict(list)
    for record in records:
        pairs[record["groups"]["pair"]].append(record["correct"])
    complete = [all(both) for both in pairs.values() if len(both) == 2]
    return sum(complete) / len(complete) if complete else 0.0
