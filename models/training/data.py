"""Reader of the authors' training format: a meta JSON that lists annotation files, each a JSON list of conversations.

    meta.json          [{"ds_name", "data_path", "image_folder", "ds_type"}, …]
    annotations.json   [{"dataset", "image": ["a.jpg"], "conversations": [{"from": "human", "value": "<image>\\n…"},
                         {"from": "gpt", "value": "<lvr>\\n…"}], "bboxes": [[x0, y0, x1, y1]]}, …]

One `<lvr>` is one box. Ours adds an optional `bbox_images`: the image (0-based) that each box lies in; without it every
box lies in the first image, as in the release.

A file is read once, entry by entry, and only offsets are kept, so that 400,000 rows cost a few megabytes. A sample that
cannot be trained on is rejected with a named reason and counted; a file that cannot be read is an error.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import re
import resource
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

META_FIELDS = ("ds_name", "data_path", "image_folder", "ds_type")
DATASET_TYPES = ("Q_A",)
ROLES = ("human", "gpt")
REASONS = ("malformed entry", "bad roles", "image count", "missing image", "box count", "bad box", "bad box image")
"""Why a sample is rejected, in the order of checking."""

_CHUNK_BYTES = 1 << 22
_GAP = re.compile(r"[\s,]*")


class DataError(ValueError):
    """A file of the data set cannot be used: the message names file, entry, field and remedy."""


class Rejected(ValueError):
    """One sample cannot be used. `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Source:
    """One entry of the meta file, its paths resolved."""

    name: str
    annotations: Path
    images: Path
    kind: str = "Q_A"


@dataclass(frozen=True)
class ImageFile:
    """An image of the data set."""

    key: str
    """`<ds_name>/<name in the annotation>`: the same on every machine."""
    path: Path


@dataclass(frozen=True)
class Sample:
    """One conversation, checked."""

    id: str
    """`<ds_name>:<entry>`, entries counted from 0."""
    images: tuple[ImageFile, ...]
    conversations: tuple[dict[str, str], ...]
    """{"from": "human" | "gpt", "value": text} in turn; `<image>` and `<lvr>` still stand in the text."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """Normalised x0, y0, x1, y1, clamped to 0..1; the k-th belongs to the k-th `<lvr>`."""
    box_image: tuple[int, ...]
    """Image of every box, 0-based."""


@dataclass
class Summary:
    """What the reading pass found."""

    samples: int = 0
    boxes: int = 0
    images: int = 0
    """Image references, not distinct files."""
    clamped_boxes: int = 0
    """Boxes that reached beyond the image and were cut at its edge."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason -> samples."""
    rows_per_second: float = 0.0
    index_mib: float = 0.0
    """What is kept of all samples."""
    peak_mib: float = 0.0
    """The process's largest memory so far."""


class Samples:
    """The accepted samples of a data set, by number. Entries are parsed when asked for; safe to use after a fork."""

    def __init__(self, sources: list[Source], where: np.ndarray, summary: Summary) -> None:
        self.sources, self.summary = sources, summary
        self._where = where
        """[samples, 4] int64: source, entry, first byte, bytes."""
        self._files: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Sample:
        source, entry, start, size = (int(v) for v in self._where[index])
        return parse(
            json.loads(os.pread(self._file(source), size, start)), self.sources[source], entry, check_images=False
        )

    def name(self, index: int) -> str:
        """The sample's id, without reading it."""
        source, entry = self._where[index][:2]
        return f"{self.sources[source].name}:{entry}"

    def _file(self, source: int) -> int:
        key = (os.getpid(), source)
        if key not in self._files:
            self._files[key] = os.open(self.sources[source].annotations, os.O_RDONLY)
        return self._files[key]


def meta_file(data: Path) -> Path:
    """The meta JSON: `data` itself, or meta.json in the folder `data`."""
    path = data / "meta.json" if data.is_dir() else data
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; give a meta JSON (a list of {{{', '.join(META_FIELDS)}}}) or a folder with meta.json"
        )
    return path


def read_sources(data: Path) -> list[Source]:
    """The meta file's entries. Relative paths are looked up from the meta file's folder, then its parent, then here."""
    meta = meta_file(Path(data))
    try:
        entries = json.loads(meta.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{meta}: not valid JSON ({error}); expected a list of {{{', '.join(META_FIELDS)}}}") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{meta}: expected a list with at least one data set, got {type(entries).__name__}")
    sources = []
    for number, entry in enumerate(entries):
        place = f"{meta}: entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{place}: expected {{{', '.join(META_FIELDS)}}}, got {type(entry).__name__}")
        for name in META_FIELDS:
            if not isinstance(entry.get(name), str):
                raise DataError(f"{place}, field {name!r}: expected a string, got {entry.get(name)!r}")
        if entry["ds_type"] not in DATASET_TYPES:
            raise DataError(
                f"{place}, field 'ds_type': {entry['ds_type']!r} is not known; choices: {', '.join(DATASET_TYPES)}"
            )
        annotations = _resolve(entry["data_path"], meta, f"{place}, field 'data_path'")
        images = _resolve(entry["image_folder"], meta, f"{place}, field 'image_folder'")
        sources.append(Source(entry["ds_name"], annotations, images, entry["ds_type"]))
    names = Counter(s.name for s in sources)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{meta}: field 'ds_name': {', '.join(map(repr, repeated))} stands twice; sample ids need distinct names"
        )
    return sources


def _resolve(path: str, meta: Path, place: str) -> Path:
    tried = [folder / path for folder in (meta.parent, meta.parent.parent, Path())]
    for candidate in tried:
        if candidate.exists():
            return candidate.absolute()
    raise DataError(
        f"{place}: {path!r} does not exist (tried {', '.join(dict.fromkeys(map(str, tried)))}); correct the meta file or put it there"
    )


def entries(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Stream a JSON list: (first byte, bytes, parsed) of every element. DataError names file, entry and byte."""
    decoder, scan = codecs.getincrementaldecoder("utf-8")(), json.JSONDecoder().raw_decode
    text, position, offset, number, ended = "", 0, 0, 0, False

    def fail(why: str) -> DataError:
        return DataError(
            f"{path}: entry {number}, near byte {offset}: {why}; the file must be one JSON list of objects"
        )

    with path.open("rb") as file:

        def more() -> None:
            nonlocal text, position, ended
            chunk = file.read(_CHUNK_BYTES)
            ended = not chunk
            try:
                text, position = text[position:] + decoder.decode(chunk, final=ended), 0
            except UnicodeDecodeError as error:
                raise fail(f"not UTF-8 ({error.reason})") from None

        def skip() -> None:
            nonlocal position, offset
            while True:
                end = _GAP.match(text, position).end()
                offset += end - position
                position = end
                if position < len(text) or ended:
                    return
                more()

        more()
        skip()
        if not text.startswith("[", position):
            raise fail("expected '['")
        position, offset = position + 1, offset + 1
        while True:
            skip()
            if position >= len(text):
                raise fail("the list is not closed: the file is cut off")
            if text[position] == "]":
                return
            while True:
                try:
                    value, end = scan(text, position)
                    break
                except json.JSONDecodeError as error:
                    cut = error.msg.startswith("Unterminated string") or error.pos >= len(text) - 16
                    if ended or not cut:
                        raise fail(f"{error.msg} (character {error.pos - position} of the entry)") from None
                    more()
            size = len(text[position:end].encode())
            yield offset, size, value
            position, offset, number = end, offset + size, number + 1


@lru_cache(maxsize=1 << 16)
def _exists(path: str) -> bool:
    return os.path.isfile(path)


def parse(entry: Any, source: Source, number: int, *, check_images: bool = True) -> Sample:
    """A checked sample, or `Rejected` with the reason."""
    if not isinstance(entry, dict):
        raise Rejected("malformed entry", f"expected an object, got {type(entry).__name__}")
    for name in ("image", "conversations", "bboxes"):
        if name not in entry:
            raise Rejected("malformed entry", f"field {name!r} is missing")
    names = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise Rejected("malformed entry", "field 'image' is not a list of file names")

    turns = _turns(entry["conversations"])
    placeholders = sum(turn["value"].count("<image>") for turn in turns[::2])
    if placeholders != len(names):
        raise Rejected("image count", f"{placeholders} <image> for {len(names)} images")
    files = tuple(ImageFile(f"{source.name}/{name}", source.images / name) for name in names)
    if check_images:
        for file in files:
            if not _exists(str(file.path)):
                raise Rejected("missing image", str(file.path))

    boxes = entry["bboxes"]
    if not isinstance(boxes, list):
        raise Rejected("malformed entry", "field 'bboxes' is not a list")
    slots = sum(turn["value"].count("<lvr>") for turn in turns[1::2])
    if slots != len(boxes):
        raise Rejected("box count", f"{len(boxes)} boxes for {slots} <lvr>")
    checked = tuple(_box(box, k) for k, box in enumerate(boxes))
    indices = entry.get("bbox_images", [0] * len(boxes))
    if (
        not isinstance(indices, list)
        or len(indices) != len(boxes)
        or not all(type(i) is int and 0 <= i < len(names) for i in indices)
    ):
        raise Rejected("bad box image", f"bbox_images {indices!r} for {len(boxes)} boxes in {len(names)} images")
    return Sample(f"{source.name}:{number}", files, turns, checked, tuple(indices))


def _turns(conversations: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(conversations, list) or not conversations:
        raise Rejected("malformed entry", "field 'conversations' is not a list of turns")
    for turn in conversations:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise Rejected("malformed entry", "a turn is not {from, value}")
        if turn.get("from") not in ROLES:
            raise Rejected("bad roles", f"{turn.get('from')!r}; choices: {', '.join(ROLES)}")
    roles = [turn["from"] for turn in conversations]
    if len(roles) % 2 or roles != list(ROLES) * (len(roles) // 2):
        raise Rejected("bad roles", f"{' '.join(roles)}; turns must be human, gpt, human, gpt, …")
    return tuple({"from": turn["from"], "value": turn["value"]} for turn in conversations)


def _box(box: Any, number: int) -> tuple[float, float, float, float]:
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
    ):
        raise Rejected("bad box", f"box {number} is {box!r}; expected four finite numbers x0, y0, x1, y1")
    x0, y0, x1, y1 = (min(max(float(v), 0.0), 1.0) for v in box)
    if x1 <= x0 or y1 <= y0:
        raise Rejected("bad box", f"box {number} {box} is empty or inverted within 0..1")
    return x0, y0, x1, y1


def read_samples(data: Path, *, report: Path | None = None) -> Samples:
    """Read, check and index a data set. `report`: a folder that gets rejected.jsonl and summary numbers in reading.json.

    rejected.jsonl: {"id", "file", "entry", "reason", "detail"} a line. Raises DataError for an unreadable file and when
    no sample is left.
    """
    sources, summary = read_sources(data), Summary()
    where, counts, first, rows = array("q"), Counter(), "", 0
    began = time.perf_counter()
    with _lines(report) as rejected:
        for source_number, source in enumerate(sources):
            for number, (start, size, entry) in enumerate(entries(source.annotations)):
                rows += 1
                try:
                    sample = parse(entry, source, number)
                except Rejected as why:
                    counts[why.reason] += 1
                    line = {"id": f"{source.name}:{number}", "file": source.annotations.name, "entry": number,
                            "reason": why.reason, "detail": why.detail}  # fmt: skip
                    rejected.write(json.dumps(line) + "\n")
                    first = first or f"; the first: {source.annotations}, entry {number}: {why}; correct the file or the meta's image_folder"
                    continue
                where.extend((source_number, number, start, size))
                summary.boxes += len(sample.boxes)
                summary.images += len(sample.images)
                summary.clamped_boxes += sum(any(not 0 <= v <= 1 for v in box) for box in entry["bboxes"])
    _exists.cache_clear()
    summary.samples = len(where) // 4
    summary.rejected = {reason: counts[reason] for reason in REASONS if counts[reason]}
    summary.rows_per_second = round(rows / max(time.perf_counter() - began, 1e-9), 1)
    summary.index_mib = round(len(where) * where.itemsize / 2**20, 3)
    summary.peak_mib = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    if report is not None:
        (report / "reading.json").write_text(json.dumps(asdict(summary), indent=1) + "\n")
    if not where:
        raise DataError(
            f"{meta_file(Path(data))}: no usable sample of {rows} ({counted(summary.rejected) or 'the files are empty lists'}){first}"
        )
    return Samples(sources, np.frombuffer(where, dtype=np.int64).reshape(-1, 4), summary)


def counted(rejected: dict[str, int]) -> str:
    """2 missing image, 1 bad box"""
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items())


def _lines(report: Path | None) -> io.TextIOBase:
    """rejected.jsonl in `report`, or a sink."""
    if report is None:
        return open(os.devnull, "w")
    report.mkdir(parents=True, exist_ok=True)
    return (report / "rejected.jsonl").open("w")
