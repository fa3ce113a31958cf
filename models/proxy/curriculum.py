"""What the base reads in pretraining: text-only lookups, then rows of questions about pictures, easy first.

Puzzles and the families of HELD_OUT come in the last two phases only, and evidence never fills their slots. Letter prompts are those of the protocols; a share of answers is open
(no options), so that finding the answer and finding its letter are learned as two steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.proxy import prompts, puzzles, questions
from models.proxy.questions import Question
from models.proxy.rows import Row, Slots, Tokens, cells_of
from models.proxy.scenes import ATTRIBUTES, DENSE, EASY, USUAL, Scene, SceneStyle, sample_scene
from models.proxy.splits import draw

FAMILY_SHARES = (("attribute", 0.40), ("presence", 0.14), ("relation", 0.14), ("side", 0.08), ("direction", 0.09), ("reflectance", 0.15))
"""Shares of the families; reflectance only where a scene has marked points."""
PLACES_SHARES = (("attribute", 0.22), ("presence", 0.08), ("relation", 0.26), ("side", 0.12), ("direction", 0.20), ("reflectance", 0.12))
"""The same once objects are found and named: where two of them lie to each other needs most examples."""
SLOTS_SHARES = (("attribute", 0.40), ("presence", 0.07), ("relation", 0.09), ("side", 0.05), ("direction", 0.09), ("reflectance", 0.07),
                ("count", 0.08), ("two_hop", 0.05), ("extreme", 0.04), ("compare", 0.06))
"""Latent segments: mostly what they are taught with, the rest so that it is not forgotten, and a few of HELD_OUT."""
KINDS_SHARES = (("attribute", 0.34), ("presence", 0.07), ("relation", 0.19), ("side", 0.05), ("direction", 0.09), ("reflectance", 0.07),
                ("count", 0.10), ("two_hop", 0.03), ("extreme", 0.03), ("compare", 0.03))
"""The same with more of what BLINK asks."""
_PROMPT_WEIGHTS = {"paper": 0.5, "mmvp": 0.14, "hrbench": 0.14, "blink": 0.14, "mme_realworld": 0.08}
_WORDS = [*(w for values in ATTRIBUTES.values() for w in values), "the first image", "the second image", "the third image"]


@dataclass(frozen=True)
class Stage:
    """The mixture at one moment of a phase."""

    easy: float
    """Share of scenes with few objects."""
    open_ended: float
    """Share of answers without options."""
    slots: float
    """Share of turns with latent slots between question and answer."""
    shares: tuple[tuple[str, float], ...] = FAMILY_SHARES
    """The families' shares."""
    blind: float = 0.0
    """Share of rows that show another scene's picture and hold the evidence in slots."""
    written: float = 0.0
    """Share of an attribute question's segments that the model is taught to write. Above zero, segments are also opened."""
    fixed_order: float = 0.0
    """Share of the relations that are asked as BLINK asks them: yes always before no."""
    turns: int = 6
    """Questions per picture."""


def letter_prompt(rng: np.random.Generator, question: Question) -> str:
    """The question under a protocol drawn at random."""
    names = list(_PROMPT_WEIGHTS)
    return prompts.LETTER_PROMPTS[names[int(rng.choice(len(names), p=list(_PROMPT_WEIGHTS.values())))]](question)


def scene_for(rng: np.random.Generator, style: SceneStyle) -> Scene:
    """A scene of the pretraining share."""
    return draw("pretrain", lambda: sample_scene(rng, style), lambda s: [s.content()])


def style_for(rng: np.random.Generator, stage: Stage, dense: bool) -> SceneStyle:
    """The style of the next scene; `dense` asks for a 192-px picture with half the benchmark's objects."""
    if dense:
        return SceneStyle(side_px=192, items=(8, 20), colors=DENSE.colors, shapes=DENSE.shapes, fills=DENSE.fills, marker_probability=0.2)
    return EASY if rng.random() < stage.easy else USUAL


