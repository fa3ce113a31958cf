"""A mirror's questions for people: pictures, text, options and evidence boxes by doc_id.

Of the project's own benchmarks the files are read here, torch-free; of any other task of lmms-eval's, by that task's code.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.backbone.pictures import whole_files
from models.evaluation.boxes import read_sidecar
from models.evaluation.documents import Document, Recollection
from models.evaluation.rows import reading_of
from models.evaluation.tasks import OWN_TASKS, dataset_of

_ROWS_AT_ONCE = 16
Box = tuple[int, float, float, float, float]
"""Image index, then normalised x0, y0, x1, y1."""


@dataclass(frozen=True)
class MirrorQuestion:
    """One question. images: RGB pictures in prompt order. boxes: none known is ()."""

    text: str
    options: tuple[str, ...]
    target: str
    images: tuple[Any, ...]
    boxes: tuple[Box, ...] = ()
    clips: tuple[str, ...] = ()
    """Paths."""
    lost: str = ""
    """Why its clip is not here, where the task's own code finds that."""


def read_questions(mirror: Path, benchmark: str, task: str, doc_ids: Iterable[int]) -> dict[int, MirrorQuestion]:
    """doc_id -> question, of one task (lmms-eval's name) over the data set folder `mirror`.

    FileNotFoundError when the folder does not hold the task's split as parquet or Arrow; IndexError for a doc_id beyond it.
    """
    if task not in OWN_TASKS:
        from models.evaluation import stock

        return stock.read_questions(mirror, task, doc_ids)
    config, split = dataset_of(task)
    wanted = sorted(set(doc_ids))
    reading, boxes = reading_of(benchmark), boxes_of(mirror, task)
    found: dict[int, MirrorQuestion] = {}
    first = 0
    for file in split_files(mirror, config, split):
        source = _Split(file)
        inside = [doc for doc in wanted if first <= doc < first + source.rows]
        if inside:
            for doc_id, cells in zip(inside, source.take([doc - first for doc in inside])):
                found[doc_id] = _asked(reading, _document(cells), boxes.get(doc_id, ()))
        first += source.rows
    if missing := [doc for doc in wanted if doc not in found]:
        raise IndexError(f"{task}: the data set holds {first} questions, there is no number {missing[0]}")
    return found


def each_question(mirror: Path, benchmark: str, task: str, doc_ids: Iterable[int]) -> Iterator[tuple[int, MirrorQuestion]]:
    """The same in order of doc_id, a few in memory at a time: pictures may have many millions of pixels."""
    wanted = sorted(set(doc_ids))
    if task not in OWN_TASKS:
        from models.evaluation import stock

        loaded = stock.load_task(task, mirror)
        for doc_id in wanted:
            yield doc_id, stock.asked_or_lost(loaded, doc_id)
        return
    reading, boxes, left = reading_of(benchmark), boxes_of(mirror, task), set(wanted)
    documents = (document for file in split_files(mirror, *dataset_of(task)) for document in _Split(file).documents())
    for doc_id, document in enumerate(documents):
        if doc_id in left:
            left.remove(doc_id)
            yield doc_id, _asked(reading, _document(document), boxes.get(doc_id, ()))
        if not left:
            return
    if left:
        raise IndexError(f"{task}: the data set has no question number {min(left)}")


def first_question(mirror: Path, benchmark: str, task: str) -> None:
    """Reads the task's first question, its pictures decoded. FileNotFoundError as in `read_questions`; OSError or ValueError
    for a file, picture or text that cannot be read."""
    source = next((source for source in map(_Split, split_files(mirror, *dataset_of(task))) if source.rows), None)
    if source is not None:
        document = _document(source.take([0])[0])
        _decode(reading_of(benchmark), document, f"row 0 of {source.file.name}")
        _asked(reading_of(benchmark), document, (), images=())


def every_question(mirror: Path, benchmark: str, task: str) -> None:
    """Reads all questions of a task, each of their pictures decoded once. ValueError names the first question that cannot be asked, or
    whose answer is none of its options."""
    reading, doc_id = reading_of(benchmark), 0
    decoded: Recollection[bool] = Recollection()
    for file in split_files(mirror, *dataset_of(task)):
        for row, cells in enumerate(_Split(file).documents()):
            document = _document(cells)
            try:
                if not decoded.of(document):
                    _decode(reading, read := document.unread(), f"row {row} of {file.name}")
                    decoded.keep(read, True)
                asked = _asked(reading, document, (), images=())
            except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
                raise ValueError(f"question {doc_id} cannot be asked ({' '.join(str(error).split())})") from None
            letters = [chr(ord("A") + k) for k in range(len(asked.options))]
            if letters and asked.target.strip("() .").upper() not in letters:
                raise ValueError(f"question {doc_id} has the answer {asked.target!r}, and its options are {', '.join(letters)}")
            doc_id += 1


