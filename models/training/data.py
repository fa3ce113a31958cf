"""The authors' training format: a meta JSON that lists annotation files, each a JSON list of conversations.

    meta.json          [{"ds_name", "data_path", "image_folder", "ds_type"}, …]
    annotations.json   [{"dataset", "image": ["a.jpg"], "conversations": [{"from": "human", "value": "<image>\\n…"},
                         {"from": "gpt", "value": "<lvr>\\n…"}], "bboxes": [[x0, y0, x1, y1]]}, …]

A data set of `ds_type` nextgqa is NExT-GQA's own files instead (`models.training.nextgqa`). One `<lvr>` is one box. Ours adds an optional `bbox_images`: the image (0-based) that each box lies in; without it every
box lies in the first image, as in the release.

A data set is read once, entry by entry, into columns (`models.training.index`), so that 400,000 rows cost some tens of
megabytes. A sample that cannot be trained on is rejected with a named reason and counted; a file that cannot be read is an
error.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from models.backbone.pictures import tag_of
from models.config import Surplus
from models.schema import Clips, Orientation
from models.training import nextgqa
from models.training.index import Columns, Summary, counted, has_index, read_index
from models.training.jsonlist import DataError
from models.training.parse import UNSTATED, Form, ImageFile, Sample, Source, parse
from models.training.survey import survey, writing

__all__ = [
    "DataError", "ImageFile", "Sample", "Samples", "Source", "Summary", "counted", "meta_file", "read_samples", "read_sources",
]  # fmt: skip

META_FIELDS = ("ds_name", "data_path", "image_folder", "ds_type")
FORMS: dict[str, type[Form]] = {"Q_A": Form, nextgqa.KIND: nextgqa.Questions}
"""`ds_type` -> how its annotations are written."""


class Samples:
    """The accepted samples of a data set, by number. Entries are parsed when asked for; safe to use after a fork."""

    def __init__(
        self,
        sources: list[Source],
        columns: Columns,
        summary: Summary,
        *,
        orientation: Orientation = "upright",
        surplus: Surplus = "skip",
    ) -> None:
        self.sources, self.columns, self.summary = sources, columns, summary
        self.orientation, self.surplus = orientation, surplus
        self._files: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def clips(self) -> Clips:
        """How clips are sampled; the same in all sources."""
        return self.sources[0].clips or UNSTATED

    def __getitem__(self, index: int) -> Sample:
        """Raises `Rejected` or DataError when the annotation file is no longer what was read."""
        source, entry, start, size = self.columns.place(index)
        text = os.pread(self._file(source), size, start)
        try:
            value = self.sources[source].form.value(text)
        except ValueError:
            changed = self.sources[source].annotations
            raise DataError(f"{changed}: entry {entry} is not what was indexed; the file was changed: plan and run again") from None
        paths, tags = self.columns.pictures(index)
        if tags is None:  # nobody has looked into the pictures yet
            tags = [_tag(path) for path in paths] if self.orientation == "upright" else []
        return parse(
            value, self.sources[source], entry, paths, surplus=self.surplus, tags=tags, orientation=self.orientation
        )

    def name(self, index: int) -> str:
        """The sample's id, without reading it."""
        source, entry, *_ = self.columns.place(index)
        return f"{self.sources[source].name}:{entry}"

    def without(self, numbers: set[int]) -> Samples:
        """The others, in order."""
        kept = np.array([k for k in range(len(self)) if k not in numbers], dtype=np.int64)
        return Samples(
            self.sources, self.columns.take(kept), self.summary, orientation=self.orientation, surplus=self.surplus
        )

    def _file(self, source: int) -> int:
        key = (os.getpid(), source)
        if key not in self._files:
            self._files[key] = os.open(self.sources[source].annotations, os.O_RDONLY)
        return self._files[key]


_tag = lru_cache(maxsize=1 << 16)(tag_of)


def meta_file(data: Path) -> Path:
    """The meta JSON: `data` itself, or meta.json in the folder `data`."""
    path = data / "meta.json" if data.is_dir() else data
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; give a meta JSON (a list of {{{', '.join(META_FIELDS)}}}) or a folder with meta.json"
        )
    return path


def read_sources(data: Path, clips: Clips | None = None) -> list[Source]:
    """The meta file's entries. Relative paths are looked up from the meta file's folder, then its parent, then here.

    clips: how their clips are sampled, where that is known already.
    """
    meta = meta_file(Path(data))
    try:
        entries = json.loads(meta.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
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
        if entry["ds_type"] not in FORMS:
            raise DataError(
                f"{place}, field 'ds_type': {entry['ds_type']!r} is not known; choices: {', '.join(FORMS)}"
            )
        annotations = _resolve(entry["data_path"], meta, f"{place}, field 'data_path'")
        if not annotations.is_file():
            raise DataError(f"{place}, field 'data_path': {annotations} is no file; name the annotation file")
        images = _resolve(entry["image_folder"], meta, f"{place}, field 'image_folder'")
        sources.append(Source(entry["ds_name"], FORMS[entry["ds_type"]](annotations), images, entry["ds_type"], clips))
    names = Counter(s.name for s in sources)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{meta}: field 'ds_name': {', '.join(map(repr, repeated))} stands twice; sample ids need distinct names"
        )
    return sources


def unread(data: Path) -> str:
    """A line that names the fields of the meta file's entries that nothing reads, such as other codebases' `repeat_time`; "" for none, and
    of a file that `read_sources` refuses."""
    try:
        meta = meta_file(data)
        entries = json.loads(meta.read_text(encoding="utf-8-sig"))
        counts = Counter(name for entry in entries for name in dict.keys(entry) if name not in META_FIELDS)
    except (DataError, OSError, ValueError, RecursionError, TypeError):
        return ""
    said = ", ".join(f"{name!r} of {count} of {len(entries)} entries" for name, count in counts.items())
    return f"{meta}: nothing reads the field{'s' * (len(counts) > 1)} {said}; what is read: {', '.join(META_FIELDS)}" if counts else ""


def _resolve(path: str, meta: Path, place: str) -> Path:
    tried = [folder / path for folder in (meta.parent, meta.parent.parent, Path())]
    for candidate in tried:
        if candidate.exists():
            return candidate.absolute()
    raise DataError(
        f"{place}: {path!r} does not exist (tried {', '.join(dict.fromkeys(map(str, tried)))}); correct the meta file or put it there"
    )


def read_samples(
    data: Path, *, report: Path | None = None, orientation: Orientation = "upright", clips: Clips | None = None
) -> Samples:
    """The samples of a data set: from the index that the data job wrote, or else by reading and checking everything here.

    orientation: see `Images.orientation`. clips: see `read_sources`. report: a folder that gets summary numbers in reading.json and, unless there is
    an index, rejected.jsonl and mended.jsonl (see `survey.writing`). Raises DataError for an unreadable file and when no
    sample is left.
    """
    sources = read_sources(Path(data), clips)
    if has_index(Path(data)):
        columns, summary, surplus = read_index(Path(data), sources)
        found = Samples(sources, columns, summary, orientation=orientation, surplus=surplus)
    else:
        with writing(report) as lines:
            read = survey(sources, lines=lines)
        found = Samples(sources, read.columns(), read.summary(), orientation=orientation)
        if not len(found):
            raise DataError(read.nothing(meta_file(Path(data))))
    if report is not None:
        found.summary.write(report / "reading.json")
    return found