def evidence(rng: np.random.Generator, scene: Scene, question: Question) -> tuple[int, ...]:
    """Merged tokens under the question's box in raster order, repeated or thinned to 1 to 16 slots."""
    cells = cells_of(question.box, scene.side_px // 16)
    count = int(rng.integers(1, 17))
    return tuple(cells[k * len(cells) // count] for k in range(count))


def _slots(rng: np.random.Generator, scene: Scene, question: Question, stage: Stage) -> Slots:
    """Filler, the evidence's tokens, or, rarely, tokens from anywhere: slots must be worth reading but not trusted blindly."""
    if stage.written and question.family == "attribute" and rng.random() < stage.written:
        tokens = evidence(rng, scene, question)
        return Slots(len(tokens), tokens, opened=True, written=True)
    kind = rng.random()
    if kind < 0.35:
        return Slots(int(rng.integers(1, 17)))
    side = scene.side_px // 16
    tokens = cells_of(question.box, side) if kind < 0.85 else list(rng.integers(side**2, size=int(rng.integers(1, 17))))
    if len(tokens) > 16:
        tokens = sorted(int(t) for t in rng.choice(tokens, 16, replace=False))
    return Slots(len(tokens), tuple(int(t) for t in tokens))


def picture_row(tokens: Tokens, rng: np.random.Generator, scene: Scene, stage: Stage) -> Row:
    """A row of questions about one scene."""
    if rng.random() < stage.blind:
        return blind_row(tokens, rng, scene, stage)
    row = Row(tokens, cells=(scene.side_px // 16,))
    names, shares = zip(*(f for f in stage.shares if f[0] != "reflectance" or scene.markers), strict=True)
    weights = np.array(shares)
    for _ in range(stage.turns):
        question = questions.ask(rng, scene, questions.ALL[names[int(rng.choice(len(names), p=weights / weights.sum()))]])
        if question is None:
            continue
        if question.family == "relation" and rng.random() < stage.fixed_order:
            question = questions.in_fixed_order(question)
        # Reading slots is never taught on the families of HELD_OUT: that it carries over to them is what is measured.
        slots = _slots(rng, scene, question, stage) if rng.random() < stage.slots and question.family in questions.CORE else None
        if rng.random() < stage.open_ended:
            row.turn(question, prompts.open_ended(question), question.answer_text, slots)
        else:
            row.turn(question, letter_prompt(rng, question), question.letter, slots)
    if not row.turns:  # a scene that admits no question still trains nothing wrong: ask what always works
        question = Question("lookup", "Which option is it?", ("red",), 0, (0, 0, 1, 1))
        row.turn(question, prompts.paper(question), question.letter)
    return row


def blind_row(tokens: Tokens, rng: np.random.Generator, scene: Scene, stage: Stage) -> Row:
    """Attribute questions about a scene that is not shown: only the slots hold what is asked for."""
    row = Row(tokens, cells=(scene.side_px // 16,), blind=True)
    while not row.turns:
        for _ in range(stage.turns):
            question = questions.ask(rng, scene, questions.attribute)
            if question is not None:
                held = evidence(rng, scene, question)
                row.turn(question, letter_prompt(rng, question), question.letter, Slots(len(held), held))
    return row


def puzzle_row(tokens: Tokens, rng: np.random.Generator, name: str) -> tuple[Row, tuple[np.ndarray, ...]]:
    """A puzzle's row and its pictures."""
    puzzle = draw("pretrain", lambda: puzzles.PUZZLES[name](rng), lambda p: [s.content() for s in p.scenes])
    row = Row(tokens, cells=tuple(picture.shape[0] // 16 for picture in puzzle.pictures))
    question = puzzle.question
    turn = row.turn(replace(question, things=()), letter_prompt(rng, question), question.letter)
    if name == "jigsaw":  # look at the missing corner's two edges, then fetch the piece that fits
        turn.looks.append((turn.answer_at, 3 * row.cells[0] + 6, 6 * row.cells[0] + 3))
        pictured = [k - len(row.prefix) for k, token in enumerate(row.prefix) if token == tokens.image]
        piece = row.cells[0] ** 2 + question.answer * row.cells[1] ** 2
        turn.hops.append((turn.answer_at, pictured[piece + 2], pictured[piece + 2 * row.cells[1]]))
    return row, puzzle.pictures


def text_row(tokens: Tokens, rng: np.random.Generator, hard: bool = True) -> Row:
    """A lookup without a picture: a plain one, or statements about objects and a question on one of them."""
    row = Row(tokens)
    if rng.random() < 0.4 or not hard:
        count = int(rng.integers(2, 5))
        words = [_WORDS[k] for k in rng.choice(len(_WORDS), count, replace=False)]
        answer = int(rng.integers(count))
        question = Question("lookup", f"Which option says {words[answer]}?", tuple(words), answer, (0, 0, 1, 1))
        row.turn(question, letter_prompt(rng, question), question.letter)
        return row
    while True:
        scene = sample_scene(rng, EASY)
        question = questions.ask(rng, scene, questions.attribute)
        if question is not None:
            break
    asked = next(a for a, pattern in questions.ASK.items() if question.text.startswith(pattern.split("{")[0].rstrip()))
    target = question.things[0]
    told = [target, *(i for i in scene.items if i is not target)][: int(rng.integers(1, 4))]
    statements = []
    for k in rng.permutation(len(told)):
        item = told[k]
        subject = questions.phrase({a: item.get(a) for a in ATTRIBUTES if a != asked})
        statements.append(f"The {subject} is {item.get(asked)}.")
    text = " ".join([*statements, question.text])
    question = Question("statement", text, question.options, question.answer, question.box)
    if rng.random() < 0.3:
        row.turn(question, prompts.open_ended(question), question.answer_text)
    else:
        row.turn(question, letter_prompt(rng, question), question.letter)
    return row
