"""The fine-tuning set, in the Visual-CoT format that the release trains on: meta JSON, annotation JSON, picture folder.

    out/meta.json           [{"ds_name", "data_path", "image_folder", "ds_type": "Q_A"}], paths relative to meta.json
    out/annotations.json    [{"dataset", "image", "conversations": [human, gpt], "bboxes", "bbox_images"}, …]
    out/images/…png

One sample has one box, hence one `<lvr>`: the object the answer is read from, or the union of the things that are
compared or counted (see `questions`). Scenes are of the `train` share; each serves up to four questions, as pictures of
Visual-CoT serve several. All families occur, most often those that the base answers in part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.proxy import benchmarks, prompts
from models.proxy.benchmarks import DENSE, MARKED, PALE, USUAL, choose
from models.proxy.mirrors import png
from models.proxy.questions import Question, in_fixed_order
from models.proxy.scenes import SceneStyle, render, sample_scene
from models.proxy.splits import draw, stream

DEFAULT_QUESTIONS = 8000
QUESTIONS_PER_SCENE = 4
PROMPT_SHARES = {"paper": 0.7, "mmvp": 0.1, "hrbench": 0.1, "blink": 0.1}


@dataclass(frozen=True)
class Kind:
    """A kind of picture and the families asked about it."""

    share: float
    """Share of the questions."""
    style: SceneStyle | None
    """None: a puzzle, named by the only family."""
    families: dict[str, float]


KINDS = {
    "usual": Kind(0.40, USUAL, {
        "attribute": 0.40, "presence": 0.22, "side": 0.09, "relation": 0.13, "count": 0.08, "two_hop": 0.04, "compare": 0.04}),
    "pale": Kind(0.20, PALE, {"relation": 0.45, "count": 0.55}),
    "dense": Kind(0.24, DENSE, {"attribute": 0.50, "direction": 0.30, "two_hop": 0.10, "extreme": 0.10}),
    "marked": Kind(0.10, MARKED, {"reflectance": 1.0}),
    "pattern": Kind(0.02, None, {"pattern": 1.0}),
    "jigsaw": Kind(0.04, None, {"jigsaw": 1.0}),
}


@dataclass(frozen=True)
class Scenes:
    """Questions about one set of pictures."""

    kind: str
    pictures: tuple[np.ndarray, ...]
    questions: tuple[Question, ...]
    contents: tuple[bytes, ...]


def _samples(kind: str, count: int, seed: int, number: int) -> Iterator[Scenes]:
    """Samples of one kind until `count` questions are asked."""
    spec, asked, index = KINDS[kind], 0, 0
    while asked < count:
        rng = stream("train", seed, number, index)
        index += 1
        if spec.style is None:
            puzzle = benchmarks.ask_puzzle("train", rng, kind)
            yield Scenes(kind, puzzle.pictures, (puzzle.question,), tuple(s.content() for s in puzzle.scenes))
            asked += 1
            continue
        style = spec.style
        scene = draw("train", lambda rng=rng, style=style: sample_scene(rng, style), lambda s: [s.content()])
        found: dict[str, Question] = {}
        wanted = min(1 if kind == "marked" else QUESTIONS_PER_SCENE, count - asked)
        for _ in range(wanted * 2):
            question = benchmarks.ask_family(rng, scene, choose(rng, spec.families))
            if question is not None and len(found) < wanted:
                found.setdefault(question.text, question)
        if found:
            yield Scenes(kind, (render(scene),), tuple(found.values()), (scene.content(),))
            asked += len(found)


def entry(question: Question, images: list[str], prompt: str) -> dict[str, Any]:
    """One annotation: the human turn with its pictures, the assistant's with one latent placeholder, and the box."""
    return {
        "dataset": f"proxy_{question.family}",
        "image": images,
        "conversations": [
            {"from": "human", "value": "<image>\n" * len(images) + prompt},
            {"from": "gpt", "value": f"<lvr>\n{prompts.answer(question.letter)}"},
        ],
        "bboxes": [[round(v, 6) for v in question.box]],
        "bbox_images": [question.image],
    }


def write_training_set(
    out: Path, *, n: int = DEFAULT_QUESTIONS, seed: int, progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `n` questions to the folder `out`; returns counts and hashes.

    Keys: questions, images, families, kinds (counts), images_sha256 (over the sorted names and bytes of all pictures),
    annotations_sha256. ValueError unless n is positive. `progress(done, n)` is called per picture set.
    """
    if n < 1:
        raise ValueError(f"a training set needs at least one question, not {n}")
    (out / "images").mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    families: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    hashes: list[tuple[str, str]] = []
    left = n
    for number, (kind, spec) in enumerate(KINDS.items()):
        count = left if number == len(KINDS) - 1 else min(left, round(n * spec.share))
        left -= count
        for index, sample in enumerate(_samples(kind, count, seed, number)):
            names = []
            for k, picture in enumerate(sample.pictures):
                name = f"{kind}/{index:06d}_{k}.png" if len(sample.pictures) > 1 else f"{kind}/{index:06d}.png"
                data = png(picture)
                path = out / "images" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                names.append(name)
                hashes.append((name, hashlib.sha256(data).hexdigest()))
            rng = stream("train", seed, 100 + number, index)
            for question in sample.questions:
                protocol = choose(rng, PROMPT_SHARES)
                if protocol == "blink" and question.family == "relation":
                    question = in_fixed_order(question)
                entries.append(entry(question, names, prompts.LETTER_PROMPTS[protocol](question)))
                families[question.family] += 1
                kinds[kind] += 1
            if progress is not None:
                progress(len(entries), n)
    order = stream("train", seed, 999).permutation(len(entries))
    annotations = json.dumps([entries[k] for k in order], indent=0)
    (out / "annotations.json").write_text(annotations)
    meta = [{"ds_name": "proxy", "data_path": "annotations.json", "image_folder": "images", "ds_type": "Q_A"}]
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    return {
        "questions": len(entries), "images": len(hashes), "families": dict(sorted(families.items())), "kinds": dict(kinds),
        "images_sha256": hashlib.sha256(repr(sorted(hashes)).encode()).hexdigest(),
        "annotations_sha256": hashlib.sha256(annotations.encode()).hexdigest(), "seed": seed,
    }
