"""The rows of samples.jsonl: what lmms-eval logged for a question, joined with what the model did. Torch-free."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from models.evaluation.likelihood import of_right
from models.evaluation.scores import Row
from models.evaluation.tasks.paper import Reading

_READINGS = {
    "mmvp": "mmvp",
    "blink": "blink",
    "vstar": "vstar",
    "hrbench4k": "hrbench",
    "hrbench8k": "hrbench",
    "mmerealworld_lite": "mmerealworld",
}
Judged = tuple[str | None, bool]
"""(predicted letter, right or wrong)"""


def reading_of(benchmark: str) -> Reading:
    """How a benchmark's documents are read; the same documents under both protocols."""
    return importlib.import_module(f"models.evaluation.tasks.{_READINGS[benchmark]}").reading


def _mme(sample: Mapping[str, Any]) -> Judged:
    record = sample["mme_realworld_score"]
    predicted, target = record["pred_answer"], record["answer"]
    return predicted or None, target.lower() in predicted.lower()  # as its aggregation counts


_STOCK: dict[str, Callable[[Mapping[str, Any]], Judged]] = {
    "mmvp": lambda s: (s["mmvp_accuracy"]["pred_letter"] or None, s["mmvp_accuracy"]["is_correct"]),
    "blink": lambda s: (s["blink_acc"]["pred_parsed"] or None, s["blink_acc"]["is_correct"]),
    "vstar": lambda s: (s["vstar_overall_acc"]["prediction"], bool(s["vstar_overall_acc"]["score"])),
    "hrbench4k": lambda s: (s["average"]["prediction"], bool(s["average"]["gpt_score"])),
    "hrbench8k": lambda s: (s["average"]["prediction"], bool(s["average"]["gpt_score"])),
    "mmerealworld_lite": _mme,
}


def rows_of(
    task: str,
    benchmark: str,
    docs: Any,
    logged: list[Mapping[str, Any]],
    answers: Mapping[Any, Any],
    pictures: Mapping[int, tuple[str, ...]],
) -> list[Row]:
    """Rows of one task, by doc_id.

    docs: the task's documents without pictures. logged: lmms-eval's samples. answers: (task, doc_id) -> Answer.
    pictures: doc_id -> content hashes; questions that share a picture, or are one pair, get one cluster.
    lmms-eval's `doc_hash` is the same for every row, so everything is joined on doc_id; a question that any side lacks
    is an error.
    """
    reading = reading_of(benchmark)
    if sorted(s["doc_id"] for s in logged) != list(range(len(docs))):
        raise RuntimeError(f"{task}: lmms-eval logged {len(logged)} samples of {len(docs)} documents")
    groups = {doc_id: reading.groups(docs[doc_id]) for doc_id in range(len(docs))}
    shared = {d: (*pictures[d], *(f"pair {own['pair']}" for own in (groups[d],) if "pair" in own)) for d in groups}
    cluster = clusters(shared)
    rows = []
    for sample in sorted(logged, key=lambda s: s["doc_id"]):
        doc_id = sample["doc_id"]
        record = sample.get("accuracy") if task.startswith("vr_") else None
        predicted, correct = (record["prediction"], record["correct"]) if record else _STOCK[benchmark](sample)
        row: Row = {
            "task": task,
            "doc_id": doc_id,
            "cluster": cluster[doc_id],
            "groups": groups[doc_id],
            "target": str(sample["target"]).strip("() ").upper(),
            "prediction": predicted,
            "correct": bool(correct),
        }
        if record:
            row |= {"prediction_release": record["prediction_release"], "correct_release": record["correct_release"]}
        said = answers[task, doc_id]
        options = len(reading.options(docs[doc_id]))
        row |= said_in(said)
        rows.append(row | of_right(said.letters, row["target"], options))
    return rows


def said_in(answer: Any) -> Row:
    """The fields of a row that an Answer gives; `rejected` and `zoom` only where there is something to say."""
    fields = asdict(answer).items()
    return {name: value for name, value in fields if name != "letters" and (value is not None or name not in ("rejected", "zoom"))}


def clusters(shared: Mapping[int, Iterable[str]]) -> dict[int, str]:
    """doc_id -> cluster: questions that share a picture (or any other value), directly or through others, are one.

    shared: doc_id -> content hashes and other shared values. A cluster is named by its smallest value.
    """
    parent: dict[str, str] = {}

    def root(value: str) -> str:
        parent.setdefault(value, value)
        while parent[value] != value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    links = {doc: list(values) or [f"question {doc}"] for doc, values in shared.items()}
    for values in links.values():
        for value in values[1:]:
            first, other = sorted((root(values[0]), root(value)))
            parent[other] = first
    return {doc: root(values[0]) for doc, values in links.items()}
