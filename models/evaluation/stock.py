"""Tasks of lmms-eval for which the project has no code of its own: their questions and scores, through their own functions.

What a table needs of such a task is one number for each question and metric, in the metric's own units, whose mean over the
questions is what the task reports. Where the metric is a mean, that number is the question's score. Where it is none (F1, a
mean of means, a sum), it is the question's share of the jackknife: the metric with one cluster of questions left out says how
much that cluster contributes. Either way means, intervals and paired comparisons are computed alike.
"""

from __future__ import annotations

import math
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from lmms_eval.api.metrics import mean as lmms_eval_mean

from models.backbone.clips import MOST_DRIFT
from models.backbone.pictures import Unreadable, whole_files
from models.evaluation import countable
from models.evaluation.clips import looked_at
from models.evaluation.documents import Document, encoded
from models.evaluation.known import Facts, KnownPicture
from models.evaluation.mirror import Task, load_task
from models.evaluation.questions import MirrorQuestion, place_of
from models.evaluation.rows import clusters, said_in
from models.evaluation.scores import Row

MOST_GROUPS, LONGEST_GROUP = 100, 60
"""A column splits a benchmark into groups where it has at most so many values, each a text of at most so many characters."""
_RIGHT = ("score", "correct", "is_correct", "acc", "accuracy", "match")
"""Under these names a task's record of an answer says how right it is."""
_COMPARED = {"pred_answer", "answer"}
"""What tasks that keep no score of an answer compare when they count (MLVU)."""
_SUBSETS = 8
_GIF = "; lmms-eval takes every .gif for a picture: if it is a clip, name it .mp4 here and in the data, for FFmpeg goes by the content"
Aggregate = Callable[[list[Any]], Any]


@dataclass
class Scored:
    """One task's rows. aggregates: metric → the task's own number. not_means: metrics that are no mean of the questions' scores.
    whole: metric → why no question's share of it can be told."""

    rows: list[Row]
    aggregates: dict[str, float]
    not_means: list[str] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)


def score(
    name: str,
    task: Task,
    results: Mapping[str, Any],
    logged: Sequence[Mapping[str, Any]],
    answers: Mapping[Any, Any],
    pictures: Mapping[int, tuple[str, ...]],
) -> Scored:
    """Rows and numbers of one task.

    results, logged: lmms-eval's own of that task. answers: (task, doc_id) → Answer. pictures: doc_id → content hashes;
    questions that share one get one cluster. Of several filters the first is read.
    """
    docs = task.eval_docs_no_media
    samples = {sample["doc_id"]: sample for sample in reversed(logged)}  # of several filters the first remains
    if sorted(samples) != list(range(len(docs))):
        raise RuntimeError(f"{name}: lmms-eval logged {len(samples)} samples of {len(docs)} documents")
    groups, cluster = groups_of(docs), clusters({doc_id: pictures[doc_id] for doc_id in samples})
    metrics = task.aggregation()
    rows = [_row(name, samples[doc_id], metrics, groups[doc_id], cluster[doc_id]) for doc_id in sorted(samples)]
    scored = Scored(rows, {})
    for metric, aggregate in metrics.items():
        value = next((value for key, value in results.items() if key.startswith(f"{metric},")), None)
        held = [row for row in rows if metric in samples[row["doc_id"]]]
        if _number(value) is None or not held:
            continue  # a file for a submission, say
        records = [samples[row["doc_id"]][metric] for row in held]
        with countable.quiet(aggregate) as alone:
            shares, is_mean = _shares(alone, records, [row["cluster"] for row in held], float(value))
        scored.aggregates[metric] = float(value)
        if not is_mean:
            scored.not_means.append(metric)
        if shares is None:
            scored.whole[metric] = "it cannot be computed with some questions left out"
        for row, share in zip(held, shares or ()):
            row["scores"][metric] = share
    for row in rows:
        row |= said_in(answers[name, row["doc_id"]])
    return scored


