"""One pass over the annotation files of a data set: every entry checked, its pictures found by name, and tallied by source."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from models.config import Surplus
from models.training.index import Columns, Summary, counted
from models.training.parse import CUT, NESTED, REASONS, ClipFile, Rejected, Sample, Source, parse, text_bytes
from models.training.places import PREFIX, Finder


@dataclass
class Lines:
    """Where rejected and mended samples are named, one JSON object a line."""

    rejected: TextIO
    mended: TextIO

    def reject(self, source: Source, entry: int, group: str, why: Rejected) -> None:
        self._say(self.rejected, source, entry, group, {"reason": why.reason, "detail": why.detail})

    def mend(self, source: Source, entry: int, group: str, mends: Sequence[str]) -> None:
        for mend in mends:
            if mend != NESTED:  # a notation, which whole files are in: counted, not named
                self._say(self.mended, source, entry, group, {"mend": mend})

    @staticmethod
    def _say(file: TextIO, source: Source, entry: int, group: str, words: dict[str, str]) -> None:
        line = {"id": f"{source.name}:{entry}", "file": source.annotations.name, "entry": entry, "source": group}
        file.write(json.dumps(line | words) + "\n")


@contextmanager
def writing(report: Path | None) -> Iterator[Lines]:
    """rejected.jsonl {"id", "file", "entry", "source", "reason", "detail"} and mended.jsonl {…, "mend"} in the folder
    `report`; of None, nowhere."""
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        names = ("rejected.jsonl", "mended.jsonl")
        yield Lines(*(files.enter_context(open(report / name if report else os.devnull, "w")) for name in names))


@dataclass
class Survey:
    """What the pass found. Rows can still be dropped (`drop`), until `columns` is asked for."""

    sources: list[Source]
    lines: Lines
    groups: list[str] = field(default_factory=list)
    """Names of the sources in the tally, by number."""
    tally: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    looked: defaultdict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    """Source -> folders in which pictures were looked for in vain."""
    first: dict[str, str] = field(default_factory=dict)
    """Reason -> the first entry that was rejected for it, in words."""
    finders: dict[str, Finder] = field(default_factory=dict)
    """By image folder."""
    pictures: dict[tuple[str, bool], int] = field(default_factory=dict)
    """(path, whether a record shows it as a clip) -> number."""
    began: float = field(default_factory=time.perf_counter)
    _rows: array = field(default_factory=lambda: array("q"))
    _text: array = field(default_factory=lambda: array("i"))
    _group: array = field(default_factory=lambda: array("h"))
    _ref_end: array = field(default_factory=lambda: array("q"))
    _refs: array = field(default_factory=lambda: array("i"))
    _box_end: array = field(default_factory=lambda: array("q"))
    _boxes: array = field(default_factory=lambda: array("d"))
    _box_image: array = field(default_factory=lambda: array("h"))
    _numbers: dict[str, int] = field(default_factory=dict)
    _dropped: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._text)

    def finder(self, source: Source) -> Finder:
        root = str(source.images)
        if root not in self.finders:
            self.finders[root] = Finder(root)
        return self.finders[root]

    def add(self, number: int, entry: int, start: int, size: int, group: str, sample: Sample) -> None:
        self._rows.extend((number, entry, start, size))
        self._text.append(min(text_bytes(sample.conversations), 2**31 - 1))
        self._group.append(self._group_number(group))
        for file in sample.images:
            self._refs.append(self.pictures.setdefault((str(file.path), isinstance(file, ClipFile)), len(self.pictures)))
        for box in sample.boxes:
            self._boxes.extend(box)
        self._box_image.extend(sample.box_image)
        self._ref_end.append(len(self._refs))
        self._box_end.append(len(self._box_image))
        self._count(group, ["rows", "usable", *sample.mends] + ["no box"] * (not sample.boxes))
        if sample.mends:
            self.lines.mend(self.sources[number], entry, group, sample.mends)

    def reject(self, number: int, entry: int, group: str, why: Rejected) -> None:
        source = self.sources[number]
        self._count(group, ["rows", why.reason])
        self.looked[group].update(dict.fromkeys(why.folders))
        self.lines.reject(source, entry, group, why)
        words = f"{source.annotations}, entry {entry}: {why}".replace("\n", "\\n")  # a name may hold one
        self.first.setdefault(why.reason, words)

    def drop(self, row: int, why: Rejected) -> None:
        """Reject a row that had been added."""
        number, entry, *_ = self._rows[4 * row : 4 * row + 4]
        group = self.groups[self._group[row]]
        self._dropped.add(row)
        self.tally[group]["rows"] -= 1
        self.tally[group]["usable"] -= 1
        self.reject(number, entry, group, why)

    def mend(self, row: int, mends: Sequence[str]) -> None:
        """Name what was put right in a row that had been added."""
        number, entry, *_ = self._rows[4 * row : 4 * row + 4]
        group = self.groups[self._group[row]]
        self._count(group, mends)
        self.lines.mend(self.sources[number], entry, group, mends)

    def kept(self) -> list[int]:
        """Numbers of the rows that are not dropped."""
        return [row for row in range(len(self)) if row not in self._dropped]

    def references(self) -> Iterator[array]:
        """Picture numbers of each row that was added, dropped or not."""
        begin = 0
        for end in self._ref_end:
            yield self._refs[begin:end]
            begin = end

    def columns(self) -> Columns:
        """Of the rows that are not dropped."""
        paths = [os.fsencode(path) for path, _ in self.pictures]
        found = Columns(
            rows=np.frombuffer(self._rows, dtype=np.int64).reshape(-1, 4),
            text=np.frombuffer(self._text, dtype=np.int32),
            ref_end=np.frombuffer(self._ref_end, dtype=np.int64),
            refs=np.frombuffer(self._refs, dtype=np.int32),
            box_end=np.frombuffer(self._box_end, dtype=np.int64),
            boxes=np.frombuffer(self._boxes, dtype=np.float64).reshape(-1, 4),
            box_image=np.frombuffer(self._box_image, dtype=np.int16),
            path_end=np.cumsum([len(path) for path in paths], dtype=np.int64),
            paths=np.frombuffer(b"".join(paths), dtype=np.uint8),
        )
        if self._dropped:
            found = found.take(np.array(self.kept(), dtype=np.int64))
        return found

    def summary(self, columns: Columns | None = None) -> Summary:
        columns = columns or self.columns()
        totals: Counter[str] = sum(self.tally.values(), Counter())
        tallied = {"rows", "usable", "no box", *REASONS}
        return Summary(
            samples=len(columns),
            boxes=len(columns.boxes),
            images=len(columns.refs),
            clamped_boxes=totals[CUT],
            boxless=totals["no box"],
            rejected={reason: totals[reason] for reason in REASONS if totals[reason]},
            mended={name: count for name, count in sorted(totals.items()) if name not in tallied and count},
            sources={group: {k: v for k, v in counts.items() if v} for group, counts in sorted(self.tally.items())},
            rows_per_second=round(totals["rows"] / max(time.perf_counter() - self.began, 1e-9), 1),
            index_mib=round(columns.nbytes / 2**20, 3),
            peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        )

    def nothing(self, meta: Path) -> str:
        """What to say when no row is usable."""
        totals: Counter[str] = sum(self.tally.values(), Counter())
        reasons = {reason: totals[reason] for reason in REASONS if totals[reason]}
        first = "".join(f"; the first: {one}; correct the file or the meta's image_folder" for one in list(self.first.values())[:1])
        return f"{meta}: no usable sample of {totals['rows']} ({counted(reasons) or 'the files are empty lists'}){first}"

    def _count(self, group: str, names: Sequence[str]) -> None:
        counts = self.tally[group]
        for name in names:
            counts[name] += 1

    def _group_number(self, group: str) -> int:
        if group not in self._numbers:
            self._numbers[group] = len(self.groups)
            self.groups.append(group)
        return self._numbers[group]


def survey(
    sources: list[Source],
    *,
    lines: Lines,
    surplus: Surplus = "skip",
    literals: re.Pattern[str] | None = None,
) -> Survey:
    """Read all entries of all sources. Raises DataError for a file that cannot be read. Other arguments: see `parse`."""
    found = Survey(sources, lines)
    for number, source in enumerate(sources):
        finder = found.finder(source)
        for entry, (start, size, value) in source.form.entries():
            group = group_of(value, source)
            try:
                sample = parse(value, source, entry, finder, surplus=surplus, literals=literals)
            except Rejected as why:
                found.reject(number, entry, group, why)
            else:
                found.add(number, entry, start, size, group, sample)
    return found


def group_of(entry: Any, source: Source) -> str:
    """The row's source in a tally: its `dataset`, else the first folder of its picture's name, else the data set's name."""
    if isinstance(entry, dict):
        if isinstance(name := entry.get("dataset"), str) and 0 < len(name) <= 40:
            return name
        image = entry.get("image")
        first = image[0] if isinstance(image, list) and image else image
        if isinstance(first, str):
            folder, _, rest = first.removeprefix(PREFIX).partition("/")
            if rest and 0 < len(folder) <= 40:
                return folder
    return source.name
