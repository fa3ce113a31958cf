"""Twin questions for the causal card: one question about two pictures that differ in the evidence alone, with four options.

The pictures are minimal pairs (`pairs`): same layout, same noise, one attribute of one object changed. Unlike the proxy's MMVP,
which asks for one of the two values, the options hold two more values of the attribute, so that an answer that merely
leaves the first picture's value is told from one that follows the second's. Written in MMVP's schema, with evidence boxes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.proxy import mirrors, pairs
from models.proxy.benchmarks import Asked
from models.proxy.pairs import Pair
from models.proxy.scenes import ATTRIBUTES, USUAL, render, sample_scene
from models.proxy.splits import Role, draw, stream

STREAM = 30
"""Number of the twins' random streams; benchmarks have those from 10."""
SHARES = {"attribute": 0.7, "two_hop": 0.3}
OPTIONS = 4


def twin_pair(role: Role, seed: int, index: int) -> tuple[Asked, Asked]:
    """Pair number `index`."""
    rng = stream(role, seed, STREAM, index)
    make = pairs.MAKERS[str(rng.choice(list(SHARES), p=list(SHARES.values())))]
    while True:
        scene = draw(role, lambda: sample_scene(rng, USUAL), lambda s: [s.content()])
        for _ in range(40):
            if (pair := make(rng, scene)) is not None:
                first, second = _widened(rng, pair)
                return first, second


def _widened(rng: np.random.Generator, pair: Pair) -> list[Asked]:
    """With two more values of the attribute among the options, those in the scene first."""
    values = pair.questions[0].options
    words = next(words for words in ATTRIBUTES.values() if set(values) <= set(words))
    shown = {word for item in pair.scenes[0].items for word in (item.color, item.shape, item.fill)}
    others = [str(word) for word in rng.permutation([word for word in words if word not in values])]
    options = [*values, *sorted(others, key=lambda word: word not in shown)][:OPTIONS]
    order = tuple(options[k] for k in rng.permutation(len(options)))
    return [
        Asked(replace(question, options=order, answer=order.index(question.answer_text)), (render(scene),), (scene,))
        for scene, question in zip(pair.scenes, pair.questions, strict=True)
    ]


def write_twins(
    out: Path, *, n: int, seed: int, split: Literal["dev", "test"], progress: mirrors.Progress | None = None
) -> dict[str, Any]:
    """Write `n` questions, two to a pair, to the folder `out` and return their count. ValueError for an odd n."""
    if n % 2:
        raise ValueError(f"twins come in twos, {n} is odd")
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, n)

    twins = (twin_pair(split, seed, index) for index in range(n // 2))
    rows = mirrors.write_pairs(out, twins, f"twin questions ({split}, seed {seed})", report)
    return {"split": split, "seed": seed, "rows": rows}
