"""A viewer's files: the page, and beside it a folder with data that the page loads as it needs them.

    NAME.html                     names of rows, columns, latents; filters; the program
    NAME/COLUMN.js                questions, kinds, what was answered and whether it was right: all that filters need
    NAME/COLUMN-0.js, -1.js, …    the answers' texts, a number of questions each
    NAME/pictures/…               each picture once; of a clip a few frames

Data are scripts that call `deliver`, since a page opened from a file may load nothing else. A text from a data set or a model
is data in them and never markup.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.outgoing import inert, inert_values
from harness.report.viewer.answers import Identity, Run, Sheet
from harness.report.writers.files import replace_file

SIDE, FRAME_SIDE = 512, 256
"""Pixels of a picture's longer side at most, and of a clip's frame; smaller ones keep theirs."""
FRAMES = 4
"""Of a clip, evenly spread from its first to its last."""
PART_BYTES = 400_000
"""Of a file with answers' texts, roughly."""
TEXT, SAID = 4000, 60
"""Characters of a text at most, and of what was read from an answer."""


@dataclass
class Written:
    """What a viewer consists of."""

    folder: Path
    names: set[str] = field(default_factory=set)
    size: int = 0
    questions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Column -> its questions, as the page is given them."""

    def add(self, name: str, content: bytes) -> None:
        if name not in self.names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / name, content)
            self.names.add(name)
            self.size += len(content)

    def script(self, name: str, value: Any) -> None:
        """A file that hands `value` to the page."""
        text = json.dumps(inert_values(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        self.add(f"{name}.js", f"deliver({json.dumps(name)},{text});\n".encode())

    def sweep(self) -> None:
        """Deletes what an earlier viewer of this name left."""
        for path in self.folder.rglob("*"):
            if path.is_file() and str(path.relative_to(self.folder)) not in self.names:
                path.unlink()


class Texts:
    """A table of different texts; answers are few and repeat."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.places: dict[str, int] = {}

    def place(self, text: str) -> int:
        return self.places.setdefault(clipped(text, self.most), len(self.places))


def clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def folded(response: str) -> str:
    """With a run of latent slots as one word."""
    return re.sub(r"(<\|lvr\|>){2,}", lambda run: f"<|lvr|>×{len(run[0]) // len('<|lvr|>')}", response)


def write(path: Path, head: dict[str, Any], sheets: list[Sheet]) -> Written:
    """The page at `path` and its folder. head: title, rows, profile and the like. Raises OSError."""
    written = Written(path.with_suffix(""))
    written.folder.mkdir(parents=True, exist_ok=True)
    columns = [column(written, one) for one in sheets]
    written.sweep()
    latents = list(dict.fromkeys(run.latents for one in sheets for run in one.runs))
    rows = list(dict.fromkeys(run.row for one in sheets for run in one.runs))
    page = html({**head, "rows": rows, "latents": latents, "columns": columns, "data": written.folder.name})
    replace_file(path, inert(page).encode())
    return written


def column(written: Written, one: Sheet) -> dict[str, Any]:
    """Writes a column's files; what the page must know of it."""
    name = one.column.name
    said = Texts(SAID)
    kinds = {kind: place for place, kind in enumerate(dict.fromkeys(kind for found in one.kinds for kind in found))}
    runs = [
        {
            "row": run.row, "latents": run.latents, "seed": run.seed, "job": run.job.name,
            "said": [said.place(answer.prediction) for answer in run.answers],
            "right": "".join("1" if answer.right else "0" for answer in run.answers),
        }
        for run in one.runs
    ]  # fmt: skip
    per_part = questions_in_a_part(one)
    written.questions[name] = questions(written, one, kinds)
    written.script(
        name,
        {
            "questions": written.questions[name], "kinds": [list(kind) for kind in kinds], "said": list(said.places),
            "runs": runs, "part": per_part, "missing": list(one.missing),
        },
    )  # fmt: skip
    for part, start in enumerate(range(0, len(one.questions), per_part)):
        written.script(f"{name}-{part}", texts(one.runs, slice(start, start + per_part)))
    return {"name": name, "title": one.title, "shown": len(one.questions), "asked": one.asked}


