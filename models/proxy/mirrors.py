"""Benchmark mirrors: folders in the schema of the stock data sets, which stock lmms-eval tasks read unchanged.

Beside each parquet lies `boxes.jsonl` (per configuration for BLINK): one line per row with "doc_id" (row number),
"boxes" (normalised x0, y0, x1, y1), "images" (the picture each box is in), "family" and "scenes" (content hashes). The
data sets' own columns hold nothing that the originals do not hold.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from models.proxy import benchmarks, prompts
from models.proxy.benchmarks import BENCHMARKS, Asked
from models.proxy.splits import Role

NONE_FITS = "The image does not feature the object"
Progress = Callable[[int, int], None]
"""Called with (rows written, rows in all)."""

DEFAULT_ROWS = {
    "mmvp": 1000, "blink": benchmarks.BLINK_TOTAL, "hrbench4k": 1000, "hrbench8k": 1000, "vstar": 1000, "mmerealworld_lite": 1000,
}


def png(picture: np.ndarray) -> bytes:
    """PNG of a picture uint8 [h, w, 3]: lossless, or object edges would change."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def _image(picture: np.ndarray) -> dict[str, Any]:
    return {"bytes": png(picture), "path": None}


def _base64(picture: np.ndarray) -> str:
    return base64.b64encode(png(picture)).decode()


def content_hash(asked: Asked) -> list[str]:
    """Hashes of the contents of a question's scenes, to show that splits are disjoint."""
    return [hashlib.blake2b(s.content(), digest_size=12).hexdigest() for s in asked.scenes]


def _sidecar(asked: Asked) -> dict[str, Any]:
    q = asked.question
    return {"boxes": [[round(v, 6) for v in q.box]], "images": [q.image], "family": q.family, "scenes": content_hash(asked)}


Row = tuple[dict[str, Any], dict[str, Any]]
"""A data set row and its sidecar record."""


def rotated(asked: Asked, places: int) -> Asked:
    """The same question with its options moved `places` to the front."""
    q = asked.question
    options = q.options[places:] + q.options[:places]
    return replace(asked, question=replace(q, options=options, answer=options.index(q.answer_text)))


def with_none(asked: Asked) -> Asked:
    """The same question with MME-RealWorld's fifth option, which is never right here."""
    return replace(asked, question=replace(asked.question, options=(*asked.question.options, NONE_FITS)))


def mmvp_rows(pairs: Iterable[tuple[Asked, Asked]]) -> Iterator[Row]:
    """Two neighbouring rows of MMVP's schema for each pair."""
    for k, asked in enumerate(one for pair in pairs for one in pair):
        q = asked.question
        options = " ".join(f"({chr(ord('a') + i)}) {o}" for i, o in enumerate(q.options))
        yield {
            "Index": k + 1, "Question": q.text, "Options": options, "Correct Answer": f"({q.letter.lower()})",
            "image": _image(asked.pictures[0]),
        }, _sidecar(asked)


def _blink(role: Role, seed: int, subset: str, n: int) -> Iterator[Row]:
    for k in range(n):
        asked = benchmarks.blink_item(role, seed, subset, k)
        q = asked.question
        pictures = [_image(p) for p in asked.pictures] + [None] * (4 - len(asked.pictures))
        yield {
            "idx": f"val_{subset}_{k + 1}", "question": q.text, "sub_task": subset,
            **{f"image_{i + 1}": p for i, p in enumerate(pictures)},
            "choices": list(q.options), "answer": f"({q.letter})", "prompt": prompts.blink_document(q),
        }, _sidecar(asked)


