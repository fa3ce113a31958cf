"""Questions about one scene: the families that latent slots are taught with, and those they never are.

A family is a function (rng, scene) -> Question or None where the scene admits none. Every question knows its options,
its answer and the things that prove it. Objects are named by two attributes (three where two are not unique), so a
question is a conjunction search. Knows nothing of prompts, letters or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from models.proxy.scenes import ATTRIBUTES, Box, Item, Marker, Scene

ASK = {"color": "What color is {}?", "shape": "What shape is {}?", "fill": "What pattern does {} have?"}
YES_NO = ("Yes", "No")
HALVES = {"col": ("left half", "right half"), "row": ("top half", "bottom half")}
RELATIONS = {"to the left of": ("col", -1), "to the right of": ("col", 1), "above": ("row", -1), "below": ("row", 1)}
DIRECTIONS = ("upper left", "upper right", "lower left", "lower right")
EXTREMES = {"leftmost": ("col", -1), "rightmost": ("col", 1), "topmost": ("row", -1), "bottommost": ("row", 1)}
REFLECTANCE = (
    "Two points are annotated on the image, labeled by A and B. Consider the surface color of the points (the albedo of "
    "the surface, without the effect of shading). Which point has darker surface color, or the colors is about the same?"
)
REFLECTANCE_OPTIONS = ("A is darker", "B is darker", "about the same")


@dataclass(frozen=True)
class Question:
    """A question with its options, the index of the right one, and its evidence.

    `box` is the one region that a model should look at: the object the answer is read from, or the union of the
    things compared or counted. `things` are the evidence objects one by one, `image` the picture they are in.
    """

    family: str
    text: str
    options: tuple[str, ...]
    answer: int
    box: Box
    things: tuple[Item | Marker, ...] = ()
    image: int = 0
    names: tuple[str, ...] = ()
    """The phrases in the text that name `things`, one each, where each names exactly its thing; else empty."""

    @property
    def answer_text(self) -> str:
        """The right option's words."""
        return self.options[self.answer]

    @property
    def letter(self) -> str:
        """The right option's letter."""
        return chr(ord("A") + self.answer)


Family = Callable[[np.random.Generator, Scene], Question | None]


def phrase(words: dict[str, str]) -> str:
    """'red striped circle' from attribute words; 'object' where no shape is given."""
    parts = [words.get("color"), words.get("fill"), words.get("shape", "object")]
    return " ".join(p for p in parts if p)


def article(noun: str) -> str:
    """'a red circle', 'an orange circle'."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun: str) -> str:
    """'red circles', 'crosses'."""
    return noun + ("es" if noun.endswith("s") else "s")


def in_fixed_order(question: Question) -> Question:
    """A yes-or-no question as BLINK asks it: always (A) yes, (B) no."""
    return replace(question, options=("yes", "no"), answer=0 if question.answer_text == "Yes" else 1)


def compare_text(asked: str, first: str, second: str) -> str:
    """'Do the striped circle and the dotted square have the same color?'."""
    return f"Do the {first} and the {second} have the same {'pattern' if asked == 'fill' else asked}?"


def matching(scene: Scene, words: dict[str, str]) -> list[Item]:
    """The scene's objects that have all the given attributes."""
    return [i for i in scene.items if all(i.get(k) == v for k, v in words.items())]


def name_of(rng: np.random.Generator, scene: Scene, item: Item, without: str | None = None) -> dict[str, str] | None:
    """Attributes that single `item` out: two if two suffice, else three; None if nothing allowed does."""
    allowed = [a for a in ATTRIBUTES if a != without]
    pairs = list(combinations(allowed, 2))
    for k in rng.permutation(len(pairs)):
        words = {a: item.get(a) for a in pairs[k]}
        if len(matching(scene, words)) == 1:
            return words
    words = {a: item.get(a) for a in allowed}
    return words if len(allowed) == 3 and len(matching(scene, words)) == 1 else None


def pick(rng: np.random.Generator, values: list) -> object:
    """One of a list."""
    return values[int(rng.integers(len(values)))]


def shuffled(rng: np.random.Generator, right: str, wrong: list[str]) -> tuple[tuple[str, ...], int]:
    """Options in random order and the index of the right one."""
    options = [right, *wrong]
    order = rng.permutation(len(options))
    return tuple(options[k] for k in order), int(np.argmin(order))


def attribute_options(rng: np.random.Generator, scene: Scene, attribute: str, right: str, count: int) -> tuple[tuple[str, ...], int]:
    """Options for an attribute: values seen in the scene first, so that no option can be ruled out as absent."""
    seen = sorted({i.get(attribute) for i in scene.items} - {right})
    unseen = [w for w in ATTRIBUTES[attribute] if w != right and w not in seen]
    wrong = [str(w) for w in [*rng.permutation(seen), *rng.permutation(unseen)]][: count - 1]
    return shuffled(rng, right, wrong)


