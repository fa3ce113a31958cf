"""Turns one entry of an annotation file into a checked sample, or rejects it with a named reason. Opens no pictures."""

from __future__ import annotations

import json
import math
import os
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from models.backbone.clips import MISSING, ClipFacts, Frames, Span, facts_of, frames_near, read_clip, timed
from models.backbone.pictures import Box, Unreadable, open_image, turned
from models.config import Surplus
from models.schema import Clips, Orientation
from models.training.jsonlist import entries
from models.training.places import Finder, NotThere

ROLES = ("human", "gpt")
REASONS = (
    "malformed entry", "bad roles", "image count", "special token", "missing image", "box count", "bad box", "bad box image",
    "unreadable picture", "picture too large", "picture shape", "too long", "bad span", MISSING, "unreadable clip",
)  # fmt: skip
"""Reasons for rejecting a sample, in the order of the checks."""
OVERSHOOT = 0.5
"""A coordinate up to this far outside 0..1 is clipped to the edge; one farther out means a box in pixels or thousandths."""


NESTED, CUT = "boxes not nested once", "box cut at the edge"
ENDLESS, INSTANT = "span cut at the end of its clip", "span without length, shown by one frame"
MISPLACED = {
    "human": ("<lvr>", "<lvr> in a question kept as text"),
    "gpt": ("<image>", "<image> in an answer kept as text"),
}
"""Role -> the placeholder that has no meaning there, as in the release, and how such a row is described."""


UNSTATED = Clips()
"""Default sampling of clips."""


class Rejected(ValueError):
    """One sample cannot be used. `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str, folders: Sequence[str] = ()) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.folders = reason, detail, tuple(folders)


@dataclass(frozen=True)
class Source:
    """One entry of the meta file, its paths resolved."""

    name: str
    form: Form
    """How its annotations are written."""
    images: Path
    kind: str = "Q_A"
    clips: Clips | None = None
    """How its clips are sampled; None until a recipe sets it."""

    @property
    def annotations(self) -> Path:
        """The file of its entries."""
        return self.form.files[0]


class Form:
    """How annotations are written: which bytes are an entry, and the record that stands for it. As it stands: JSON records."""

    def __init__(self, annotations: Path) -> None:
        self.files: tuple[Path, ...] = (annotations,)
        """All files that the records come from, the file of entries first."""

    def entries(self) -> Iterator[tuple[int, tuple[int, int, Any]]]:
        """Number and (first byte, bytes, value) of every entry. Raises DataError."""
        return enumerate(entries(self.files[0]))

    def value(self, text: bytes) -> Any:
        """Of one entry's bytes. Raises ValueError."""
        return json.loads(text)

    def record(self, value: Any, number: int) -> Any:
        """What is checked, of entry `number`. Raises Rejected."""
        return value


@dataclass(frozen=True)
class ImageFile:
    """An image of the data set."""

    key: str
    """`<ds_name>/<name in the annotation>`: the same on every machine."""
    path: Path
    orientation: Orientation = "upright"

    def open(self) -> Image.Image:
        """RGB pixels. Raises pictures.Unreadable."""
        return open_image(self.path, self.orientation)


@dataclass(frozen=True)
class ClipFile:
    """A clip of the data set."""

    key: str
    """`<ds_name>/<name in the annotation>`: the same on every machine."""
    path: Path
    clips: Clips = UNSTATED

    @property
    def facts(self) -> ClipFacts:
        """Raises pictures.Unreadable."""
        return _facts(self.path, self.clips.times)

    def open(self) -> Frames:
        """The frames that the model sees. Raises pictures.Unreadable."""
        return read_clip(self.path, self.clips)

    def frame(self, number: int, among: tuple[int, ...] = ()) -> Image.Image:
        """One frame in the clip's own size. among: those that are asked for one after the other, which are decoded together. Raises
        pictures.Unreadable."""
        among = among or (number,)
        wanted = (self.path, _state(self.path), among, self.clips.orientation)
        if _last.wanted != wanted:
            _last.frames, _last.wanted = frames_near(self.path, among, self.clips.orientation), wanted
        return _last.frames[number]


class _Last(threading.local):
    """Frames that a thread has read last, by number."""

    frames: dict[int, Image.Image]
    wanted: tuple[Any, ...] = ()
    """The clip and the frame numbers that `frames` holds."""


_last = _Last()


