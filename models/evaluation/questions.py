"""A mirror's questions for people: pictures, text, options and evidence boxes by doc_id. Torch-free; reads parquet itself."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.evaluation.boxes import read_sidecar
from models.evaluation.rows import reading_of
from models.evaluation.tasks import dataset_of

Box = tuple[int, float, float, float, float]
"""Image index, then normalised x0, y0, x1, y1."""


@dataclass(frozen=True)
class Asked:
    """One question. images: RGB pictures in prompt order. boxes: none known is ()."""

    text: str
    options: tuple[str, ...]
    target: str
    images: tuple[Any, ...]
    boxes: tuple[Box, ...] = ()


def read_questions(mirror: Path, benchmark: str, task: str, doc_ids: Iterable[int]) -> dict[int, Asked]:
    """doc_id -> question, of one task (lmms-eval's name) over the data set folder `mirror`.

    FileNotFoundError when the folder does not hold the task's split as parquet; IndexError for a doc_id beyond it.
    """
    from pyarrow import parquet

    config, split = dataset_of(task)
    wanted = sorted(set(doc_ids))
    reading, boxes = reading_of(benchmark), boxes_of(mirror, task)
    found: dict[int, Asked] = {}
    first = 0
    for file in _files(mirror, config, split):
        source = parquet.ParquetFile(file)
        rows = source.metadata.num_rows
        inside = [doc for doc in wanted if first <= doc < first + rows]
        if inside:
            table = source.read().take([doc - first for doc in inside])
            for doc_id, document in zip(inside, table.to_pylist()):
                document = {name: _opened(value) for name, value in document.items()}
                found[doc_id] = Asked(
                    reading.question(document).strip(),
                    tuple(reading.options(document)),
                    reading.target(document),
                    tuple(reading.images(document)),
                    boxes.get(doc_id, ()),
                )
        first += rows
    if missing := [doc for doc in wanted if doc not in found]:
        raise IndexError(f"{task}: the data set holds {first} questions, there is no number {missing[0]}")
    return found


def boxes_of(mirror: Path, task: str) -> dict[int, tuple[Box, ...]]:
    """doc_id -> evidence boxes, without reading a question; empty where the data set comes without boxes."""
    rows = read_sidecar(mirror, dataset_of(task)[0]) or {}
    return {doc_id: tuple((image, *box) for image, box in zip(images, boxes)) for doc_id, (boxes, images) in rows.items()}


def number_of_questions(mirror: Path, task: str) -> int:
    """Questions of the task's split. FileNotFoundError as in `read_questions`."""
    from pyarrow import parquet

    return sum(parquet.ParquetFile(file).metadata.num_rows for file in _files(mirror, *dataset_of(task)))


def _opened(value: Any) -> Any:
    """`datasets` stores a picture as {bytes, path}."""
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"} and value["bytes"] is not None:
        from PIL import Image

        return Image.open(io.BytesIO(value["bytes"]))
    return value


def _files(mirror: Path, config: str | None, split: str) -> list[Path]:
    """The split's parquet files in order: what the data set's card names, else what the usual names are."""
    card = mirror / "README.md"
    text = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL) if card.is_file() else None
    patterns = []
    for one in (yaml.safe_load(text[1]) or {}).get("configs", []) if text else []:
        files = one.get("data_files", [])
        if one.get("config_name", "default") == (config or "default") and isinstance(files, list):
            for entry in files:
                path = entry["path"] if entry["split"] == split else []
                patterns += [path] if isinstance(path, str) else path
    patterns = patterns or [f"{config or 'data'}/{split}-*.parquet", f"**/{split}-*.parquet"]
    for pattern in patterns:
        if found := sorted(mirror.glob(pattern)):
            return found
    raise FileNotFoundError(f"{mirror}: no parquet file of split {split}" + (f", configuration {config}" if config else ""))