def any_item(rng: np.random.Generator, scene: Scene) -> Item:
    """One of the scene's objects."""
    return scene.items[int(rng.integers(len(scene.items)))]


# --- families of the base's training ------------------------------------------------------------------------------


def attribute(rng: np.random.Generator, scene: Scene, options: int | None = None) -> Question | None:
    """An attribute of the object that two others name: 'What color is the striped circle?'."""
    item, asked = any_item(rng, scene), str(pick(rng, list(ATTRIBUTES)))
    words = {a: item.get(a) for a in ATTRIBUTES if a != asked}
    if len(matching(scene, words)) != 1:
        return None
    choices, answer = attribute_options(rng, scene, asked, item.get(asked), options or int(pick(rng, [2, 3, 4, 4])))
    return Question("attribute", ASK[asked].format("the " + phrase(words)), choices, answer, scene.box(item), (item,),
                    names=(phrase(words),))


def presence(rng: np.random.Generator, scene: Scene) -> Question | None:
    """'Is there a red circle in the image?'. Where there is none, the evidence is the object most like it."""
    item = any_item(rng, scene)
    pair = list(combinations(ATTRIBUTES, 2))[int(rng.integers(3))]
    words = {a: item.get(a) for a in pair}
    if rng.random() < 0.5:
        if len(matching(scene, words)) != 1:
            return None
        right = "Yes"
    else:
        changed = str(pick(rng, list(pair)))
        others = sorted({i.get(changed) for i in scene.items} - {item.get(changed)})
        if not others:
            return None
        words[changed] = str(pick(rng, others))
        if matching(scene, words):
            return None
        right = "No"
    order = YES_NO if rng.random() < 0.5 else YES_NO[::-1]
    return Question("presence", f"Is there {article(phrase(words))} in the image?", order, order.index(right), scene.box(item), (item,),
                    names=(phrase(words),) if right == "Yes" else ())


def two_named(rng: np.random.Generator, scene: Scene) -> tuple[Item, Item, str, str] | None:
    """Two objects and their names with 'the', or None where one cannot be named."""
    if len(scene.items) < 2:
        return None
    a, b = (scene.items[k] for k in rng.choice(len(scene.items), 2, replace=False))
    names = name_of(rng, scene, a), name_of(rng, scene, b)
    if names[0] is None or names[1] is None:
        return None
    return a, b, "the " + phrase(names[0]), "the " + phrase(names[1])


def relation(rng: np.random.Generator, scene: Scene) -> Question | None:
    """'Is the red circle to the left of the dotted square?', at least two cells apart along the axis asked about."""
    found = two_named(rng, scene)
    word = str(pick(rng, list(RELATIONS)))
    axis, sign = RELATIONS[word]
    if found is None or abs(getattr(found[0], axis) - getattr(found[1], axis)) < 2:
        return None
    a, b, name_a, name_b = found
    right = "Yes" if (getattr(a, axis) - getattr(b, axis)) * sign > 0 else "No"
    order = YES_NO if rng.random() < 0.5 else YES_NO[::-1]
    return Question("relation", f"Is {name_a} {word} {name_b}?", order, order.index(right), scene.box(a, b), (a, b),
                    names=(name_a, name_b))


def side(rng: np.random.Generator, scene: Scene) -> Question | None:
    """'Is the red circle in the left half or the right half of the image?'."""
    item = any_item(rng, scene)
    words = name_of(rng, scene, item)
    if words is None:
        return None
    axis = str(pick(rng, ["row", "col"]))
    first, second = HALVES[axis]
    right = first if getattr(item, axis) < scene.side_px // 32 else second
    choices, answer = shuffled(rng, right, [second if right == first else first])
    text = f"Is the {phrase(words)} in the {first} or the {second} of the image?"
    return Question("side", text, choices, answer, scene.box(item), (item,), names=(phrase(words),))


def direction(rng: np.random.Generator, scene: Scene, options: int = 4) -> Question | None:
    """'In which direction is the red circle from the dotted square?': four diagonals, two cells apart on both axes."""
    found = two_named(rng, scene)
    if found is None:
        return None
    a, b, name_a, name_b = found
    if abs(a.row - b.row) < 2 or abs(a.col - b.col) < 2:
        return None
    right = f"{'upper' if a.row < b.row else 'lower'} {'left' if a.col < b.col else 'right'}"
    wrong = [str(d) for d in rng.permutation([d for d in DIRECTIONS if d != right])][: options - 1]
    choices, answer = shuffled(rng, right, wrong)
    return Question("direction", f"In which direction is {name_a} from {name_b}?", choices, answer, scene.box(a, b), (a, b),
                    names=(name_a, name_b))