def _state(path: Path) -> tuple[int, int] | None:
    """Differs for different content; None if the file does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


_facts = lru_cache(maxsize=1 << 14)(facts_of)


@dataclass(frozen=True)
class Sample:
    """One conversation, checked."""

    id: str
    """`<ds_name>:<entry>`, entries counted from 0."""
    images: tuple[ImageFile | ClipFile, ...]
    """Pictures and clips, in the order of their placeholders."""
    conversations: tuple[dict[str, str], ...]
    """{"from": "human" | "gpt", "value": text} in turn; `<image>`, `<video>` and `<lvr>` still stand in the text."""
    boxes: tuple[Box, ...]
    """Normalised x0, y0, x1, y1 on the picture as `ImageFile.open` gives it, cut at its edges; the k-th belongs to the k-th `<lvr>`."""
    box_image: tuple[int, ...]
    """Image of every box, 0-based."""
    mends: tuple[str, ...] = ()
    """Descriptions of what was wrong and has been corrected."""
    spans: tuple[Span, ...] = ()
    """The parts of the sample's clip with the evidence, in seconds. Such a sample has one box, the whole frame, for its one segment."""


def parse(
    entry: Any,
    source: Source,
    number: int,
    paths: Finder | Sequence[str],
    *,
    surplus: Surplus = "skip",
    literals: re.Pattern[str] | None = None,
    tags: Sequence[int] = (),
    orientation: Orientation = "upright",
) -> Sample:
    """A checked sample, or `Rejected` with the reason.

    paths: of its images, or who finds them. surplus: see `ExternalTraining.surplus_boxes`. literals: matches texts of
    tokens that no text may hold. tags: EXIF orientation of every image, where one is not 1.
    """
    entry = source.form.record(entry, number)
    if not isinstance(entry, dict):
        raise Rejected("malformed entry", f"expected an object, got {type(entry).__name__}")
    if "video" in entry or "temporal_span" in entry:
        return _clip_sample(entry, source, number, paths, literals)
    for name in ("image", "conversations", "bboxes"):
        if name not in entry:
            raise Rejected("malformed entry", f"field {name!r} is missing")
    names = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise Rejected("malformed entry", "field 'image' is not a list of file names")

    turns = _turns(entry["conversations"], literals)
    placeholders = sum(turn["value"].count("<image>") for turn in turns[::2])
    if placeholders != len(names):
        raise Rejected("image count", f"{placeholders} <image> for {len(names)} images")
    if not names:
        raise Rejected("image count", "no image: there is nothing to look at")
    dataset = entry.get("dataset")
    if isinstance(paths, Finder):
        try:
            paths = [paths.find(name, dataset if isinstance(dataset, str) else "") for name in names]
        except NotThere as why:
            raise Rejected("missing image", str(why), why.folders) from None
    files = tuple(ImageFile(f"{source.name}/{name}", Path(path), orientation) for name, path in zip(names, paths, strict=True))

    slots = sum(turn["value"].count("<lvr>") for turn in turns[1::2])
    boxes, images, mends = _boxes(entry["bboxes"], slots, surplus, entry.get("bbox_images"), len(names))
    mends += tuple({MISPLACED[turn["from"]][1]: None for turn in turns if MISPLACED[turn["from"]][0] in turn["value"]})
    if tags and orientation == "upright":
        boxes = tuple(turned(box, tags[image]) for box, image in zip(boxes, images, strict=True))
    return Sample(f"{source.name}:{number}", files, turns, boxes, images, mends)


CLIP_FIELDS = ("video", "question", "answer")
"""The texts of a record of a clip."""
WHOLE_FRAME = (0.0, 0.0, 1.0, 1.0)


