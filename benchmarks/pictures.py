"""How often large pictures are decoded and hashed in an evaluation, and how long that takes: every row by itself against here.

    python -m benchmarks.pictures              # minutes; --write: into benchmarks/pictures.md

Pictures are JPEGs of 7680 x 4320 pixels, smooth shapes under noise; HR-Bench's rows hold them as base64 text, four rotations a
picture, and V*'s as a column of `datasets`, one row each. A base model of the proxy's size answers with one token after it was shown
them in 64 tokens, so that nearly all of the time goes into pictures. "Every row by itself" reads rows as plain dictionaries, as this
project did before it remembered pictures; both ways run in turn in one process, and their samples.jsonl must be equal.

A decoding is counted where Pillow decodes a file, a hash where all pixels are hashed. Seconds are wall time of the whole evaluation
and of one thread a rank. Peak memory is of rank 0, above what it takes before. Memory is set to hold one of
the two pictures decoded; a real evaluation holds 512 MB, five of HR-Bench's 200. A picture that no other row shows takes longer here: memory that
holds what is kept cannot be reused for the next one.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import numpy as np
from PIL import Image, ImageFile

from benchmarks.page import about, machine, show
from models.config import DecodeSpec, EvaluateSpec, Images
from models.evaluation import Session, known, lmms_model, mirror
from models.evaluation import questions as mirrors
from models.evaluation.tasks import digest
from models.proxy import BASE_DIR
from models.run import LocalRun

FILE = Path(__file__).with_suffix(".md")
WIDTH, HEIGHT, PICTURES, ROTATIONS = 7680, 4320, 2, 4
IMAGES = Images(min_pixels=784, max_pixels=64 * 784)
PLAIN = DecodeSpec(latent_steps=0, start="never", max_new_tokens=1)
DECODED, HASHED = (multiprocessing.Value("i", 0) for _ in range(2))
"""Of all processes together."""


@dataclass(frozen=True)
class Case:
    """benchmark: whose rows are answered. ranks: processes. zoom: of DecodeSpec. before: answered first, uncounted, by the same
    session, which then forgets the questions but keeps what it knows of pictures."""

    name: str
    benchmark: str = "hrbench8k"
    protocol: str = "paper"
    ranks: int = 1
    zoom: str = "none"
    before: bool = False


CASES = [
    Case("HR-Bench 8K"),
    Case("HR-Bench 8K, stock task", protocol="stock"),
    Case("HR-Bench 8K, two ranks", ranks=2),
    Case("HR-Bench 8K, zooming to annotated boxes", zoom="oracle"),
    Case("HR-Bench 8K, next checkpoint of one process", before=True),
    Case("a picture column (V*)", "vstar"),
    Case("a picture column (V*), two ranks", "vstar", ranks=2),
]


def jpeg(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (27, 48, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    grain = random.integers(-12, 13, (HEIGHT, WIDTH, 1), dtype=np.int16)
    Image.fromarray((np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)).save(out := io.BytesIO(), "JPEG", quality=90)
    return out.getvalue()


def write_mirrors(folder: Path) -> int:
    """HR-Bench 8K and V* over the same pictures; the bytes of one picture."""
    files = [jpeg(seed) for seed in range(PICTURES)]
    asked = {"question": "What colour is it?", "A": "red", "B": "blue", "C": "black", "D": "white", "answer": "A", "category": "single"}
    rows = [
        asked | {"index": k, "cycle_category": str(k % ROTATIONS), "image": base64.b64encode(files[k // ROTATIONS]).decode()}
        for k in range(PICTURES * ROTATIONS)
    ]
    _write(folder / "hrbench8k", rows, "hrbench_8k", "hrbench_version_split")
    boxes = [json.dumps({"doc_id": k, "boxes": [[0.4, 0.4, 0.6, 0.6]]}) for k in range(len(rows))]
    (folder / "hrbench8k" / "boxes.jsonl").write_text("\n".join(boxes) + "\n")
    asked = {"text": "What is it?\n(A) red\n(B) blue\nAnswer with the option's letter from the given choices directly.", "label": "A"}
    asked["category"] = "relative_position"
    rows = [asked | {"question_id": str(k), "image": {"bytes": file, "path": None}} for k, file in enumerate(files)]
    _write(folder / "vstar", rows, "test", "default")
    return len(files[0])


def _write(folder: Path, rows: list[dict[str, Any]], split: str, config: str) -> None:
    folder.mkdir()
    table = datasets.Dataset.from_list(rows)
    if isinstance(rows[0]["image"], dict):
        table = table.cast_column("image", datasets.Image())
    table.to_parquet(folder / f"{split}.parquet")
    card = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {split}.parquet\n"
    (folder / "README.md").write_text(f"---\n{card}---\n")


@contextmanager
def counting() -> Iterator[None]:
    load, content_hash = ImageFile.ImageFile.load, known.content_hash

    def decoded(self: Any) -> Any:
        with DECODED.get_lock():
            DECODED.value += bool(self.tile)
        return load(self)

    def hashed(picture: Image.Image) -> str:
        with HASHED.get_lock():
            HASHED.value += 1
        return content_hash(picture)

    ImageFile.ImageFile.load, known.content_hash = decoded, hashed
    try:
        yield
    finally:
        ImageFile.ImageFile.load, known.content_hash = load, content_hash


@contextmanager
def each_row_by_itself() -> Iterator[None]:
    documents, of = lmms_model._documents, mirrors.Recollection.of
    lmms_model._documents = lambda *given: [dict(one) for one in documents(*given)]
    mirrors.Recollection.of = lambda self, document: None
    try:
        yield
    finally:
        lmms_model._documents, mirrors.Recollection.of = documents, of


@contextmanager
def measured(found: dict[str, float]) -> Iterator[None]:
    """Seconds, decodings, hashes and peak megabytes of what is done meanwhile."""
    DECODED.value = HASHED.value = 0
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begun = _kilobytes("VmRSS"), time.perf_counter()
    yield
    found["seconds"], found["MB"] = time.perf_counter() - begun, (_kilobytes("VmHWM") - before) / 1e3
    found["decoded"], found["hashed"] = DECODED.value, HASHED.value


def _kilobytes(name: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))


def evaluated(case: Case, folder: Path, out: Path) -> tuple[dict[str, float], bytes]:
    """One evaluation, and the samples that it leaves."""
    session = Session(BASE_DIR, precision="fp32")
    decode = PLAIN.model_copy(update={"zoom": case.zoom})
    spec = EvaluateSpec(
        benchmark=case.benchmark, protocol=case.protocol, tasks=digest(case.benchmark, case.protocol), decode=decode, images=IMAGES,
        precision="fp32",
    )  # fmt: skip

    def run(rank: int) -> None:
        session.evaluate(LocalRun(out, out / "checkpoints", rank=rank, ranks=case.ranks), spec, mirror=folder / case.benchmark, batch_size=8)

    if case.before:
        run(0)
        session._prepared.clear()
        session.engine.forget_answers()
    session._task(next(iter(spec.tasks)), (folder / case.benchmark).resolve())  # `datasets` converts the files once
    found: dict[str, float] = {}
    others = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(1, case.ranks)]
    with measured(found):
        for other in others:
            other.start()
        run(0)
        for other in others:
            other.join()
    return found, (out / "samples.jsonl").read_bytes()


def looked_through(folder: Path) -> dict[str, float]:
    """What a mirror job does, which reads every question before anything is answered."""
    found: dict[str, float] = {}
    with measured(found):
        mirrors.every_question(folder / "hrbench8k", "hrbench8k", "vr_hrbench8k")
    return found


def table(folder: Path) -> str:
    size = write_mirrors(folder)
    lines = [
        f"{PICTURES} pictures of {size / 1e6:.0f} MB as JPEG, {3 * WIDTH * HEIGHT / 1e6:.0f} MB decoded. {machine()}",
        "",
        "| Evaluation | Rows | Decoded | Hashed | s a row | Peak, MB |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for number, case in enumerate(CASES):
        rows = PICTURES * (ROTATIONS if case.benchmark == "hrbench8k" else 1)
        with each_row_by_itself():
            before, expected = evaluated(case, folder, folder / f"before{number}")
        after, got = evaluated(case, folder, folder / f"after{number}")
        if got != expected:
            raise AssertionError(f"{case.name}: samples differ")
        lines.append(_line(case.name, rows, before, after))
        print(lines[-1], file=sys.stderr)
    with each_row_by_itself():
        before = looked_through(folder)
    lines.append(_line("HR-Bench 8K, the mirror job's look at every question", PICTURES * ROTATIONS, before, looked_through(folder)))
    return "\n".join([*lines, "", "Each cell: every row by itself → here."])


def _line(name: str, rows: int, before: dict[str, float], after: dict[str, float]) -> str:
    shown: list[Callable[[dict[str, float]], str]] = [
        lambda one: f"{one['decoded']:.0f}", lambda one: f"{one['hashed']:.0f}", lambda one: f"{one['seconds'] / rows:.2f}",
        lambda one: f"{one['MB']:,.0f}",
    ]  # fmt: skip
    return f"| {name} | {rows} | " + " | ".join(f"{show(before)} → {show(after)}" for show in shown) + " |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    options = parser.parse_args(arguments)
    mirror._DECODED_BYTES = 3 * WIDTH * HEIGHT
    with tempfile.TemporaryDirectory() as folder, counting():
        page = f"# Large pictures\n\nMade by `python -m benchmarks.pictures --write`.\n\n{ABOUT}\n\n{table(Path(folder))}\n"
    show(page, FILE if options.write else None)
    return 0


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
