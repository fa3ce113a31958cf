"""Whether a task's own code can score and count its questions: found before anything is decoded, and not when all is decoded."""

from __future__ import annotations

import contextlib
import inspect
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from lmms_eval.api.metrics import mean as lmms_eval_mean
from loguru import logger

from models.evaluation.mirror import Task

ANSWERS = ("", "A", "I do not know.")
"""Tried one after the other: that a task's code cannot take some of them says nothing of the data."""
_SHOWN = 60
"""Characters of a field."""
_TRIED = 20
"""Other questions with the same value of a field, to see whether that value can be counted."""
Aggregate = Callable[[list[Any]], Any]


class _Read(dict[str, Any]):
    """A document that knows which of its fields were read."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        self.read: dict[str, None] = {}

    def __getitem__(self, name: str) -> Any:
        self.read[name] = None
        return super().__getitem__(name)


def check(task: Task) -> None:
    """Scores made-up answers to every question, and counts them. Raises ValueError naming the first question with which that cannot
    be done, and its fields."""
    documents = [_Read(document) for document in task.eval_docs_no_media]
    scored = [_scored(task, document, number) for number, document in enumerate(documents)]
    for metric, aggregate in task.aggregation().items():
        records = {number: one[metric] for number, one in enumerate(scored) if metric in one}
        with quiet(aggregate) as alone:
            _check_counting(alone, _name(aggregate), documents, records)


def _check_counting(aggregate: Aggregate, name: str, documents: Sequence[_Read], records: Mapping[int, Any]) -> None:
    """records: by the number of their question."""
    numbers = list(records)
    if (found := _uncounted(aggregate, list(records.values()))) is None:
        return
    number, key = numbers[found[0]], found[1]
    document = documents[number]
    named = [field for field, value in document.items() if (value is None or isinstance(value, (str, int))) and str(value) and str(value) in key]
    alone = [
        field for field in named
        if not any(_error(aggregate, [records[n]]) is None for n in _alike(documents, numbers, number, field))
    ]  # fmt: skip
    if not named:  # the key is of the made-up answer, and says nothing of the data
        return
    fields = alone or named
    like = sum(all(other.get(field) == document[field] for field in fields) for other in documents)
    raise ValueError(
        f"question {number} could be answered and not counted: {name} of lmms-eval knows no {', '.join(f'{f} {document[f]!r}' for f in fields)} "
        f"({like} of {len(documents)} questions); correct the field, or take {'it' if like == 1 else 'them'} out"
    )


def _alike(documents: Sequence[_Read], numbers: Sequence[int], number: int, field: str) -> list[int]:
    """Some other questions with the same value of a field."""
    like = [n for n in numbers if n != number and documents[n].get(field) == documents[number][field]]
    return like[:: max(1, len(like) // _TRIED)]


def _scored(task: Task, document: _Read, number: int) -> Mapping[str, Any]:
    """What the task says of an answer."""
    for answer in (*ANSWERS, None):
        try:
            return task.process_results(document, [str(task.doc_to_target(document)) if answer is None else answer])
        except KeyError as error:
            if error.args and isinstance(error.args[0], str) and error.args[0] in document.read and error.args[0] not in document:
                raise ValueError(f"no column {error.args[0]}, which scoring reads (it has {', '.join(document)})") from None
            why: Exception = error
        except Exception as error:  # noqa: BLE001 - whatever a task's own code raises
            why = error
    fields = ", ".join(f"{name} {str(document[name])[:_SHOWN]!r}" for name in dict(document.read))
    raise ValueError(
        f"question {number} could be answered and not scored: lmms-eval's code fails on {fields or 'it'} "
        f"({type(why).__name__}: {' '.join(str(why).split())}); correct these fields, or take the question out"
    )


def _error(aggregate: Aggregate, records: list[Any]) -> KeyError | None:
    try:
        aggregate(records)
    except KeyError as error:
        return error
    except Exception:  # noqa: BLE001, S110 - made-up answers may be more than a task's code can take
        pass
    return None


def _uncounted(aggregate: Aggregate, records: list[Any]) -> tuple[int, str] | None:
    """(place of the first record that the aggregation does not know, the key that it looks up); None where it knows all."""
    if _error(aggregate, records) is None:
        return None
    known, unknown = 0, len(records)  # records[:known] can be counted, records[:unknown] cannot
    while unknown - known > 1:
        middle = (known + unknown) // 2
        known, unknown = (known, middle) if _error(aggregate, records[:middle]) else (middle, unknown)
    error = _error(aggregate, records[known:unknown])
    return (known, str(error.args[0])) if error is not None and error.args else None


@contextlib.contextmanager
def quiet(aggregate: Callable[..., Any]) -> Any:
    """The aggregation as a function of the records alone, which neither prints nor logs, nor leaves files: it is called many times."""
    module = getattr(aggregate, "__module__", "") or ""
    logger.disable(module)
    try:
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as submissions:
            given = {"args": SimpleNamespace(output_path=submissions)} if "args" in inspect.signature(aggregate).parameters else {}
            yield aggregate if aggregate is lmms_eval_mean else lambda records: aggregate(records, **given)
    finally:
        logger.enable(module)


def _name(aggregate: Any) -> str:
    return getattr(aggregate, "__name__", None) or getattr(getattr(aggregate, "func", None), "__name__", "the aggregation")