def _clip_sample(
    entry: dict[str, Any], source: Source, number: int, paths: Finder | Sequence[str], literals: re.Pattern[str] | None
) -> Sample:
    """A record of VisReflect's release about a clip: {video, question, answer, temporal_span}."""
    for name in (*CLIP_FIELDS, "temporal_span"):
        if name not in entry:
            raise Rejected("malformed entry", f"field {name!r} is missing")
    if entry.get("image"):
        raise Rejected("malformed entry", "it has both 'video' and 'image': a record shows one clip, or pictures")
    for name in CLIP_FIELDS:
        if not isinstance(entry[name], str):
            raise Rejected("malformed entry", f"field {name!r} is not a text")
        if not entry[name].strip():
            raise Rejected("malformed entry", f"field {name!r} is empty")
    said = ({"from": "human", "value": entry["question"]}, {"from": "gpt", "value": entry["answer"]})
    for turn in said:
        if found := re.search("<image>|<video>|<lvr>", turn["value"]):
            raise Rejected("special token", f"the text of a {turn['from']} turn holds {found[0]}, which would stand for a picture or slots")
    question, answer = _turns(list(said), literals)
    spans = _spans(entry["temporal_span"])
    name, mends = entry["video"], ()
    if isinstance(paths, Finder):
        try:
            path = paths.find(name)
        except NotThere as why:
            if os.path.isdir(folder := os.path.join(paths.root, name)):
                raise Rejected(MISSING, f"{folder} is a folder; a clip to train on is a video file") from None
            raise Rejected(MISSING, str(why), why.folders) from None
        try:
            mends = _misplaced(spans, Path(path), source.clips)
        except Unreadable as why:
            raise Rejected(why.reason, str(why)) from None
    else:
        path = paths[0]
    file = ClipFile(f"{source.name}/{name}", Path(path), source.clips or UNSTATED)
    turns = ({"from": "human", "value": "<video>" + question["value"]}, answer)
    return Sample(f"{source.name}:{number}", (file,), turns, (WHOLE_FRAME,), (0,), mends, spans)


def _misplaced(spans: Sequence[Span], path: Path, clips: Clips | None) -> tuple[str, ...]:
    """What is put right where frames are chosen (`clue_frames`). Raises Rejected for a span with nothing of the clip in it, and for
    one that only the frames' own times put into the clip where `clips` goes by the rate; Unreadable."""
    facts = _facts(path, (clips or UNSTATED).times)
    begin, end = max(spans)
    if begin >= facts.seconds:
        true = timed(path)
        if begin >= true.seconds:
            raise Rejected("bad span", f"[{begin:g}, {end:g}] begins when the clip, which is {true.seconds:.2f} s long, is over; spans are in seconds")
        if clips is not None:
            raise Rejected("bad span", (
                f"[{begin:g}, {end:g}] lies in the clip, which is {true.seconds:.2f} s long, but its container states {facts.frames} frames "
                f"at {facts.fps:g} a second, which take {facts.seconds:.2f} s; clips.times: stamps reads the frames' own times"
            ))  # fmt: skip
        facts = true
    found = {ENDLESS: any(end > facts.seconds for _, end in spans), INSTANT: any(begin == end for begin, end in spans)}
    return tuple(mend for mend, there in found.items() if there)


def _spans(given: Any) -> tuple[Span, ...]:
    """[begin, end] in seconds, or a list of such pairs; the release puts their ends in order."""
    pairs = given if isinstance(given, list) and given and isinstance(given[0], list) else [given]
    found = []
    for pair in pairs:
        values = [_number(value) for value in pair] if isinstance(pair, list) else []
        if len(values) != 2 or not all(math.isfinite(value) and value >= 0 for value in values):
            raise Rejected("bad span", f"temporal_span {str(given)[:120]}; expected [begin, end] in seconds, or a list of such pairs")
        found.append((min(values), max(values)))
    return tuple(found)


