"""NExT-GQA's files as records of clips {video, question, answer, temporal_span}: its questions with the spans that prove their answers.

    val.csv                 video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4   one question a line
    gsub_val.json           {video_id: {"location": {qid: [[begin, end], …]}, …}}, in seconds
    map_vid_vidorID.json    {video_id: "1164/4010069381"}: where the clip lies, without its `.mp4`

As published at https://github.com/doc-doc/NExT-GQA (datasets/nextgqa): val has 3,358 questions and test 5,553; train.csv has no spans.
Without the map, clips are named VIDEO_ID.mp4. A question is written as VisReflect's release asks in its evaluation, and an answer as it forces
answers to begin there; what it trained on is not published.
"""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.schema import ANSWER_PREFIX
from models.training.jsonlist import DataError
from models.training.parse import Form, Rejected

KIND = "nextgqa"
"""`ds_type` of such a data set."""
OPTIONS = ("a0", "a1", "a2", "a3", "a4")
NEEDED = ("video_id", "question", "answer", "qid", *OPTIONS)
INSTRUCTION = "\nAnswer with the option's letter from the given choices directly."
MAP = "map_vid_vidorID.json"
WHERE = "it is in datasets/nextgqa of NExT-GQA's repository"


class Questions(Form):
    """One file of questions, with the files of spans and places that lie beside it."""

    def __init__(self, annotations: Path) -> None:
        """Raises DataError for a file that is missing or is not what it should be."""
        spans, places = annotations.with_name(f"gsub_{annotations.stem}.json"), annotations.with_name(MAP)
        if not spans.is_file():
            raise DataError(f"{spans}: no such file, and {annotations.name} has no spans without it; {WHERE}, for val and test alone")
        self.annotations, self.spans, self.places = annotations, spans, places
        self._spans = _table(spans)
        self._places = _table(places) if places.is_file() else None
        self.files = (annotations, spans) + ((places,) if self._places is not None else ())
        with annotations.open("rb") as file:
            self._names = _cells(file.readline()) or []
        if missing := [name for name in NEEDED if name not in self._names]:
            raise DataError(f"{annotations}: line 1: no column {', '.join(map(repr, missing))}; {WHERE} (NExT-QA's own has others)")

    def entries(self) -> Iterator[tuple[int, tuple[int, int, list[str] | None]]]:
        """Number and (first byte, bytes, cells) of every question's line; None for cells that cannot be told apart. Blank lines are none,
        and have numbers, so that a number says which line it is."""
        with self.annotations.open("rb") as file:
            start = len(file.readline())
            for number, line in enumerate(file):
                if line.strip():
                    yield number, (start, len(line), _cells(line))
                start += len(line)

    def value(self, text: bytes) -> list[str] | None:
        """The cells of one line, as in `entries`."""
        return _cells(text)

    def record(self, cells: list[str] | None, number: int) -> dict[str, Any]:
        """The record of question `number`, from 0. Raises Rejected, naming line, field and what is wrong with it."""
        line = f"line {number + 2}"
        if cells is None or len(cells) != len(self._names):
            found = "not UTF-8, or a quote that is not closed" if cells is None else f"{len(cells)} cells for {len(self._names)} columns"
            raise Rejected("malformed entry", f"{line}: {found}; correct the line")
        row = dict(zip(self._names, cells, strict=True))
        if empty := [name for name in NEEDED if not row[name].strip()]:
            raise Rejected("malformed entry", f"{line}: field {empty[0]!r} is empty; fill it in")
        options = [row[name] for name in OPTIONS]
        if options.count(row["answer"]) != 1:
            raise Rejected(
                "malformed entry",
                f"{line}, field 'answer': {row['answer']!r} is {options.count(row['answer'])} of the five options; "
                "write the text of one of them (not its number, as in NExT-QA)",
            )
        shown = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, options)]
        return {
            "video": self._place(row["video_id"], line),
            "question": "\n".join([row["question"], *shown]) + INSTRUCTION,
            "answer": f"{ANSWER_PREFIX} {string.ascii_uppercase[options.index(row['answer'])]}",
            "temporal_span": self._span(row["video_id"], row["qid"], line),
        }

    def _place(self, video: str, line: str) -> str:
        if self._places is None:
            return f"{video}.mp4"
        if not isinstance(place := self._places.get(video), str):
            raise Rejected("missing clip", f"{line}, field 'video_id': {self.places.name} has no place of {video}; add it, or take the map away")
        return f"{place}.mp4"

    def _span(self, video: str, question: str, line: str) -> Any:
        known = self._spans.get(video)
        located = known.get("location") if isinstance(known, dict) else None
        found = located.get(question) if isinstance(located, dict) else None
        if not found:
            raise Rejected("bad span", f"{line}: {self.spans.name} has no span of video {video}, question {question}; add [[begin, end]] in seconds")
        return found


def _cells(line: bytes) -> list[str] | None:
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


def _table(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as why:
        raise DataError(f"{path}: not valid JSON ({why}); {WHERE}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object with a video_id for each name, got {type(found).__name__}; {WHERE}")
    return found