def _row(name: str, sample: Mapping[str, Any], metrics: Iterable[str], groups: dict[str, str], cluster: str) -> Row:
    given = sample["filtered_resps"][0]
    text = str(given[0] if isinstance(given, list) and given else given).strip()
    target = sample["target"]
    return {
        "task": name,
        "doc_id": sample["doc_id"],
        "cluster": cluster,
        "groups": groups,
        "target": "; ".join(map(str, target)) if isinstance(target, (list, tuple)) else str(target),
        "prediction": text or None,
        "correct": _right([sample[metric] for metric in metrics if metric in sample]),
        "scores": {},
    }


def _right(records: Iterable[Any]) -> bool | None:
    """Whether an answer has full marks, where the task's records of it say so or hold what was read and the right answer: for people who
    look at single answers, and for the parts of a metric that is a mean over groups."""
    for record in records:
        if isinstance(record, dict) and _COMPARED <= record.keys() and not record.keys() & set(_RIGHT):
            return bool(record["pred_answer"] == record["answer"])
        held = [record.get(key) for key in _RIGHT] if isinstance(record, dict) else [record]
        if (value := next((n for one in held if (n := _number(one)) is not None), None)) is not None:
            return value >= 1
    return None


def groups_of(docs: Any) -> list[dict[str, str]]:
    """By doc_id: the values of the columns that split the documents into groups, as texts."""
    found: dict[str, list[str]] = {}
    for name in docs.column_names:
        values = docs[name]
        if all(isinstance(value, (str, int, bool)) for value in values):
            texts = [str(value) for value in values]
            if len(set(texts)) <= MOST_GROUPS and all(len(text) <= LONGEST_GROUP for text in texts):
                found[name] = texts
    return [{name: values[at] for name, values in found.items()} for at in range(len(docs))]


def stated(by_task: Mapping[str, Scored]) -> dict[str, Any]:
    """What result.json says beside the numbers: which metrics are no means, and that there are no option letters."""
    not_means = sorted({name for one in by_task.values() for name in one.not_means})
    whole = {name: why for one in by_task.values() for name, why in one.whole.items()}
    letters = {"likelihoods": "a task of lmms-eval's does not say which letters may answer"}
    return letters | ({"not_means": not_means} if not_means else {}) | ({"whole": whole} if whole else {})


def _number(value: Any) -> float | None:
    """None for what is no number: text, a mapping, NaN."""
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    return float(value) if isinstance(value, Real) and not math.isnan(value) else None


def _shares(
    aggregate: Aggregate, records: list[Any], cluster: list[str], value: float
) -> tuple[list[float] | None, bool]:
    """(each record's share of the metric, whether the metric is their mean)"""
    for scores in _candidates(records):
        if aggregate is lmms_eval_mean:
            return scores, True
        for unit in (1.0, 100.0):
            if _is_mean(aggregate, records, cluster, [unit * score for score in scores], value):
                return [unit * score for score in scores], True
    return jackknife(aggregate, records, cluster, value), False


def _candidates(records: list[Any]) -> Iterable[list[float]]:
    """What may be the records' scores: themselves, or what they all hold under one key."""
    plain = [_number(record) for record in records]
    if None not in plain:
        yield plain  # type: ignore[misc]
    if all(isinstance(record, dict) for record in records):
        shared = [key for key in records[0] if all(_number(record.get(key)) is not None for record in records)]
        for key in sorted(shared, key=lambda key: key not in _RIGHT):
            yield [float(_number(record[key])) for record in records]  # type: ignore[arg-type]