def _turns(conversations: Any, literals: re.Pattern[str] | None) -> tuple[dict[str, str], ...]:
    if not isinstance(conversations, list) or not conversations:
        raise Rejected("malformed entry", "field 'conversations' is not a list of turns")
    for turn in conversations:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise Rejected("malformed entry", "a turn is not {from, value}")
        if turn.get("from") not in ROLES:
            raise Rejected("bad roles", f"{turn.get('from')!r}; choices: {', '.join(ROLES)}")
        if literals is not None and (found := literals.search(turn["value"])):
            raise Rejected(
                "special token", f"the text of a {turn['from']} turn holds {found[0]!r}, which the tokenizer reads as a token"
            )
        if not turn["value"].isascii():
            try:
                turn["value"].encode()
            except UnicodeEncodeError:
                raise Rejected("malformed entry", f"the text of a {turn['from']} turn is no valid Unicode") from None
    roles = [turn["from"] for turn in conversations]
    if len(roles) % 2 or roles != list(ROLES) * (len(roles) // 2):
        raise Rejected("bad roles", f"{' '.join(roles)}; turns must be human, gpt, human, gpt, …")
    return tuple({"from": turn["from"], "value": turn["value"]} for turn in conversations)


def text_bytes(turns: Sequence[dict[str, str]]) -> int:
    """UTF-8 bytes of the texts, composed or not, whichever is more: at least as many as their tokens (a token of a
    byte-level vocabulary is one byte or more, and Qwen's tokenizer composes first)."""
    total = 0
    for turn in turns:
        value = turn["value"]
        total += len(value) if value.isascii() else max(
            len(value.encode()), len(unicodedata.normalize("NFC", value).encode())
        )  # fmt: skip
    return total


Boxes = tuple[tuple[Box, ...], tuple[int, ...], tuple[str, ...]]


def _boxes(given: Any, slots: int, surplus: Surplus, images: Any, pictures: int) -> Boxes:
    """(boxes, image of each, mends): one box for each `<lvr>`.

    Boxes may be nested to any depth. Their number is taken without the nesting; where it is too large, `surplus` decides:
    within each outermost group if there is one group for each `<lvr>`, else over all of them.
    """
    if not isinstance(given, list):
        raise Rejected("malformed entry", "field 'bboxes' is not a list")
    if images is None and len(given) == slots and None not in (plain := [_as_written(box) for box in given]):
        return tuple(plain), (0,) * slots, ()
    groups = [given] if _is_box(given) else given
    found = [_flat(group) for group in groups]
    flat, mends = [box for group in found for box in group], []
    if not all(map(_is_box, groups)) or groups is not given:
        mends.append(NESTED)
    if any(isinstance(v, str) for box in flat for v in box):
        mends.append("box written as text")
    if images is None:
        images = [0] * len(flat)
    if (
        not isinstance(images, list)
        or len(images) != len(flat)
        or not all(type(i) is int and 0 <= i < pictures for i in images)
    ):
        raise Rejected("bad box image", f"bbox_images {images!r} for {len(flat)} boxes in {pictures} images")
    checked = [_box(box, k) for k, box in enumerate(flat)]
    if len(flat) > slots > 0 and surplus != "skip":
        chosen, at = [], 0
        per_slot = [len(group) for group in found] if len(found) == slots else [len(flat)] if slots == 1 else []
        if not per_slot or 0 in per_slot:
            per_slot = [1] * slots if surplus == "first" else []
        for count in per_slot:
            some = range(at, at + count)
            chosen.append(_union(checked, images, some) if surplus == "union" else (checked[at], images[at]))
            at += count
        if chosen:
            checked, images = [box for box, _ in chosen], [image for _, image in chosen]
            mends.append("first of several boxes" if surplus == "first" else "union of several boxes")
    if len(checked) != slots:
        raise Rejected("box count", f"{len(flat)} boxes for {slots} <lvr>")
    cut = tuple(_cut(box) for box in checked)
    if any(box != whole for box, whole in zip(cut, checked, strict=True)):
        mends.append(CUT)
    return cut, tuple(images), tuple(mends)


def _as_written(box: Any) -> Box | None:
    """The box if it is valid as written, as nearly all are; None if it needs the slower checks."""
    if type(box) is list and len(box) == 4:
        x0, y0, x1, y1 = box
        if type(x0) is type(y0) is type(x1) is type(y1) is float and 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1:
            return x0, y0, x1, y1
    return None


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and not any(isinstance(v, list) for v in value)


def _flat(group: Any) -> list[list]:
    """The boxes in nested lists, in order."""
    found, waiting = [], [group]
    while waiting:
        value = waiting.pop()
        if _is_box(value):
            found.append(value)
        elif isinstance(value, list):
            waiting += reversed(value)
        else:
            raise Rejected("bad box", f"{value!r} stands where a box is expected; a box is four numbers x0, y0, x1, y1")
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _box(box: list, number: int) -> Box:
    values = [_number(v) for v in box]
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise Rejected("bad box", f"box {number} is {str(box)[:120]}; expected four finite numbers x0, y0, x1, y1")
    if not all(-OVERSHOOT <= v <= 1 + OVERSHOOT for v in values):
        raise Rejected(
            "bad box", f"box {number} {box} is not normalised to 0..1 (pixels?); divide by the picture's width and height"
        )
    x0, y0, x1, y1 = _cut(values)
    if x1 <= x0 or y1 <= y0:
        raise Rejected("bad box", f"box {number} {box} is empty or inverted within 0..1")
    return tuple(values)


def _cut(box: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) for v in box)
    return x0, y0, x1, y1


def _union(boxes: Sequence[Box], images: Sequence[int], some: range) -> tuple[Box, int]:
    image = images[some[0]]
    if any(images[k] != image for k in some):
        raise Rejected("box count", "several boxes for one <lvr> lie in different images: they have no union")
    parts = list(zip(*(boxes[k] for k in some), strict=True))
    return (min(parts[0]), min(parts[1]), max(parts[2]), max(parts[3])), image
