"""The true boxes of a mirror's questions, for oracle latents and for people: a sidecar beside the data, keyed by doc_id."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from models.backbone.clips import Span
    from models.backbone.pictures import Box

SIDECAR, SPANS = "boxes.jsonl", "spans.jsonl"
SEVERAL = "several pictures"
"""Why a question about several clips, or about clips and pictures, is not zoomed to what is predicted; in earlier records, about several
pictures too."""
Boxes = list[list[float]]
Places: TypeAlias = "dict[int, Box | Span]"
"""Number of a question's picture or clip -> where to look there."""


def read_sidecar(mirror: Path, config_name: str | None) -> dict[int, tuple[Boxes, list[int]]] | None:
    """doc_id -> boxes (normalised x0, y0, x1, y1) and the image index of each; None where there is no sidecar. Torch-free.

    The sidecar is `<config_name>/boxes.jsonl` where the data set has configurations, else `boxes.jsonl`; its lines are
    {"doc_id", "boxes": [[x0, y0, x1, y1], …], "images": [0, …]}; without "images" every box is on the first image. ValueError, naming file
    and line, for one that is not so.
    """
    if (file := _file(mirror, config_name, SIDECAR)) is None:
        return None
    found = {}
    for place, doc_id, row in _lines(file, "boxes", 4):
        boxes = row["boxes"]
        images = row.get("images", [0] * len(boxes))
        if len(images) != len(boxes):
            raise ValueError(f"{place}: {len(boxes)} boxes and {len(images)} image indices")
        if wrong := [image for image in images if type(image) is not int or image < 0]:
            raise ValueError(f"{place}: image {wrong[0]!r}; expected the number of a picture of the question, from 0")
        if wrong := [box for box in boxes if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)]:
            raise ValueError(f"{place}: box {wrong[0]}; expected x0, y0, x1, y1 as shares of the picture, x0 < x1 and y0 < y1")
        found[doc_id] = boxes, images
    return found


def read_spans(mirror: Path, config_name: str | None) -> dict[int, list[Span]] | None:
    """doc_id -> the spans of its clip that are evidence, in seconds; None where there is no sidecar. Torch-free.

    The sidecar is `spans.jsonl`, where `boxes.jsonl` would be; its lines are {"doc_id", "spans": [[begin, end], …]}. ValueError, naming
    file and line, for one that is not so.
    """
    if (file := _file(mirror, config_name, SPANS)) is None:
        return None
    found = {}
    for place, doc_id, row in _lines(file, "spans", 2):
        if wrong := [span for span in row["spans"] if not 0 <= span[0] < span[1]]:
            raise ValueError(f"{place}: span {wrong[0]}; expected begin and end in seconds, the begin before the end")
        found[doc_id] = [(span[0], span[1]) for span in row["spans"]]
    return found


def read_places(mirror: Path, config_name: str | None, *, clips: bool, among: Collection[str | None] = ()) -> dict[int, Places]:
    """doc_id -> what is annotated of each of its pictures (of its clip): the smallest box (span) that holds all of it. Without what has
    no annotation. FileNotFoundError if there is no sidecar, for the other configurations that are asked about (`among`) either."""
    if is_annotated(mirror, SPANS if clips else SIDECAR, among) and not is_annotated(mirror, SPANS if clips else SIDECAR, [config_name]):
        return {}
    if clips:
        if (spans := read_spans(mirror, config_name)) is None:
            raise FileNotFoundError(f"zoom: oracle needs the annotated spans, and {mirror} holds no {SPANS}")
        return {doc: {0: (min(begin for begin, _ in own), max(end for _, end in own))} for doc, own in spans.items() if own}
    if (rows := read_sidecar(mirror, config_name)) is None:
        raise FileNotFoundError(f"zoom: oracle needs the annotated boxes, and {mirror} holds no {SIDECAR}")
    found: dict[int, Places] = {}
    for doc, (boxes, images) in rows.items():
        for image in dict.fromkeys(images):
            left, top, right, bottom = zip(*(box for box, at in zip(boxes, images) if at == image))
            found.setdefault(doc, {})[image] = (min(left), min(top), max(right), max(bottom))
    return found


def is_annotated(folder: Path, name: str, configs: Iterable[str | None]) -> bool:
    """Whether a task over one of these configurations finds a sidecar of this name."""
    return any(_file(folder, config, name) is not None for config in configs)


def shared_sidecars(folder: Path, configs: Collection[str | None]) -> list[Path]:
    """Sidecars that several configurations would read, though a doc_id counts the questions of one."""
    return [
        folder / name for name in (SIDECAR, SPANS) if [_file(folder, config, name) for config in configs].count(folder / name) > 1
    ]  # fmt: skip


def _file(mirror: Path, config_name: str | None, name: str) -> Path | None:
    places = [mirror / config_name / name] if config_name else []
    return next((place for place in (*places, mirror / name) if place.is_file()), None)


def _lines(file: Path, field: str, numbers: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file and line, doc_id, the line) of a sidecar whose `field` is a list of lists of so many numbers."""
    seen: dict[int, int] = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        place = f"{file.resolve()}:{number}"
        try:
            row: dict[str, Any] = json.loads(line)
            doc_id = row["doc_id"]
            good = type(doc_id) is int and all(len(one) == numbers and all(math.isfinite(n) for n in one) for one in row[field])
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise ValueError(f'{place}: {line[:120]}; expected {{"doc_id": 0, "{field}": [[{numbers} numbers], …]}}')
        if (first := seen.setdefault(doc_id, number)) != number:
            raise ValueError(f"{place}: doc_id {doc_id} a second time, after line {first}; write all its {field} on one line")
        yield place, doc_id, row


def read_boxes(mirror: Path, task: str, config_name: str | None) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
    """(task, doc_id) -> boxes [b, 4] float64 and the image index of each [b], from the sidecar.

    FileNotFoundError if there is none: a stock data set has no boxes, so no oracle.
    """
    import torch

    rows = read_sidecar(mirror, config_name)
    if rows is None:
        raise FileNotFoundError(f"latents: oracle needs the true boxes, and {mirror} holds no {SIDECAR} for {task}")
    return {
        (task, doc_id): (torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), torch.tensor(images, dtype=torch.long))
        for doc_id, (boxes, images) in rows.items()
    }
