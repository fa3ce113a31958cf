"""Minimal pairs after MMVP: two pictures, one question, one thing changed, opposite answers.

The two scenes of a pair occupy the same cells, so they are one content and stay in one split. Noise and background are
shared: nothing but the changed thing differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from models.proxy import questions
from models.proxy.questions import YES_NO, Question, pick
from models.proxy.scenes import ATTRIBUTES, Item, Scene


@dataclass(frozen=True)
class Pair:
    """Two scenes and the same question about each; the answers differ."""

    scenes: tuple[Scene, Scene]
    questions: tuple[Question, Question]


Maker = Callable[[np.random.Generator, Scene], Pair | None]


def _altered(rng: np.random.Generator, scene: Scene, item: Item, attribute: str) -> Item:
    """The item with another value of one attribute, one that occurs in the scene if possible."""
    seen = sorted({i.get(attribute) for i in scene.items} - {item.get(attribute)})
    value = str(pick(rng, seen or [w for w in ATTRIBUTES[attribute] if w != item.get(attribute)]))
    return replace(item, **{attribute: value})


def _swapped(scene: Scene, a: Item, b: Item) -> tuple[Scene, Item, Item]:
    """The scene with two objects' places exchanged."""
    place_a, place_b = (dict(row=i.row, col=i.col, dx=i.dx, dy=i.dy) for i in (a, b))
    size = min(a.size_px, b.size_px)
    new_a, new_b = replace(a, **place_b, size_px=size), replace(b, **place_a, size_px=size)
    items = tuple(new_a if i == a else new_b if i == b else i for i in scene.items)
    return replace(scene, items=items), new_a, new_b


def _pair(family: str, scenes: tuple[Scene, Scene], text: str, options: tuple[str, ...], answers: tuple[str, str],
          things: tuple[tuple[Item, ...], tuple[Item, ...]]) -> Pair:
    return Pair(scenes, tuple(  # type: ignore[arg-type]
        Question(family, text, options, options.index(answer), scene.box(*evidence), evidence)
        for scene, answer, evidence in zip(scenes, answers, things, strict=True)
    ))


def _two_options(rng: np.random.Generator, first: str, second: str) -> tuple[str, ...]:
    return (first, second) if rng.random() < 0.5 else (second, first)


def attribute(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """The named object's asked attribute differs."""
    item, asked = questions.any_item(rng, scene), str(pick(rng, list(ATTRIBUTES)))
    words = {a: item.get(a) for a in ATTRIBUTES if a != asked}
    if len(questions.matching(scene, words)) != 1:
        return None
    new = _altered(rng, scene, item, asked)
    text = questions.ASK[asked].format("the " + questions.phrase(words))
    return _pair("attribute", (scene, scene.with_item(item, new)), text, _two_options(rng, item.get(asked), new.get(asked)),
                 (item.get(asked), new.get(asked)), ((item,), (new,)))


def presence(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """The only object of its kind is there, or has turned into something else."""
    item = questions.any_item(rng, scene)
    by = list(combinations(ATTRIBUTES, 2))[int(rng.integers(3))]
    words = {a: item.get(a) for a in by}
    if len(questions.matching(scene, words)) != 1:
        return None
    new = _altered(rng, scene, item, str(pick(rng, list(by))))
    text = f"Is there {questions.article(questions.phrase(words))} in the image?"
    return _pair("presence", (scene, scene.with_item(item, new)), text, _two_options(rng, *YES_NO), YES_NO, ((item,), (new,)))


def side(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """The object has changed places with one in the other half."""
    a = questions.any_item(rng, scene)
    axis = str(pick(rng, ["row", "col"]))
    half = scene.side_px // 32
    across = [i for i in scene.items if (getattr(i, axis) < half) != (getattr(a, axis) < half)]
    words = questions.name_of(rng, scene, a)
    if not across or words is None:
        return None
    other, new_a, _ = _swapped(scene, a, across[int(rng.integers(len(across)))])
    first, second = questions.HALVES[axis]
    answers = (first, second) if getattr(a, axis) < half else (second, first)
    text = f"Is the {questions.phrase(words)} in the {first} or the {second} of the image?"
    return _pair("side", (scene, other), text, _two_options(rng, first, second), answers, ((a,), (new_a,)))


def relation(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """The two objects have changed places."""
    found = questions.two_named(rng, scene)
    word = str(pick(rng, list(questions.RELATIONS)))
    axis, sign = questions.RELATIONS[word]
    if found is None or abs(getattr(found[0], axis) - getattr(found[1], axis)) < 2:
        return None
    a, b, name_a, name_b = found
    other, new_a, new_b = _swapped(scene, a, b)
    yes = (getattr(a, axis) - getattr(b, axis)) * sign > 0
    return _pair("relation", (scene, other), f"Is {name_a} {word} {name_b}?", _two_options(rng, *YES_NO),
                 YES_NO if yes else YES_NO[::-1], ((a, b), (new_a, new_b)))


def count(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """One object more or less of the counted kind."""
    item, by = questions.any_item(rng, scene), str(pick(rng, list(ATTRIBUTES)))
    before = questions.matching(scene, {by: item.get(by)})
    if not 2 <= len(before) <= 6:
        return None
    new = _altered(rng, scene, item, by)
    noun = questions.plural(questions.phrase({by: item.get(by)}))
    after = tuple(i for i in before if i != item)
    numbers = str(len(before)), str(len(after))
    return _pair("count", (scene, scene.with_item(item, new)), f"How many {noun} are there in the image?", _two_options(rng, *numbers),
                 numbers, (tuple(before), after))


def two_hop(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """The asked attribute of the object closest to the named one differs."""
    anchor, asked = questions.any_item(rng, scene), str(pick(rng, list(ATTRIBUTES)))
    words, target = questions.name_of(rng, scene, anchor), questions.nearest(scene, anchor)
    if words is None or target is None:
        return None
    new = _altered(rng, scene, target, asked)
    other = scene.with_item(target, new)
    if len(questions.matching(other, words)) != 1:
        return None
    text = questions.ASK[asked].format(f"the object closest to the {questions.phrase(words)}")
    return _pair("two_hop", (scene, other), text, _two_options(rng, target.get(asked), new.get(asked)),
                 (target.get(asked), new.get(asked)), ((target, anchor), (new, anchor)))


def compare(rng: np.random.Generator, scene: Scene) -> Pair | None:
    """Two named objects share an attribute, or no longer."""
    a, b = (scene.items[k] for k in rng.choice(len(scene.items), 2, replace=False))
    asked = str(pick(rng, list(ATTRIBUTES)))
    names = [questions.name_of(rng, scene, i, without=asked) for i in (a, b)]
    if names[0] is None or names[1] is None or a.get(asked) != b.get(asked):
        return None
    new = _altered(rng, scene, b, asked)
    text = questions.compare_text(asked, questions.phrase(names[0]), questions.phrase(names[1]))
    return _pair("compare", (scene, scene.with_item(b, new)), text, _two_options(rng, *YES_NO), YES_NO, ((a, b), (a, new)))


MAKERS: dict[str, Maker] = {
    "attribute": attribute, "presence": presence, "side": side, "relation": relation, "count": count, "two_hop": two_hop,
    "compare": compare,
}