def _is_mean(aggregate: Aggregate, records: list[Any], cluster: list[str], scores: list[float], value: float) -> bool:
    """Whether the metric is the mean of these scores: of all, and of some halves of the clusters, so that no accident says so."""
    if abs(sum(scores) / len(scores) - value) > 1e-9 * max(1.0, abs(value)):
        return False
    names, draw = sorted(set(cluster)), random.Random(0)
    for _ in range(_SUBSETS):
        kept = set(draw.sample(names, max(1, len(names) // 2)))
        at = [k for k, one in enumerate(cluster) if one in kept]
        mean = sum(scores[k] for k in at) / len(at)
        found = _called(aggregate, [records[k] for k in at])
        if found is None or abs(found - mean) > 1e-9 * max(1.0, abs(mean)):
            return False
    return True


def jackknife(aggregate: Aggregate, records: list[Any], cluster: list[str], value: float) -> list[float] | None:
    """Each record's share of a metric that is no mean: shares average to `value`, and their variance between clusters is the
    delete-one-cluster jackknife's (Efron and Tibshirani 1993, ch. 11). None where a metric cannot do without a cluster.

    With θ of all n records, θ₋c without cluster c, θ̄ the mean of these over the k clusters, every record of c, of which there
    are m, gets θ + (k − 1)(θ̄ − θ₋c) · n / (k m).
    """
    sizes = Counter(cluster)
    n, k = len(records), len(sizes)
    if k == 1:
        return [value] * n
    without: dict[str, float] = {}
    for name in sizes:
        found = _called(aggregate, [record for record, one in zip(records, cluster) if one != name])
        if found is None:
            return None
        without[name] = found
    centre = sum(without.values()) / k
    return [value + (k - 1) * (centre - without[one]) * n / (k * sizes[one]) for one in cluster]


def _called(aggregate: Aggregate, records: list[Any]) -> float | None:
    try:
        return _number(aggregate(records))
    except Exception:  # noqa: BLE001 - whatever a task's own code raises, it says nothing of these records
        return None


def asked(task: Task, doc_id: int) -> MirrorQuestion:
    """One question as it is put. ValueError for one that is not put in text, pictures and clips; pictures.Unreadable where a clip
    is missing and the task's own code goes no further."""
    rows, decode = encoded(task.eval_docs)
    document = Document(rows[doc_id], decode)
    parts = [part for message in task.doc_to_messages(document) for part in message["content"]]
    if other := next((part for part in parts if part["type"] not in ("image", "video", "text")), None):
        file = f" ({url})" if isinstance(url := other.get("url"), str) else ""
        raise ValueError(f"it is asked with {other['type']}{file}, and only pictures, clips and text can be asked here")
    clips = tuple(part["url"] for part in parts if part["type"] == "video")
    if not all(isinstance(clip, str) for clip in clips):
        raise ValueError("it shows a part of a clip, and only whole files can be shown here")
    pictures = tuple(part["url"] for part in parts if part["type"] == "image")
    if named := next((picture for picture in pictures if isinstance(picture, str)), ""):
        gif = _GIF if named.lower().endswith(".gif") else ""
        raise ValueError(f"its picture is a file of its own ({named}), and what is evaluated are pictures in the data set{gif}")
    target = task.doc_to_target(document)
    listed = "; ".join(map(str, target)) if isinstance(target, (list, tuple)) else str(target)
    return MirrorQuestion("\n".join(part["text"] for part in parts if part["type"] == "text"), (), listed, pictures, clips=clips)


def asked_or_lost(task: Task, doc_id: int) -> MirrorQuestion:
    """The same for people: where a clip is missing, the question's text and why."""
    try:
        return asked(task, doc_id)
    except Unreadable as why:
        document = task.eval_docs[doc_id]
        return MirrorQuestion(str(task.doc_to_text(document)), (), str(task.doc_to_target(document)), (), lost=str(why))


def read_questions(mirror: Path, name: str, doc_ids: Iterable[int]) -> dict[int, MirrorQuestion]:
    """doc_id → question, of a task over the data set folder `mirror`. IndexError for a doc_id beyond it."""
    task = load_task(name, mirror)
    return {doc_id: asked(task, doc_id) for doc_id in sorted(set(doc_ids))}


@dataclass
class Looked:
    """What reading all questions of a task has shown. lost: doc_id → why its clip cannot be read. uneven: doc_id → (its clip, seconds
    by which frames lie elsewhere than the mean rate says, where that is more than `clips.MOST_DRIFT`). rotated: doc_id → a clip that its
    container marks as rotated. cut_off: doc_id → what Pillow
    says of a picture that it decodes only when it may fill in what is missing, as lmms-eval lets it."""

    n: int
    lost: dict[int, Unreadable] = field(default_factory=dict)
    uneven: dict[int, tuple[str, float]] = field(default_factory=dict)
    rotated: dict[int, str] = field(default_factory=dict)
    cut_off: dict[int, str] = field(default_factory=dict)


def read_every_question(mirror: Path, name: str) -> Looked:
    """All of a task's questions, their pictures decoded and their clips opened. ValueError names the first that cannot be asked,
    scored or counted, or a column that scoring misses."""
    try:
        task = load_task(name, mirror)
    except Exception as error:  # lmms-eval tries a task's code on the first question as it loads it
        if not {"doc_to_text", "doc_to_target", "doc_to_choice"} & {frame.name for frame in traceback.extract_tb(error.__traceback__)}:
            raise
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"question 0 cannot be asked: lmms-eval's code fails on it ({why}); correct its fields, or take it out") from None
    task.keep_newest_pixels()
    countable.check(task)
    found = Looked(len(task.eval_docs))
    mended: dict[Facts, str] = {}
    for doc_id in range(found.n):
        try:
            try:
                with whole_files:
                    question = _decoded(task, doc_id)
            except (Unreadable, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever they meet
                question = _decoded(task, doc_id)  # raises too, unless the reason was a picture that is not whole
                found.cut_off[doc_id] = " ".join(str(error).split()) or type(error).__name__
                mended |= {one.facts: found.cut_off[doc_id] for one in question.images if isinstance(one, KnownPicture)}
            for picture in question.images:  # what an earlier row has shown is not decoded again
                if isinstance(picture, KnownPicture) and picture.facts in mended:
                    found.cut_off[doc_id] = mended[picture.facts]
            for clip in question.clips:
                facts, _ = looked_at(clip)
                if facts.drift > MOST_DRIFT:
                    found.uneven[doc_id] = clip, facts.drift
                if facts.turn:
                    found.rotated[doc_id] = clip
        except Unreadable as error:
            found.lost[doc_id] = error
        except Exception as error:  # noqa: BLE001 - a task's own code meets the data: whatever it raises, the question cannot be asked
            said = " ".join(str(error).split())
            kind = f"no {error.args[0]!r}" if isinstance(error, KeyError) and error.args else said or type(error).__name__
            kind = _without_picture(task, mirror, name, doc_id) or kind
            raise ValueError(f"question {doc_id} cannot be asked ({kind})") from None
    return found


def _decoded(task: Task, doc_id: int) -> MirrorQuestion:
    """A question with its pictures decoded, by this question or by one before."""
    question = asked(task, doc_id)
    for picture in question.images:
        if not isinstance(picture, KnownPicture):
            picture.load()
    return question


def _without_picture(task: Task, mirror: Path, name: str, doc_id: int) -> str:
    """Which column of which row gives no picture; "" where that is not why the question cannot be asked."""
    rows, decode = encoded(task.eval_docs)
    document = Document(rows[doc_id], decode)
    try:
        for one in task.own_visuals(document) or ():
            if hasattr(one, "load"):
                one.load()
    except Exception as error:  # noqa: BLE001 - as above
        if isinstance(error, KeyError) or not document.last_read:
            return ""
        where = f"row {doc_id} of the task's documents" if task.config.process_docs is not None else place_of(mirror, name, doc_id)
        return document.without_picture(error, where)
    return ""
