"""The true boxes of a mirror's questions, for oracle latents: a sidecar beside the data, keyed by doc_id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIDECAR = "boxes.jsonl"


def read_boxes(mirror: Path, task: str, config_name: str | None) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
    """(task, doc_id) -> boxes [b, 4] float64 (normalised x0, y0, x1, y1) and the image index of each [b].

    The sidecar is `<config_name>/boxes.jsonl` where the data set has configurations, else `boxes.jsonl`; its lines are
    {"doc_id", "boxes": [[x0, y0, x1, y1], …], "images": [0, …]}; without "images" every box is on the first image.
    FileNotFoundError if there is none: a stock data set has no boxes, so no oracle.
    """
    places = [mirror / config_name / SIDECAR] if config_name else []
    file = next((place for place in (*places, mirror / SIDECAR) if place.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"latents: oracle needs the true boxes, and {mirror} holds no {SIDECAR} for {task}")
    found = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        row: dict[str, Any] = json.loads(line)
        boxes = torch.tensor(row["boxes"], dtype=torch.float64).reshape(-1, 4)
        images = torch.tensor(row.get("images", [0] * len(boxes)), dtype=torch.long)
        if len(images) != len(boxes):
            raise ValueError(f"{file}:{number}: {len(boxes)} boxes and {len(images)} image indices")
        found[task, int(row["doc_id"])] = (boxes, images)
    return found
