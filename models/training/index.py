"""What is known of every accepted sample, in columns: where its entry stands, its boxes and pictures, sizes, bytes of text.

The data job writes them once (`write_index`), as plain .npy files that all ranks map into memory:

    index/index.json     surplus_boxes, and name, bytes and sha256 of each annotation file
    index/rows.npy       [N, 4] int64: source, entry, first byte, bytes
    index/text.npy       [N] int32: bytes of text, at least its tokens
    index/ref_end.npy    [N] int64, refs.npy [R] int32: pictures of each row, by number
    index/box_end.npy    [N] int64, boxes.npy [B, 4] float64 on the stored raster, box_image.npy [B] int16
    index/path_end.npy   [P] int64, paths.npy bytes: the pictures' paths, one after the other
    index/sizes.npy      [P, 3] int32: width, height, EXIF orientation (0 of a clip)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.config import Surplus
from models.training.jsonlist import DataError
from models.training.parse import Source

FOLDER = "index"


@dataclass
class Summary:
    """What the reading pass found."""

    samples: int = 0
    boxes: int = 0
    images: int = 0
    """Image references, not distinct files."""
    clamped_boxes: int = 0
    """Samples with a box that reached beyond the image and was cut at its edge."""
    boxless: int = 0
    """Samples without a box and `<lvr>`: they are trained on with cross-entropy alone."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason -> samples."""
    mended: dict[str, int] = field(default_factory=dict)
    """What was put right -> samples."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """Source (the row's `dataset`) -> "rows", "usable", and each reason or mend."""
    rows_per_second: float = 0.0
    index_mib: float = 0.0
    """What is kept of all samples."""
    peak_mib: float = 0.0
    """The process's largest memory so far."""

    @property
    def rows(self) -> int:
        return self.samples + sum(self.rejected.values())

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.counts(), indent=1) + "\n")

    def counts(self) -> dict[str, Any]:
        """Without what depends on the machine and the hour: equal data leave equal files."""
        return {name: value for name, value in asdict(self).items() if name not in ("rows_per_second", "peak_mib")}


def counted(rejected: dict[str, int]) -> str:
    """2 missing image, 1 bad box"""
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items())


@dataclass
class Columns:
    """As in the module's docstring; `sizes` is None until somebody has looked into the pictures."""

    rows: np.ndarray
    text: np.ndarray
    ref_end: np.ndarray
    refs: np.ndarray
    box_end: np.ndarray
    boxes: np.ndarray
    box_image: np.ndarray
    path_end: np.ndarray
    paths: np.ndarray
    sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for f in fields(self) if (value := getattr(self, f.name)) is not None)

    def place(self, index: int) -> tuple[int, int, int, int]:
        """(source, entry, first byte, bytes)"""
        source, entry, start, size = self.rows[index].tolist()
        return source, entry, start, size

    def numbers(self, index: int) -> list[int]:
        """The row's pictures."""
        begin, end = _span(self.ref_end, index)
        return self.refs[begin:end].tolist()

    def box_count(self, index: int) -> int:
        begin, end = _span(self.box_end, index)
        return end - begin

    def path(self, picture: int) -> str:
        begin, end = _span(self.path_end, picture)
        return bytes(self.paths[begin:end]).decode("utf-8", "surrogateescape")

    def pictures(self, index: int) -> tuple[list[str], list[int] | None]:
        """(paths, EXIF orientations) of the row's pictures; no orientations while nobody has looked."""
        numbers = self.numbers(index)
        tags = None if self.sizes is None else [int(self.sizes[k, 2]) for k in numbers]
        return [self.path(k) for k in numbers], tags

    def take(self, kept: np.ndarray) -> Columns:
        """Only these rows; the pictures' columns stay whole."""
        ref_end, refs = _taken(self.ref_end, kept)
        box_end, boxes = _taken(self.box_end, kept)
        return replace(
            self, rows=self.rows[kept], text=self.text[kept], ref_end=ref_end, refs=self.refs[refs],
            box_end=box_end, boxes=self.boxes[boxes], box_image=self.box_image[boxes],
        )  # fmt: skip


def _span(ends: np.ndarray, index: int) -> tuple[int, int]:
    index = range(len(ends))[index]
    return int(ends[index - 1]) if index else 0, int(ends[index])


def _taken(ends: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(new ends, places of what belongs to the kept rows) of a ragged column."""
    counts = np.diff(ends, prepend=0)
    chosen = np.zeros(len(ends), dtype=bool)
    chosen[kept] = True
    return counts[kept].cumsum(), np.repeat(chosen, counts).nonzero()[0]


def has_index(data: Path) -> bool:
    return (data / FOLDER / "index.json").is_file()


def write_index(data: Path, columns: Columns, sources: list[Source], summary: Summary, surplus: Surplus) -> None:
    """Beside data/meta.json."""
    folder = data / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for f in fields(columns):
        if (value := getattr(columns, f.name)) is not None:
            np.save(folder / f"{f.name}.npy", value, allow_pickle=False)
    files = [{"name": s.name, "bytes": file.stat().st_size, "sha256": sha256(file)} for s in sources for file in s.form.files]
    facts = {"surplus_boxes": surplus, "annotations": files, "summary": summary.counts()}
    (folder / "index.json").write_text(json.dumps(facts, indent=1) + "\n")


def read_index(data: Path, sources: list[Source]) -> tuple[Columns, Summary, Surplus]:
    """Raises DataError when an annotation file is not the one that was indexed, as far as its size says."""
    folder = data / FOLDER
    facts = json.loads((folder / "index.json").read_text())
    files = [file for source in sources for file in source.form.files]
    if len(files) != (indexed := len(facts["annotations"])):
        raise DataError(f"{files[0].parent}: {len(files)} annotation files, {indexed} when they were indexed; plan and run again")
    for file, known in zip(files, facts["annotations"], strict=True):
        if (found := file.stat().st_size) != known["bytes"]:
            raise DataError(
                f"{file}: {found} bytes, {known['bytes']} when it was indexed; the file was changed: plan and run again"
            )
    names = [f.name for f in fields(Columns) if (folder / f"{f.name}.npy").is_file()]
    columns = Columns(**{name: _mapped(folder / f"{name}.npy") for name in names})
    return columns, Summary(**facts["summary"]), facts["surplus_boxes"]


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
