"""Zooming: a first pass asks where to look, the picture is cropped there or the clip cut, and a second pass answers with both. Or the
benchmark's annotation says where, without a first pass.

Boxes are read as Qwen2.5-VL states them (pixels of the resized picture, `{"bbox_2d": [x1, y1, x2, y2]}`), as bare lists, or as
shares of the picture; of several pictures the answer must name the one that its box is in (`"image": 2`); spans as `[12.5, 18.0]`
seconds or `[00:12, 00:18]`. Whatever cannot be used leaves the question as it is, with the reason beside its answer.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from models.backbone.boxes import rectangle
from models.backbone.clips import Span
from models.backbone.pictures import MOST_ASPECT, Box, Unreadable
from models.config import DecodeSpec, Images
from models.evaluation.boxes import SEVERAL, Places
from models.evaluation.clips import ClipReader, span_of
from models.evaluation.known import changed
from models.evaluation.vision import merged_grid, rgb

if TYPE_CHECKING:
    from models.evaluation.engine import Engine, Message, Question

ASK_BOX = (
    "\nDo not answer yet. Locate the region of the picture that the question is about, and output its bounding box in JSON format: "
    '{"bbox_2d": [x1, y1, x2, y2]}'
)
ASK_PICTURE_AND_BOX = (
    "\nDo not answer yet. Locate the region that the question is about, and output the number of the picture that it is in, from 1 to {pictures}, "
    'and its bounding box there in JSON format: {{"image": number, "bbox_2d": [x1, y1, x2, y2]}}'
)
"""Of a question about several pictures, which are numbered in the order in which they are shown."""
ASK_SPAN = "\nDo not answer yet. Locate the moment of the video that the question is about, and output its start and end in seconds: [start, end]"
MAX_NEW_TOKENS = 64
"""Of the first pass."""
_JSON = re.compile(r'"bbox_2d"\s*:\s*\[([^\[\]]*)\]')
_OBJECT = re.compile(r'\{[^{}]*"bbox_2d"[^{}]*\}')
_LIST = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")
Record = dict[str, Any]
"""What became of a question's zoom: of a first pass `said` (its answer) and `tokens` (how many), and `box` (left, top, right, bottom in
pixels), `span` (seconds), `boxes` (by the number of its picture, of a question about several) or `whole` (why none)."""


class Whole(ValueError):
    """Why there is nothing to zoom to."""


def box_in(said: str, resized: tuple[int, int]) -> Box:
    """The first box of an answer as shares of the picture. resized: (width, height) as the model saw it. Raises Whole."""
    found = _JSON.search(said) or _LIST.search(said)
    if found is None:
        raise Whole("no box in the answer")
    parts = [part.strip() for part in found[1].split(",")]
    if len(parts) != 4 or not all(map(_NUMBER.fullmatch, parts)):
        raise Whole("no box in the answer")
    left, top, right, bottom = map(float, parts)
    if max(left, top, right, bottom) > 1:
        left, right, top, bottom = left / resized[0], right / resized[0], top / resized[1], bottom / resized[1]
    if right <= left or bottom <= top:
        raise Whole("empty box")
    if min(left, top) < 0 or max(right, bottom) > 1:
        raise Whole("box outside the picture")
    return left, top, right, bottom


def picture_and_box_in(said: str, resized: Sequence[tuple[int, int]]) -> tuple[int, Box]:
    """The number of the picture (from 0) that the first JSON object with a box in it names, and its box as `box_in` reads it. resized: of each
    picture. Raises Whole."""
    found = _OBJECT.search(said)
    if found is None:
        raise Whole("no box in the answer")
    try:
        number = json.loads(found[0]).get("image")
    except ValueError:
        number = None
    if type(number) is not int:
        raise Whole("no picture's number in the answer")
    if not 1 <= number <= len(resized):
        raise Whole("no such picture")
    return number - 1, box_in(found[0], resized[number - 1])


def span_in(said: str, seconds: float) -> Span:
    """The first span of an answer, in seconds of a clip of so many. Raises Whole."""
    found = _LIST.search(said)
    parts = [part.strip(" s\"'") for part in found[1].split(",")] if found else []
    times = [_seconds(part) for part in parts]
    if len(times) != 2 or None in times:
        raise Whole("no span in the answer")
    begin, end = times
    if end <= begin:
        raise Whole("empty span")
    if begin < 0 or begin >= seconds or end > math.ceil(seconds):
        raise Whole("span outside the clip")
    return begin, min(end, seconds)


def _seconds(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    clock = _CLOCK.fullmatch(text)
    return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3]) if clock else None


def zoomed(
    engine: Engine,
    questions: Sequence[Question],
    chats: Sequence[list[Message]],
    images: Images,
    reader: ClipReader,
    ends: str,
    instead: Callable[[float], Span] | None = None,
) -> list[tuple[Question, Record]]:
    """Each question as the second pass asks it, and what became of its zoom.

    chats: the questions' conversations with their media. A question about several clips, or about clips and pictures, is asked as it is.
    instead: the span of a clip of so many seconds, where the answer names none.
    """
    found: list[tuple[Question, Record]] = [
        (question, {"said": "", "tokens": 0, "whole": SEVERAL if question.images else "no picture"}) for question in questions
    ]
    alone = [at for at, question in enumerate(questions) if len(question.images) == 1]
    several = [at for at, question in enumerate(questions) if len(question.images) > 1 and not question.has_clips]
    for group in filter(None, (alone, several)):  # apart, so that those beside them change no digit of the former
        first = [_with(chats[at], {"type": "text", "text": _request(questions[at])}) for at in group]
        asked = engine.prepare(first, images, [questions[at].reload for at in group], encoded=False, reader=reader)
        spec = DecodeSpec(latent_steps=0, start="never", max_new_tokens=MAX_NEW_TOKENS, ends=ends)
        said = engine.answer(asked, spec, images)
        for at, answer in zip(group, said, strict=True):
            record: Record = {"said": answer.response, "tokens": answer.new_tokens}
            try:
                media = questions[at].reload()
                try:
                    places = _places_in(engine, media, answer.response, images, reader)
                except Whole:
                    if instead is None or not questions[at].has_clips:
                        raise
                    places = {0: instead(reader.facts(media[0]).seconds)}
                question, shown = _second(engine, questions[at], chats[at], places, images, reader)
            except Whole as why:
                question, shown = questions[at], {"whole": str(why)}
            found[at] = question, record | shown
    return found


def annotated(
    engine: Engine,
    questions: Sequence[Question],
    chats: Sequence[list[Message]],
    places: Sequence[Places],
    images: Images,
    reader: ClipReader,
) -> list[tuple[Question, Record]]:
    """The same at given places, one mapping for each question, empty where nothing is annotated."""
    found: list[tuple[Question, Record]] = []
    for question, chat, own in zip(questions, chats, places, strict=True):
        try:
            if not own:
                raise Whole("nothing is annotated")
            found.append(_second(engine, question, chat, own, images, reader))
        except Whole as why:
            found.append((question, {"whole": str(why)}))
    return found


def _request(question: Question) -> str:
    """What the first pass is asked, behind the question."""
    if question.has_clips:
        return ASK_SPAN
    return ASK_BOX if len(question.images) == 1 else ASK_PICTURE_AND_BOX.format(pictures=len(question.images))


def _places_in(engine: Engine, media: Sequence[Any], said: str, images: Images, reader: ClipReader) -> Places:
    """What a first pass says of a clip, or of one picture or several. Raises Whole."""
    if isinstance(media[0], str):
        return {0: span_in(said, reader.facts(media[0]).seconds)}
    processor = engine.image_processor(images)
    cell = processor.patch_size * processor.merge_size
    resized = [(across * cell, down * cell) for down, across in (merged_grid(processor, seen) for seen in media)]
    if len(media) == 1:
        return {0: box_in(said, resized[0])}
    return dict([picture_and_box_in(said, resized)])


def _second(
    engine: Engine, question: Question, chat: list[Message], places: Places, images: Images, reader: ClipReader
) -> tuple[Question, Record]:
    """The question with what lies at the places, each behind the whole of it, and these places. Raises Whole."""
    media, parts, shown = question.reload(), {}, {}
    closer: dict[int, Any] = {}
    for number, place in places.items():
        if number >= len(media):
            raise Whole(f"annotated is picture {number}, and there are {len(media)}")
        if isinstance(seen := media[number], str):
            seconds = reader.facts(seen).seconds
            if place[0] >= seconds:
                raise Whole("span outside the clip")
            shown[number] = [place[0], min(place[1], seconds)]
            closer[number] = tuple(shown[number])
            parts[number] = {"type": "video", "url": span_of(seen, closer[number])}
        else:
            processor = engine.image_processor(images)
            crop = rectangle(place, seen.width, seen.height, processor.patch_size * processor.merge_size)
            width, height = crop[2] - crop[0], crop[3] - crop[1]
            if max(width, height) > MOST_ASPECT * min(width, height):
                raise Whole("box too thin")
            shown[number], closer[number] = list(crop), crop
            parts[number] = {"type": "image", "url": _cropped(seen, crop)}
    (second,) = engine.prepare([_with_media(chat, parts)], images, [partial(_reloaded, question, closer)], encoded=False, reader=reader)
    try:
        if second.rejected:
            raise Whole(second.rejected)
        if second.has_clips:
            engine.features_of([second], images)
    except Unreadable as error:  # frames that the whole clip did not show
        raise Whole(f"{error.reason}: {error.path.name}") from None
    if len(media) > 1:
        return second, {"boxes": {str(number): box for number, box in shown.items()}}
    return second, {"span" if question.has_clips else "box": shown[0]}


def _cropped(picture: Any, box: tuple[int, int, int, int]) -> Any:
    return changed(picture, ("crop", box), lambda whole: rgb(whole).crop(box))


def _reloaded(question: Question, closer: Mapping[int, Any]) -> list[Any]:
    """The question's pictures and clips, behind each what is shown of it again."""
    found = []
    for number, seen in enumerate(question.reload()):
        found.append(seen)
        if number in closer:
            found.append(span_of(seen, closer[number]) if isinstance(seen, str) else _cropped(seen, closer[number]))
    return found


def _with(chat: list[Message], part: Mapping[str, Any]) -> list[Message]:
    """The conversation with something more at the end of what the user says last."""
    return [*chat[:-1], {**chat[-1], "content": [*chat[-1]["content"], part]}]


def _with_media(chat: list[Message], parts: Mapping[int, Mapping[str, Any]]) -> list[Message]:
    """The conversation with pictures or clips behind those of these numbers."""
    media = count()

    def behind(old: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        more = parts.get(next(media)) if old["type"] in ("image", "video") else None
        return (old,) if more is None else (old, more)

    return [{**message, "content": [one for old in message["content"] for one in behind(old)]} for message in chat]


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of samples.jsonl's rows, how many were answered from the whole alone, by reason; {} where nothing zoomed."""
    records = [row["zoom"] for row in rows if "zoom" in row]
    reasons = Counter(record["whole"] for record in records if "whole" in record)
    return (
        {"zoom": {"n": len(records), "whole": reasons.total(), "reasons": dict(sorted(reasons.items()))}}
        if records
        else {}
    )