def reflectance(rng: np.random.Generator, scene: Scene) -> Question | None:
    """Which of two marked plates is darker, or neither."""
    marks = {m.letter: m for m in scene.markers}
    if not {"A", "B"} <= set(marks):
        return None
    a, b = marks["A"], marks["B"]
    answer = 2 if a.level == b.level else int(b.level < a.level)
    return Question("reflectance", REFLECTANCE, REFLECTANCE_OPTIONS, answer, scene.box(a, b), (a, b))


# --- families without evidence in the base's slots: whether reading carries over ------------------------------------------


def count(rng: np.random.Generator, scene: Scene, options: int = 4) -> Question | None:
    """'How many striped objects are there in the image?', one to six."""
    item, by = any_item(rng, scene), str(pick(rng, list(ATTRIBUTES)))
    found = matching(scene, {by: item.get(by)})
    if len(found) > 6:
        return None
    near = [n for n in range(max(1, len(found) - 3), min(7, len(found) + 3) + 1) if n != len(found)]
    wrong = [str(n) for n in rng.permutation(near)][: options - 1]
    choices, answer = shuffled(rng, str(len(found)), wrong)
    noun = plural(phrase({by: item.get(by)}))
    return Question("count", f"How many {noun} are there in the image?", choices, answer, scene.box(*found), tuple(found))


def _centre(item: Item) -> np.ndarray:
    x0, y0, x1, y1 = item.pixels
    return np.array(((x0 + x1) / 2, (y0 + y1) / 2))


def nearest(scene: Scene, anchor: Item) -> Item | None:
    """The object clearly nearest to `anchor` (the next one at least a quarter farther), or None."""
    others = [i for i in scene.items if i != anchor]
    if not others:
        return None
    distance = [float(np.hypot(*(_centre(i) - _centre(anchor)))) for i in others]
    order = np.argsort(distance)
    if len(others) > 1 and distance[order[1]] < 1.25 * distance[order[0]]:
        return None
    return others[int(order[0])]


def two_hop(rng: np.random.Generator, scene: Scene, options: int = 4) -> Question | None:
    """'What color is the object closest to the red circle?'. The box is the answer object's, not the anchor's."""
    anchor, asked = any_item(rng, scene), str(pick(rng, list(ATTRIBUTES)))
    words, target = name_of(rng, scene, anchor), nearest(scene, anchor)
    if words is None or target is None:
        return None
    choices, answer = attribute_options(rng, scene, asked, target.get(asked), options)
    text = ASK[asked].format(f"the object closest to the {phrase(words)}")
    return Question("two_hop", text, choices, answer, scene.box(target), (target, anchor))


def extreme(rng: np.random.Generator, scene: Scene, options: int = 4) -> Question | None:
    """'What color is the leftmost circle?', ahead of the next one by at least a cell."""
    word = str(pick(rng, list(EXTREMES)))
    axis, sign = EXTREMES[word]
    by, asked = (str(a) for a in rng.choice(list(ATTRIBUTES), 2, replace=False))
    value = any_item(rng, scene).get(by)
    ranked = sorted(matching(scene, {by: value}), key=lambda i: getattr(i, axis) * -sign)
    if len(ranked) < 2 or getattr(ranked[0], axis) == getattr(ranked[1], axis):
        return None
    choices, answer = attribute_options(rng, scene, asked, ranked[0].get(asked), options)
    text = ASK[asked].format(f"the {word} {phrase({by: value})}")
    return Question("extreme", text, choices, answer, scene.box(ranked[0]), (ranked[0],))


def compare(rng: np.random.Generator, scene: Scene) -> Question | None:
    """'Do the striped circle and the dotted square have the same color?'."""
    if len(scene.items) < 2:
        return None
    a, b = (scene.items[k] for k in rng.choice(len(scene.items), 2, replace=False))
    asked = str(pick(rng, list(ATTRIBUTES)))
    names = [name_of(rng, scene, i, without=asked) for i in (a, b)]
    same = a.get(asked) == b.get(asked)
    if names[0] is None or names[1] is None or (not same and rng.random() < 0.6):
        return None
    text = compare_text(asked, phrase(names[0]), phrase(names[1]))
    order = YES_NO if rng.random() < 0.5 else YES_NO[::-1]
    return Question("compare", text, order, order.index("Yes" if same else "No"), scene.box(a, b), (a, b))


CORE: dict[str, Family] = {
    "attribute": attribute, "presence": presence, "relation": relation, "side": side, "direction": direction,
    "reflectance": reflectance,
}
HELD_OUT: dict[str, Family] = {"count": count, "two_hop": two_hop, "extreme": extreme, "compare": compare}
ALL: dict[str, Family] = {**CORE, **HELD_OUT}


def ask(rng: np.random.Generator, scene: Scene, family: Family, attempts: int = 40) -> Question | None:
    """Try a family on a scene a number of times; None if the scene admits no such question."""
    for _ in range(attempts):
        question = family(rng, scene)
        if question is not None:
            return question
    return None
