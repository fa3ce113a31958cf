"""A benchmark of clips in the schema and layout of Video-MME, which the stock lmms-eval task reads unchanged.

    out/videomme/test-00000-of-00001.parquet    up to three questions about each video
    out/data/<videoID>.mp4                      6, 8 or 10 seconds: short, medium, long
    out/spans.jsonl                             {"doc_id", "spans" in seconds, "family", "video_sha256" of the pixels}

The families of questions stand for those of Video-MME's task types that come nearest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from models.proxy import prompts
from models.proxy.clip_rows import frames_of
from models.proxy.clips import Asked
from models.proxy.clipset import questions_of
from models.proxy.films import content_of, content_of_all, write_film
from models.proxy.mirrors import readme

DEFAULT_ROWS = 900
SECONDS = {"short": 6, "medium": 8, "long": 10}
TASK_TYPES = {
    "glimpse": "Attribute Perception", "order": "Temporal Perception", "sequence": "Temporal Perception",
    "after": "Temporal Reasoning", "turns": "Action Recognition", "moves": "Spatial Perception", "count": "Counting Problem",
}
PARQUET = "videomme/test-00000-of-00001.parquet"


def _row(asked: Asked, number: int, place: int, duration: str) -> dict[str, Any]:
    question = asked.question
    return {
        "video_id": f"{number + 1:03d}", "duration": duration, "domain": "Knowledge", "sub_category": "Technology", "url": "",
        "videoID": f"proxy{number:06d}", "question_id": f"{number + 1:03d}-{place + 1}", "task_type": TASK_TYPES[question.family],
        "question": question.text, "options": [f"{prompts.LETTERS[k]}. {text}" for k, text in enumerate(question.options)],
        "answer": question.letter,
    }  # fmt: skip


def write_clip_mirror(
    out: Path, *, n: int | None = None, seed: int, split: Literal["dev", "test"], progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `n` questions to the folder `out`; returns counts and hashes. ValueError unless n is positive."""
    from datasets import Dataset, Features, List, Value

    total = DEFAULT_ROWS if n is None else n
    if total < 1:
        raise ValueError(f"a benchmark needs at least one question, not {total}")
    rows: list[dict[str, Any]] = []
    spans: list[dict[str, Any]] = []
    contents: list[tuple[str, str]] = []
    while len(rows) < total:
        number = len(contents)
        duration = list(SECONDS)[number % len(SECONDS)]
        asked = questions_of(split, seed, number, total - len(rows), SECONDS[duration])
        frames = frames_of(asked[0].clip)
        name = f"proxy{number:06d}.mp4"
        write_film(out / "data" / name, frames)
        contents.append((name, content_of(frames)))
        for place, one in enumerate(asked):
            spans.append({"doc_id": len(rows), "spans": one.spans, "family": one.question.family, "video_sha256": contents[-1][1]})
            rows.append(_row(one, number, place, duration))
        if progress is not None:
            progress(len(rows), total)
    text = Value("string")
    features = Features({name: List(text) if name == "options" else text for name in rows[0]})
    (out / PARQUET).parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(out / PARQUET)
    (out / "spans.jsonl").write_text("".join(json.dumps(line) + "\n" for line in spans))
    (out / "README.md").write_text(readme([("videomme", "test", PARQUET)], f"videomme, proxy mirror ({split}, seed {seed})"))
    asked_text = json.dumps([{name: row[name] for name in ("question", "options", "answer")} for row in rows])
    return {
        "benchmark": "videomme", "split": split, "seed": seed, "rows": len(rows), "videos": len(contents),
        "durations": dict(Counter(row["duration"] for row in rows)), "families": dict(sorted(Counter(s["family"] for s in spans).items())),
        "videos_sha256": content_of_all(contents), "questions_sha256": hashlib.sha256(asked_text.encode()).hexdigest(),
    }  # fmt: skip
