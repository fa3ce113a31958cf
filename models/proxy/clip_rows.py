"""Questions about clips as token rows, for the phase that teaches the base to read clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.proxy import clips, prompts
from models.proxy.architecture import TEMPORAL
from models.proxy.clips import SECONDS, STYLE, Asked, Clip, Event
from models.proxy.curriculum import Stage, letter_prompt
from models.proxy.rows import Row, Slots, Tokens
from models.proxy.splits import Role, draw

SHARES = {"glimpse": 0.20, "order": 0.20, "sequence": 0.08, "after": 0.12, "turns": 0.16, "moves": 0.16, "count": 0.08}
HELD_BY_SLOTS = ("glimpse", "turns", "after")
"""Families whose evidence may stand in latent slots: it is one object's tokens."""


def draw_asked(role: Role, rng: np.random.Generator, family: str, style=STYLE, seconds: int = SECONDS) -> Asked:
    """A question about a fresh clip of the role."""
    return draw(role, lambda: clips.ask(rng, family, style, seconds), lambda asked: [asked.clip.content()])


def frames_of(clip: Clip) -> np.ndarray:
    """Every frame, uint8 [frames, side, side, 3]."""
    return np.stack([clip.draw(k) for k in range(clip.frames)])


def steps_of(event: Event) -> range:
    """Pairs of frames in which the event is going on from first to last."""
    return range(-(-event.start // TEMPORAL), event.end // TEMPORAL)


def _token(clip: Clip, step: int, event: Event) -> int:
    """The merged token of an event's object in a pair of frames."""
    cells, item = clip.scene.side_px // 16, event.at(step * TEMPORAL) or event.item
    return (step * cells + item.row) * cells + item.col


def _pointed(asked: Asked) -> tuple[Asked, tuple[tuple[int, int], ...]]:
    """The question with its things as they are when they are asked about, and of each the tokens to look at: the middle of its
    event, or where a moving thing sets out and where it comes to."""
    clip, things, seen = asked.clip, [], []
    for thing in asked.question.things:
        event = next(e for e in clip.events if e.item is thing)
        steps = steps_of(event)
        middle = steps[len(steps) // 2]
        first, last = (0, clip.frames // TEMPORAL - 1) if event.kind == "moves" else (middle, middle)
        things.append(event.at(last * TEMPORAL) or event.item)
        seen.append((_token(clip, first, event), _token(clip, last, event)))
    return replace(asked, question=replace(asked.question, things=tuple(things))), tuple(seen)


def _slots(rng: np.random.Generator, asked: Asked, stage: Stage) -> Slots:
    """As of pictures (`curriculum._slots`); the evidence is the object's tokens while its event goes on."""
    event = next(e for e in asked.clip.events if e.item is asked.question.things[-1])
    evidence = [_token(asked.clip, step, event) for step in steps_of(event)]
    count = int(rng.integers(1, 17))
    if asked.question.family == "glimpse" and rng.random() < stage.written:
        tokens = tuple(evidence[k * len(evidence) // count] for k in range(count))
        return Slots(count, tokens, opened=True, written=True)
    kind = rng.random()
    if kind < 0.35:
        return Slots(count)
    if kind < 0.85:
        return Slots(len(evidence), tuple(evidence))
    cells = asked.clip.scene.side_px // 16
    return Slots(count, tuple(int(t) for t in rng.integers(cells**2 * asked.clip.frames // TEMPORAL, size=count)))


def clip_row(tokens: Tokens, rng: np.random.Generator, asked: Asked, stage: Stage) -> Row:
    """A row of questions about one clip: the one that it was made for, then others."""
    clip = asked.clip
    row = Row(tokens, cells=(clip.scene.side_px // 16,), steps=clip.frames // TEMPORAL)
    for number in range(stage.turns):
        one = clips.ask_again(rng, clip) if number else asked
        if one is None:
            continue
        slots = _slots(rng, one, stage) if one.question.family in HELD_BY_SLOTS and rng.random() < stage.slots else None
        one, seen = _pointed(one)
        question = one.question
        if rng.random() < stage.open_ended:
            row.turn(question, prompts.open_ended(question), question.answer_text, slots, seen)
        else:
            row.turn(question, letter_prompt(rng, question), question.letter, slots, seen)
    return row