def _hrbench(role: Role, seed: int, n: int, benchmark: str) -> Iterator[Row]:
    """Four rows per question: the options rotated by 0 to 3 places, so that each letter is right once."""
    for k in range(n):
        if k % 4 == 0:
            category, asked = benchmarks.hrbench_item(role, seed, k // 4, benchmark)
            encoded = _base64(asked.pictures[0])
        q = rotated(asked, k % 4).question
        yield {
            "index": k, "question": q.text, "answer": q.letter, "category": category,
            **dict(zip("ABCD", q.options, strict=True)), "cycle_category": str(k % 4), "image": encoded,
        }, _sidecar(asked)


def _vstar(role: Role, seed: int, n: int) -> Iterator[Row]:
    direct = round(n * 115 / 191)
    for k in range(n):
        asked = benchmarks.vstar_item(role, seed, k, k < direct)
        q = asked.question
        options = "".join(f"\n({chr(ord('A') + i)}) {o}" for i, o in enumerate(q.options))
        category = "direct_attributes" if k < direct else "relative_position"
        yield {
            "image": _image(asked.pictures[0]), "text": q.text + options + prompts.PAPER_POST, "category": category,
            "label": q.letter, "question_id": str(k),
        }, _sidecar(asked)


def _mme(role: Role, seed: int, n: int) -> Iterator[Row]:
    perception = round(n * 1169 / 1919)
    for k in range(n):
        reasoning = k >= perception
        asked = with_none(benchmarks.mme_item(role, seed, k, reasoning))
        q = asked.question
        options = [f"({prompts.LETTERS[i]}) {o}" for i, o in enumerate(q.options)]
        yield {
            "index": str(k), "bytes": _base64(asked.pictures[0]), "question": q.text, "multi-choice options": options,
            "answer": q.letter, "category": f"{'Reasoning' if reasoning else 'Perception'}/Monitoring",
            "l2-category": q.family,
        }, _sidecar(asked)


def _features(benchmark: str):
    from datasets import Features, List, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    if benchmark == "mmvp":
        return Features({"Index": Value("int64"), "Question": text, "Options": text, "Correct Answer": text, "image": ImageFeature()})
    if benchmark == "blink":
        return Features({
            "idx": text, "question": text, "sub_task": text, **{f"image_{k}": ImageFeature() for k in range(1, 5)},
            "choices": List(text), "answer": text, "prompt": text,
        })
    if benchmark in ("hrbench4k", "hrbench8k"):
        return Features({
            "index": Value("int64"), "question": text, "answer": text, "category": text, **dict.fromkeys("ABCD", text),
            "cycle_category": text, "image": text,
        })
    if benchmark == "vstar":
        return Features(dict(image=ImageFeature(), text=text, category=text, label=text, question_id=text))
    return Features({
        "index": text, "bytes": text, "question": text, "multi-choice options": List(text), "answer": text, "category": text,
        "l2-category": text,
    })


def _write(rows: Iterator[Row], parquet: Path, sidecar: Path, benchmark: str, report: Callable[[], None]) -> int:
    from datasets import Dataset

    parquet.parent.mkdir(parents=True, exist_ok=True)
    sidecar.parent.mkdir(parents=True, exist_ok=True)
    documents: list[dict[str, Any]] = []
    with sidecar.open("w") as boxes:
        for number, (row, record) in enumerate(rows):
            documents.append(row)
            boxes.write(json.dumps({"doc_id": number, **record}) + "\n")
            report()
    Dataset.from_list(documents, features=_features(benchmark)).to_parquet(parquet)
    return len(documents)


def readme(configs: list[tuple[str, str, str]], title: str) -> str:
    """A data set's card. configs: (configuration, split, data file)."""
    block = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {path}\n" for name, split, path in configs
    )
    return f"---\nconfigs:\n{block}---\n# {title}\n\nProcedural pictures in the schema of the stock data set; see `models/proxy`.\n"


def _path(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def write_pairs(out: Path, pairs: Iterable[tuple[Asked, Asked]], title: str, report: Callable[[], None]) -> int:
    """A folder in MMVP's schema; the number of its questions."""
    count = _write(mmvp_rows(pairs), out / _path("train"), out / "boxes.jsonl", "mmvp", report)
    (out / "README.md").write_text(readme([("default", "train", _path("train"))], title))
    return count


def write_mirror(
    out: Path, benchmark: str, *, n: int | None = None, seed: int, split: Literal["dev", "test"], progress: Progress | None = None,
) -> dict[str, Any]:
    """Write one mirror of `n` rows (default DEFAULT_ROWS) to the folder `out` and return its counts.

    benchmark: a key of BENCHMARKS. MMVP needs an even n, HR-Bench a multiple of four. ValueError otherwise.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {benchmark!r}; known: {', '.join(BENCHMARKS)}")
    if split not in ("dev", "test"):
        raise ValueError(f"a mirror is of 'dev' or 'test', not {split!r}")
    total = DEFAULT_ROWS[benchmark] if n is None else n
    multiple = {"mmvp": 2, "hrbench4k": 4, "hrbench8k": 4}.get(benchmark, 1)
    if total < 1 or total % multiple:
        raise ValueError(f"{benchmark} is written in rows of {multiple}, {total} is none such number")
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    counts: dict[str, int] = {}
    if benchmark == "blink":
        configs = []
        for subset, count in benchmarks.blink_counts(total).items():
            if count:
                path = f"{subset}/val-00000-of-00001.parquet"
                counts[subset] = _write(_blink(split, seed, subset, count), out / path, out / subset / "boxes.jsonl", benchmark, report)
                configs.append((subset, "val", path))
    else:
        rows, config, data_split = {
            "mmvp": lambda: (mmvp_rows(benchmarks.mmvp_pair(split, seed, k) for k in range(total // 2)), "default", "train"),
            "hrbench4k": lambda: (_hrbench(split, seed, total, benchmark), "hrbench_version_split", "hrbench_4k"),
            "hrbench8k": lambda: (_hrbench(split, seed, total, benchmark), "hrbench_version_split", "hrbench_8k"),
            "vstar": lambda: (_vstar(split, seed, total), "default", "test"),
            "mmerealworld_lite": lambda: (_mme(split, seed, total), "default", "train"),
        }[benchmark]()
        counts[data_split] = _write(rows, out / _path(data_split), out / "boxes.jsonl", benchmark, report)
        configs = [(config, data_split, _path(data_split))]
    (out / "README.md").write_text(readme(configs, f"{benchmark}, proxy mirror ({split}, seed {seed})"))
    return {"benchmark": benchmark, "split": split, "seed": seed, "rows": sum(counts.values()), "counts": counts}