def _decode(reading: Any, document: Document, where: str) -> None:
    """Decodes a row's pictures. ValueError names the row and the column of one that is none, or is cut off."""
    try:
        with whole_files:  # or a process that has imported lmms-eval takes pictures that another one refuses
            for picture in reading.images(document):
                picture.load()
    except (KeyError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's readers and a benchmark's own code raise whatever they meet
        raise ValueError(document.without_picture(error, where)) from None


def place_of(mirror: Path, task: str, doc_id: int) -> str:
    """The row that holds a question, counted in its file from 0; for a task that asks about the rows as they are."""
    row = doc_id
    for file in split_files(mirror, *dataset_of(task)):
        if row < (rows := _Split(file).rows):
            return f"row {row} of {file.name}"
        row -= rows
    return f"row {doc_id}"


def _document(cells: Mapping[str, Any]) -> Document:
    return Document(cells, dict.fromkeys(cells, _opened))


def _asked(reading: Any, document: Document, boxes: tuple[Box, ...], images: Iterable[Any] | None = None) -> MirrorQuestion:
    """images: if not those that the document shows."""
    return MirrorQuestion(
        reading.question(document).strip(),
        tuple(reading.options(document)),
        reading.target(document),
        tuple(reading.images(document) if images is None else images),
        boxes,
    )


class _Split:
    """One file of a split: parquet, Arrow as `datasets` prepares it, or a list in JSON. ValueError if it is none of them."""

    def __init__(self, file: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        self.file = file
        try:
            if file.suffix == ".arrow":
                with pyarrow.memory_map(str(file)) as source:
                    self.table = pyarrow.ipc.open_stream(source).read_all()
            elif file.suffix == ".json":
                self.table = pyarrow.Table.from_pylist(json.loads(file.read_text(encoding="utf-8")))
            else:
                self.table = None
                opened = parquet.ParquetFile(file)
                self.rows, self.columns = opened.metadata.num_rows, tuple(opened.schema_arrow.names)
            if self.table is not None:
                self.rows, self.columns = self.table.num_rows, tuple(self.table.column_names)
        except (pyarrow.ArrowException, json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{file.name} cannot be read ({error})") from None

    def documents(self) -> Iterator[dict[str, Any]]:
        """All rows in order, a few at a time in memory."""
        from pyarrow import parquet

        batches = (
            parquet.ParquetFile(self.file).iter_batches(batch_size=_ROWS_AT_ONCE)
            if self.table is None else self.table.to_batches(max_chunksize=_ROWS_AT_ONCE)
        )
        for batch in batches:
            yield from batch.to_pylist()

    def take(self, rows: list[int]) -> list[dict[str, Any]]:
        """These rows; a row group may hold gigabytes of pictures, so it is read in small batches."""
        import pyarrow
        from pyarrow import parquet

        if self.table is not None:
            return self.table.take(rows).to_pylist()
        found: dict[int, dict[str, Any]] = {}
        first, last = 0, max(rows)
        for batch in parquet.ParquetFile(self.file).iter_batches(batch_size=_ROWS_AT_ONCE):
            inside = [row for row in rows if first <= row < first + len(batch)]
            found |= dict(zip(inside, batch.take(pyarrow.array([row - first for row in inside])).to_pylist())) if inside else {}
            first += len(batch)
            if first > last:
                break
        return [found[row] for row in rows]


def boxes_of(mirror: Path, task: str) -> dict[int, tuple[Box, ...]]:
    """doc_id -> evidence boxes, without reading a question; empty where the data set comes without boxes."""
    rows = read_sidecar(mirror, dataset_of(task)[0]) or {}
    return {doc_id: tuple((image, *box) for image, box in zip(images, boxes)) for doc_id, (boxes, images) in rows.items()}


def number_of_questions(mirror: Path, task: str, columns: Iterable[str] = ()) -> int:
    """Questions of the task's split. FileNotFoundError as in `read_questions`; LookupError for a column that is not there."""
    total = 0
    for file in split_files(mirror, *dataset_of(task)):
        source = _Split(file)
        if missing := [name for name in columns if name not in source.columns]:
            raise LookupError(f"{file.name} has no column {', '.join(missing)} (it has {', '.join(source.columns)})")
        total += source.rows
    return total


def _opened(value: Any) -> Any:
    """`datasets` stores a picture as {bytes, path}, and decodes it upright, as `open_image` does."""
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"} and value["bytes"] is not None:
        from models.backbone.pictures import Unreadable, open_image

        try:
            return open_image(io.BytesIO(value["bytes"]))
        except Unreadable as error:
            raise ValueError(f"its picture is {str(error).partition(': ')[2]}") from None
    return value


class NoSplit(FileNotFoundError):
    """A data set lacks the files of a split. why: what its card says instead, in words; "" where it says nothing of it."""

    def __init__(self, said: str, why: str) -> None:
        super().__init__(said)
        self.why = why


def _patterns(files: str | list[Any], split: str) -> list[str]:
    """What a card's `data_files` names for a split; where it names none, its files are the split train."""
    files = [files] if isinstance(files, str) else files
    named = [entry["path"] for entry in files if isinstance(entry, Mapping) and entry["split"] == split]
    named += [entry for entry in files if isinstance(entry, str) and split == "train"]
    return [path for one in named for path in ([one] if isinstance(one, str) else one)]


def split_files(mirror: Path, config: str | None, split: str) -> list[Path]:
    """The split's files in order: what the data set's card names, else what the usual names are. Raises NoSplit."""
    card = mirror / "README.md"
    text = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL) if card.is_file() else None
    patterns: list[str] = []
    listed = (yaml.safe_load(text[1]) or {}).get("configs", []) if text else []
    for one in listed:
        if one.get("config_name", "default") == (config or "default"):
            patterns += _patterns(one.get("data_files", []), split)
    if patterns:
        found = sorted({file for pattern in patterns for file in mirror.glob(pattern)})
    else:  # `datasets` finds files by their names alone where it is asked for no configuration
        usual = () if config else (f"data/{split}-*.parquet", f"**/{split}-*.parquet")
        found = next((files for pattern in usual if (files := sorted(mirror.glob(pattern)))), [])
    if not found:
        names = ", ".join(str(one.get("config_name", "default")) for one in listed)
        if patterns:
            why = f"README.md names {patterns[0]} for it"
        elif config:
            why = f"README.md names the configurations {names}" if names else "README.md, which says what files a configuration has, names none"
        else:
            why = ""
        raise NoSplit(f"{mirror}: no file of split {split}" + (f", configuration {config}" if config else ""), why)
    return found
