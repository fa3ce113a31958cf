"""What each proxy benchmark asks: its subsets, their shares and the questions, one benchmark item at a time.

Scenes are paler and noisier than the base's own, and every benchmark mixes families that it answers in part with some that
it hardly knows, so that it stands between chance and ceiling. Items are drawn by (role, benchmark, seed, index) alone. Knows nothing of file formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from models.proxy import pairs, puzzles, questions, scenes
from models.proxy.questions import Question
from models.proxy.scenes import Scene, SceneStyle, render, sample_scene
from models.proxy.splits import Role, draw, stream


@dataclass(frozen=True)
class Asked:
    """A question with its pictures (uint8 [side, side, 3]) and the scenes they show."""

    question: Question
    pictures: tuple[np.ndarray, ...]
    scenes: tuple[Scene, ...]


BENCHMARKS = {"mmvp": 10, "blink": 11, "hrbench4k": 12, "hrbench8k": 13, "vstar": 14, "mmerealworld_lite": 15}
"""Every benchmark's number in the random streams."""

SHIFT = {"contrast": (0.25, 0.6), "noise": (1.0, 1.6)}
"""How the world of fine-tuning and evaluation differs from the base's: paler things on a noisier ground, by degrees, so
that the base answers a part of every kind's questions and training has something to teach."""
CLEAN = scenes.USUAL
USUAL, DENSE = replace(scenes.USUAL, **SHIFT), replace(scenes.DENSE, **SHIFT)
PALE = replace(USUAL, contrast=(0.22, 0.48))
"""BLINK's scenes: paler still, or training would have little to teach there."""
MARKED = replace(PALE, items=(4, 12), marker_probability=1.0)
DENSER = replace(DENSE, items=(36, 48))

MMVP_SHARES = {"attribute": 0.30, "presence": 0.18, "side": 0.10, "relation": 0.10, "count": 0.12, "two_hop": 0.12, "compare": 0.08}
BLINK_COUNTS = {"Counting": 120, "IQ_Test": 150, "Jigsaw": 150, "Relative_Reflectance": 134, "Spatial_Relation": 143}
"""The five subsets and their sizes in the original's val split; the proxy keeps the proportions."""
BLINK_TOTAL = 1046

_SINGLE = {"attribute": 0.75, "extreme": 0.25}
_CROSS = {"direction": 0.65, "two_hop": 0.35}
_PERCEPTION = {"attribute": 0.7, "count": 0.3}
_REASONING = {"two_hop": 0.5, "extreme": 0.25, "compare": 0.25}


def _family(name: str) -> Callable[[np.random.Generator, Scene], Question | None]:
    """A family with four options where it has a choice."""
    family = {**questions.CORE, **questions.HELD_OUT}[name]
    if name in ("attribute", "direction", "count", "two_hop", "extreme"):
        return lambda rng, scene: family(rng, scene, 4)  # type: ignore[call-arg]
    return family


def ask_family(rng: np.random.Generator, scene: Scene, name: str) -> Question | None:
    """A question of the named family about a scene, with four options where it has a choice; None if it admits none."""
    return questions.ask(rng, scene, _family(name))


def ask_scene(role: Role, rng: np.random.Generator, name: str, style: SceneStyle) -> Asked:
    """One question of a family about a fresh scene of the role; tries scenes until one admits the question."""
    while True:
        scene = draw(role, lambda: sample_scene(rng, style), lambda s: [s.content()])
        question = ask_family(rng, scene, name)
        if question is not None:
            return Asked(question, (render(scene),), (scene,))


def ask_puzzle(role: Role, rng: np.random.Generator, name: str) -> Asked:
    """One puzzle whose scenes all belong to the role."""
    puzzle = draw(role, lambda: puzzles.PUZZLES[name](rng), lambda p: [s.content() for s in p.scenes])
    return Asked(puzzle.question, puzzle.pictures, puzzle.scenes)


def choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """A name drawn by its share."""
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(shares), p=weights / weights.sum()))]


def mmvp_pair(role: Role, seed: int, index: int) -> tuple[Asked, Asked]:
    """Minimal pair number `index`."""
    rng = stream(role, seed, BENCHMARKS["mmvp"], index)
    make = pairs.MAKERS[choose(rng, MMVP_SHARES)]
    while True:
        scene = draw(role, lambda: sample_scene(rng, USUAL), lambda s: [s.content()])
        for _ in range(40):
            pair = make(rng, scene)
            if pair is not None:
                return tuple(  # type: ignore[return-value]
                    Asked(q, (render(s),), (s,)) for s, q in zip(pair.scenes, pair.questions, strict=True)
                )


def blink_item(role: Role, seed: int, subset: str, index: int) -> Asked:
    """Question `index` of a BLINK subset. ValueError for an unknown subset."""
    if subset not in BLINK_COUNTS:
        raise ValueError(f"unknown subset {subset!r}; known: {', '.join(BLINK_COUNTS)}")
    rng = stream(role, seed, BENCHMARKS["blink"], list(BLINK_COUNTS).index(subset), index)
    if subset == "IQ_Test":
        return ask_puzzle(role, rng, "pattern")
    if subset == "Jigsaw":
        return ask_puzzle(role, rng, "jigsaw")
    if subset == "Relative_Reflectance":
        return ask_scene(role, rng, "reflectance", MARKED)
    if subset == "Counting":
        return ask_scene(role, rng, "count", PALE)
    asked = ask_scene(role, rng, "relation", PALE)
    return replace(asked, question=questions.in_fixed_order(asked.question))


def blink_counts(total: int) -> dict[str, int]:
    """Questions per subset for a total, in the original's proportions; the largest remainders are rounded up."""
    whole = sum(BLINK_COUNTS.values())
    exact = {k: total * v / whole for k, v in BLINK_COUNTS.items()}
    counts = {k: int(v) for k, v in exact.items()}
    for k in sorted(exact, key=lambda k: counts[k] - exact[k])[: total - sum(counts.values())]:
        counts[k] += 1
    return counts


def hrbench_item(role: Role, seed: int, index: int, benchmark: str = "hrbench4k") -> tuple[str, Asked]:
    """Category ('single' for even, 'cross' for odd indices) and question `index` before its option rotations."""
    rng = stream(role, seed, BENCHMARKS[benchmark], index)
    style = DENSER if benchmark == "hrbench8k" else DENSE
    if index % 2 == 0:
        return "single", ask_scene(role, rng, choose(rng, _SINGLE), style)
    return "cross", ask_scene(role, rng, choose(rng, _CROSS), style)


def vstar_item(role: Role, seed: int, index: int, direct: bool) -> Asked:
    """A direct-attribute (four options) or relative-position (two options) question on a crowded picture."""
    rng = stream(role, seed, BENCHMARKS["vstar"], int(direct), index)
    return ask_scene(role, rng, "attribute" if direct else "relation", DENSE)


def mme_item(role: Role, seed: int, index: int, reasoning: bool) -> Asked:
    """A perception or reasoning question on a crowded picture."""
    rng = stream(role, seed, BENCHMARKS["mmerealworld_lite"], int(reasoning), index)
    return ask_scene(role, rng, choose(rng, _REASONING if reasoning else _PERCEPTION), DENSE)
