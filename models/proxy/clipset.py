"""The fine-tuning set of clips, in the format of VisReflect's release: records with the spans that prove the answer.

    out/meta.json           [{"ds_name", "data_path", "image_folder", "ds_type": "Q_A"}], paths relative to meta.json
    out/annotations.json    [{"video", "question", "answer", "temporal_span": [[begin, end], …]}, …], spans in seconds
    out/videos/…mp4

A clip serves up to three questions. An answer is `<answer> A </answer>`, as the base learned to give it. The release trains on
a record's answer as it stands, and its own data say "The answer is: A": words that the base has never read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.proxy import clips, prompts
from models.proxy.benchmarks import choose
from models.proxy.clip_rows import draw_asked, frames_of
from models.proxy.clips import SECONDS, SHIFTED, Asked
from models.proxy.films import content_of, content_of_all, write_film
from models.proxy.splits import Role, stream

DEFAULT_QUESTIONS = 2700
QUESTIONS_PER_CLIP = 3
SHARES = {"glimpse": 0.42, "order": 0.06, "sequence": 0.04, "after": 0.06, "turns": 0.16, "moves": 0.22, "count": 0.04}
"""Of the clips, by what they are made for: most for what the base answers in part, where training can teach (experiments/tuning)."""
AGAIN = ("glimpse", "turns", "moves")
"""What further questions about a clip may ask; of the rest the base answers next to nothing, so one about each clip made for it is enough."""
CLIPS_STREAM = 200
"""Number of the clips in the random streams of a role, so that they share none with pictures."""


def questions_of(role: Role, seed: int, index: int, most: int = QUESTIONS_PER_CLIP, seconds: int = SECONDS) -> list[Asked]:
    """Questions about clip `index` of a role, one at least and `most` at most, each with another text."""
    rng = stream(role, seed, CLIPS_STREAM, index)
    first = draw_asked(role, rng, choose(rng, SHARES), SHIFTED, seconds)
    found = {first.question.text: first}
    for _ in range(2 * (QUESTIONS_PER_CLIP - 1)):
        other = clips.ask_again(rng, first.clip)
        if other is not None and other.question.family in AGAIN:
            found.setdefault(other.question.text, other)
    return list(found.values())[: min(most, QUESTIONS_PER_CLIP)]


def record(asked: Asked, video: str) -> dict[str, Any]:
    """One record of the release's format."""
    return {
        "video": video,
        "question": prompts.mmvp(asked.question),
        "answer": prompts.answer(asked.question.letter),
        "temporal_span": [list(span) for span in asked.spans],
    }


def write_clip_set(
    out: Path, *, n: int = DEFAULT_QUESTIONS, seed: int, progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `n` questions to the folder `out`; returns counts and hashes.

    Keys: questions, videos, families (counts), videos_sha256 (over names and pixels, not over the files' bytes, which depend on the
    encoder's version), annotations_sha256, seed. ValueError unless n is positive. `progress(done, n)` is called per clip.
    """
    if n < 1:
        raise ValueError(f"a training set needs at least one question, not {n}")
    entries: list[dict[str, Any]] = []
    families: Counter[str] = Counter()
    contents: list[tuple[str, str]] = []
    while len(entries) < n:
        index = len(contents)
        asked = questions_of("train", seed, index, n - len(entries))
        name = f"{index:05d}.mp4"
        frames = frames_of(asked[0].clip)
        write_film(out / "videos" / name, frames)
        contents.append((name, content_of(frames)))
        entries += [record(one, name) for one in asked]
        families.update(one.question.family for one in asked)
        if progress is not None:
            progress(len(entries), n)
    order = stream("train", seed, CLIPS_STREAM + 1).permutation(len(entries))
    annotations = json.dumps([entries[k] for k in order], indent=0)
    (out / "annotations.json").write_text(annotations)
    meta = [{"ds_name": "proxy_clips", "data_path": "annotations.json", "image_folder": "videos", "ds_type": "Q_A"}]
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    return {
        "questions": len(entries), "videos": len(contents), "families": dict(sorted(families.items())),
        "videos_sha256": content_of_all(contents), "annotations_sha256": hashlib.sha256(annotations.encode()).hexdigest(), "seed": seed,
    }
