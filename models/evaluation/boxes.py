"""The true boxes of a mirror's questions, for oracle latents and for people: a sidecar beside the data, keyed by doc_id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SIDECAR = "boxes.jsonl"
Boxes = list[list[float]]


def read_sidecar(mirror: Path, config_name: str | None) -> dict[int, tuple[Boxes, list[int]]] | None:
    """doc_id -> boxes (normalised x0, y0, x1, y1) and the image index of each; None where there is no sidecar. Torch-free.

    The sidecar is `<config_name>/boxes.jsonl` where the data set has configurations, else `boxes.jsonl`; its lines are
    {"doc_id", "boxes": [[x0, y0, x1, y1], …], "images": [0, …]}; without "images" every box is on the first image.
    """
    places = [mirror / config_name / SIDECAR] if config_name else []
    file = next((place for place in (*places, mirror / SIDECAR) if place.is_file()), None)
    if file is None:
        return None
    found = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        row: dict[str, Any] = json.loads(line)
        boxes = row["boxes"]
        images = row.get("images", [0] * len(boxes))
        if len(images) != len(boxes):
            raise ValueError(f"{file}:{number}: {len(boxes)} boxes and {len(images)} image indices")
        found[int(row["doc_id"])] = (boxes, images)
    return found


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