def questions_in_a_part(one: Sheet) -> int:
    total = sum(12 + min(len(answer.response), TEXT) / 4 for run in one.runs for answer in run.answers)  # many texts repeat
    return max(1, min(200, int(PART_BYTES * len(one.questions) / (total or 1))))


def texts(runs: tuple[Run, ...], which: slice) -> dict[str, Any]:
    """For each run: [text, latent steps, cut off, log-likelihood] of each question."""
    found = Texts(TEXT)
    answers = [
        [
            [found.place(folded(a.response)), a.latent_steps, int(a.truncated), None if a.loglik is None else round(a.loglik, 3)]
            for a in run.answers[which]
        ]
        for run in runs
    ]
    return {"answers": answers, "texts": list(found.places)}


def questions(written: Written, one: Sheet, kinds: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    """The questions as their benchmark asks them, in order; their pictures are written one by one, since many at once do not
    fit into memory. A picture: [file, width, height, boxes in percent: left, top, width, height, what stands below it]. lost: why a
    clip is not shown."""
    from models.evaluation.questions import each_question

    found: dict[Identity, dict[str, Any]] = {}
    clips: dict[str, tuple[list[list[Any]], str]] = {}
    for task in dict.fromkeys(task for task, _ in one.questions):
        wanted = [doc for name, doc in one.questions if name == task]
        for doc_id, asked in each_question(one.mirror, one.column.benchmark, task, wanted):
            pictures = []
            for number, picture in enumerate(asked.images):
                name, content, size = reduced(picture)
                written.add(name, content)
                boxes = [
                    [round(100 * side, 2) for side in (x0, y0, x1 - x0, y1 - y0)] for at, x0, y0, x1, y1 in asked.boxes if at == number
                ]
                pictures.append([name, *size, boxes, ""])
            lost = asked.lost
            for path in asked.clips:
                if path not in clips:
                    clips[path] = frames_of(written, path)
                shown, why = clips[path]
                pictures, lost = [*pictures, *shown], lost or why
            options = [clipped(text, TEXT) for text in asked.options]
            found[task, doc_id] = {"text": clipped(asked.text, TEXT), "options": options, "pictures": pictures, "lost": clipped(lost.replace(f"{one.mirror.absolute()}/", ""), TEXT)}
    return [
        {"id": f"{identity[0]} {identity[1]}", "target": target, "kinds": [kinds[kind] for kind in mine], **found[identity]}
        for identity, target, mine in zip(one.questions, one.targets, one.kinds)
    ]


def frames_of(written: Written, path: str) -> tuple[list[list[Any]], str]:
    """(pictures as in `questions`, "") of a clip, or ([], why there are none)."""
    from models.backbone.clips import glimpses
    from models.backbone.pictures import Unreadable

    found = []
    try:
        for seconds, picture in glimpses(path, FRAMES):
            name, content, size = reduced(picture, FRAME_SIDE)
            written.add(name, content)
            found.append([name, *size, [], f"{seconds:.1f} s"])
    except Unreadable as why:
        return [], str(why)
    return found, ""


def reduced(picture: Any, side: int = SIDE) -> tuple[str, bytes, tuple[int, int]]:
    """(name by content, file, width and height). A drawing is smaller as PNG, a photograph as JPEG, here in full colour."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    found = {}
    for ending, how in (("png", {"format": "PNG"}), ("jpg", {"format": "JPEG", "quality": 92, "subsampling": 0})):
        content = io.BytesIO()
        small.save(content, **how)
        found[ending] = content.getvalue()
    ending = min(found, key=lambda one: len(found[one]))
    return f"pictures/{hashlib.sha256(found[ending]).hexdigest()[:16]}.{ending}", found[ending], small.size


def html(head: dict[str, Any]) -> str:
    """The page without its data."""
    from markupsafe import Markup

    from harness.report.writers.html import environment, trusted_script

    text = json.dumps(inert_values(head), ensure_ascii=True).replace("<", "\\u003c")
    return environment().get_template("viewer.html.j2").render(head=head, facts=Markup(text), **trusted_script("viewer.js"))
