"""Pictures and rows of Visual CoT. The release finds a picture by data set and file name, not by the path that the
annotation holds: `SOURCES` says where each of the twelve data sets has its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.rehearsal.world import pictures

QUESTION = "<image>\nWhat does the marked part of the picture show?\nProvide a short and direct response."


@dataclass(frozen=True)
class SourceForm:
    """folders: under the picture folder, used in turn; {shard} runs from 0 to 5. size: typical, in pixels; pages are scans."""

    folders: tuple[str, ...]
    file: str
    size: pictures.Size
    share: float
    scan: bool = False


SOURCES = {
    "flickr30k": SourceForm(("flickr30k/flickr30k-images",), "{n}.jpg", (500, 375), 0.31),
    "gqa": SourceForm(("gqa/images",), "{n}.jpg", (640, 480), 0.20),
    "openimages": SourceForm(("openimages/train_{shard}",), "{n:016x}.jpg", (1024, 683), 0.10),
    "v7w": SourceForm(("visual7w/images",), "v7w_{n}.jpg", (640, 427), 0.10),
    "docvqa": SourceForm(("docvqa",), "doc{n}_1.png", (1700, 2200), 0.07, scan=True),
    "textcap": SourceForm(("textvqa/train_images",), "{n:016x}.jpg", (1024, 683), 0.07),
    "textvqa": SourceForm(("textvqa/train_images",), "{n:016x}.jpg", (1024, 768), 0.04),
    "infographicsvqa": SourceForm(("infographicsvqa",), "{n}.jpeg", (800, 2600), 0.03, scan=True),
    "dude": SourceForm(
        ("viscot/dude", "dude", "dude/DUDE_train-val-test_binaries/images/train", "dude/viscot/dude"),
        "{n:032x}_0.jpg",
        (1240, 1750),
        0.04,
        scan=True,
    ),
    "sroie": SourceForm(("viscot/sroie", "sroie", "sroie/viscot/sroie"), "X{n:011d}.jpg", (700, 1600), 0.02, scan=True),
    "vsr": SourceForm(("vsr/images",), "{n:012d}.jpg", (640, 480), 0.01),
    "cub": SourceForm(
        ("cub/CUB_200_2011/images/004.Groove_billed_Ani",), "Groove_Billed_Ani_{n:04d}_1.jpg", (500, 400), 0.01
    ),
}


@dataclass
class Album:
    """Writes pictures and makes rows that show them."""

    folder: Path
    rng: np.random.Generator
    names: dict[str, list[str]] = field(default_factory=dict)
    """Source -> names, in the annotations' form, of the pictures that are there."""
    _number: int = 70_000

    def name(self, source: str) -> tuple[str, Path]:
        """A name that no other picture has, as the annotations write it, and the file that the release opens for it."""
        form = SOURCES[source]
        self._number += int(self.rng.integers(1, 60))
        file = form.file.format(n=self._number)
        place = form.folders[self._number % len(form.folders)].format(shard=self._number % 6)
        below = "004.Groove_billed_Ani/" if source == "cub" else ""
        return f"viscot/{source}/{below}{file}", self.folder / place / file

    def put(self, content: bytes, source: str = "gqa", place: Path | None = None) -> str:
        """Write a picture file; returns its name. place: where, if not where the release looks first."""
        name, path = self.name(source)
        path = path if place is None else self.folder / place / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def fill(self, count: int) -> None:
        """Good pictures: at least two of each source, the rest by the sources' shares of the 363k rows."""
        for source, form in SOURCES.items():
            for _ in range(max(2, round(count * form.share))):
                zoom = self.rng.uniform(0.5, 1.0)
                size = (round(form.size[0] * zoom), round(form.size[1] * zoom * self.rng.uniform(0.9, 1.1)))
                image = (pictures.page if form.scan else pictures.scene)(self.rng, size)
                content = pictures.png(image.convert("1")) if form.file.endswith("png") else pictures.jpeg(image)
                self.names.setdefault(source, []).append(self.put(content, source))

    def known(self, source: str) -> str:
        """The name of a good picture."""
        return str(self.rng.choice(self.names[source]))

    def box(self) -> list[float]:
        x, y = self.rng.uniform(0, 0.65, 2)
        width, height = self.rng.uniform(0.06, 0.3, 2)
        return [round(float(value), 4) for value in (x, y, x + width, y + height)]

    def row(self, source: str = "gqa", **changes: Any) -> dict[str, Any]:
        """A row in the release's form, with some of its fields replaced."""
        answer = f"<lvr>\n<answer> It shows {self.rng.integers(10, 10_000)}. </answer>"
        return {
            "dataset": source,
            "image": [self.known(source)],
            "conversations": talk(QUESTION, answer),
            "bboxes": [self.box()],
            **changes,
        }


def talk(*texts: Any, roles: Iterable[Any] = ("human", "gpt")) -> list[dict[str, Any]]:
    """Turns that alternate between two roles."""
    first, second = roles
    return [{"from": (first, second)[k % 2], "value": text} for k, text in enumerate(texts)]
