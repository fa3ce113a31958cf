"""Clips: scenes in which objects come and go, change colour or move for a while, with the exact span of what is asked about.

A clip is a scene whose objects are always there, and events, each of one object in a span of frames. Events begin and
end at whole half-seconds. Knows nothing of files or prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Literal

import numpy as np

from models.proxy.benchmarks import SHIFT
from models.proxy.questions import ASK, Question, name_of, phrase, pick, shuffled
from models.proxy.scenes import ATTRIBUTES, COLORS, Item, Scene, SceneStyle, place, render, sample_scene

FPS = 2
"""Frames a second of every clip."""
TICK = FPS // 2
"""Frames of the half-second in whole numbers of which events begin and end."""
SECONDS = 8
"""Length of the clips that the base reads, and of those of fine-tuning and evaluation."""
STYLE = SceneStyle(side_px=64, items=(3, 5), colors=(4, 6), shapes=(3, 5), fills=(2, 4))
SHIFTED = replace(STYLE, **SHIFT)
"""The clips of fine-tuning and evaluation: paler and noisier than those the base has read, as the pictures are."""
LIGHT_FIRST, LIGHT_STEP = -28.0, 3.0
"""Green of the background in the first frame, and how much more of it each later one has: time is visible, as the background's
gradient makes place visible."""
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "to the left": (0, -1), "to the right": (0, 1)}
ALWAYS = (0.0, 0.0, 1.0, 1.0)

Span = tuple[float, float]
"""Begin and end in seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """What one object does in the frames `start` to `end` (exclusive).

    shows: it is there only then. turns: it has another colour then. moves: it goes one cell a second, and stays where it
    comes to.
    """

    kind: Literal["shows", "turns", "moves"]
    item: Item
    start: int
    end: int
    color: str = ""
    step: tuple[int, int] = (0, 0)
    """Rows and columns a second."""

    def at(self, frame: int) -> Item | None:
        """The object in a frame; None where it is not there."""
        if self.kind == "shows":
            return self.item if self.start <= frame < self.end else None
        if self.kind == "turns":
            return replace(self.item, color=self.color) if self.start <= frame < self.end else self.item
        seconds = (min(max(frame, self.start), self.end) - self.start) // FPS
        return replace(self.item, row=self.item.row + seconds * self.step[0], col=self.item.col + seconds * self.step[1])

    @property
    def span(self) -> Span:
        return self.start / FPS, self.end / FPS


@dataclass(frozen=True)
class Clip:
    """A clip before it is drawn. scene: what is always there. seconds: its length."""

    scene: Scene
    events: tuple[Event, ...]
    seconds: int

    @property
    def frames(self) -> int:
        return self.seconds * FPS

    def items(self, frame: int) -> tuple[Item, ...]:
        """The objects of a frame."""
        return (*self.scene.items, *(item for event in self.events if (item := event.at(frame)) is not None))

    @property
    def all_items(self) -> tuple[Item, ...]:
        """Every object that is ever there, as it is without its event."""
        return (*self.scene.items, *(event.item for event in self.events))

    def draw(self, frame: int) -> np.ndarray:
        """The picture of a frame, uint8 [side, side, 3]. The noise is the same in all."""
        red, _, blue = self.scene.tint
        return render(replace(self.scene, items=self.items(frame), tint=(red, LIGHT_FIRST + frame * LIGHT_STEP, blue)))

    def content(self) -> bytes:
        """What makes this clip this clip, for the split into roles."""
        return replace(self.scene, items=self.all_items).content()


@dataclass(frozen=True)
class Asked:
    """A question about a clip, and the spans that prove it."""

    clip: Clip
    question: Question
    spans: tuple[Span, ...]


def _span(rng: np.random.Generator, frames: int, ticks: tuple[int, int]) -> tuple[int, int]:
    """Begin and end of an event of so many half-seconds, not in the first one or beyond the last."""
    length = int(rng.integers(ticks[0], ticks[1] + 1)) * TICK
    start = TICK * int(rng.integers(1, (frames - length) // TICK + 1))
    return start, start + length


def _sequence(rng: np.random.Generator, frames: int, count: int) -> list[tuple[int, int]]:
    """Spans of `count` events, each beginning after the one before has ended, in order."""
    ticks = frames // TICK - 1
    least = 3
    free = ticks - count * (least + 1)
    cuts = sorted(int(v) for v in rng.integers(0, max(free, 0) + 1, count))
    spans = []
    for k, cut in enumerate(cuts):
        start = 1 + cut + k * (least + 1)
        spans.append((start * TICK, (start + least) * TICK))
    return spans


def _free(rng: np.random.Generator, items: list[Item], side: int) -> tuple[int, int] | None:
    taken = {(i.row, i.col) for i in items}
    cells = [(r, c) for r in range(side) for c in range(side) if (r, c) not in taken]
    return cells[int(rng.integers(len(cells)))] if cells else None


def _new(rng: np.random.Generator, scene: Scene, items: list[Item]) -> Item | None:
    """Another object in a free cell, of values that the scene has where it can."""
    cell = _free(rng, items, scene.side_px // 16)
    if cell is None:
        return None
    words = [str(pick(rng, sorted({i.get(a) for i in scene.items}) if rng.random() < 0.7 else list(v))) for a, v in ATTRIBUTES.items()]
    return place(rng, *words, *cell)


def _shown(rng: np.random.Generator, scene: Scene, spans: list[tuple[int, int]], others: list[Item]) -> list[Event] | None:
    """An event for each span, of a new object each."""
    events: list[Event] = []
    for start, end in spans:
        item = _new(rng, scene, [*scene.items, *others, *(e.item for e in events)])
        if item is None:
            return None
        events.append(Event("shows", item, start, end))
    return events


def _named(rng: np.random.Generator, clip: Clip, item: Item, without: str | None = None) -> str | None:
    """A phrase that means this object alone among all that are ever there, in any colour of the others."""
    turned = tuple(replace(e.item, color=e.color) for e in clip.events if e.kind == "turns" and e.item is not item)
    words = name_of(rng, replace(clip.scene, items=(*clip.all_items, *turned)), item, without)
    return phrase(words) if words else None


def _options(rng: np.random.Generator, clip: Clip, attribute: str, right: str, first: tuple[str, ...] = ()) -> tuple[tuple[str, ...], int]:
    """Four values of an attribute: `first`, then those seen in the clip, so that none can be ruled out as absent."""
    seen = sorted({i.get(attribute) for i in clip.all_items} - {right, *first})
    unseen = [w for w in ATTRIBUTES[attribute] if w != right and w not in seen and w not in first]
    wrong = [*first, *map(str, rng.permutation(seen)), *map(str, rng.permutation(unseen))][:3]
    return shuffled(rng, right, wrong)


def _asked(
    clip: Clip, family: str, text: str, options: tuple[tuple[str, ...], int], events: Sequence[Event],
    named: Mapping[str, Event] | None = None,
) -> Asked:
    """named: names in the text and what does the thing named, in the order of the text; its things are then those."""
    things = tuple(e.item for e in (named.values() if named else events))
    question = Question(family, text, *options, ALWAYS, things, names=tuple(named or ()))
    return Asked(clip, question, tuple(e.span for e in events))


# --- questions about a clip that is there ---------------------------------------------------------------------------


def ask_glimpse(rng: np.random.Generator, clip: Clip, event: Event) -> Asked | None:
    """'What color is the striped circle?' of an object that is there for a moment."""
    asked = str(pick(rng, list(ATTRIBUTES)))
    name = _named(rng, clip, event.item, asked)
    if name is None:
        return None
    options = _options(rng, clip, asked, event.item.get(asked))
    return _asked(clip, "glimpse", ASK[asked].format("the " + name), options, [event], {name: event})


def ask_order(rng: np.random.Generator, clip: Clip, events: Sequence[Event]) -> Asked | None:
    """'Which appears first, the red circle or the blue square?' of two events, the earlier one first."""
    names = [_named(rng, clip, e.item) for e in events]
    if names[0] is None or names[1] is None:
        return None
    told = list(zip(names, events, strict=True))
    options = shuffled(rng, f"the {names[0]}", [f"the {names[1]}"])
    if rng.random() < 0.5:
        told.reverse()
    text = f"Which appears first, the {told[0][0]} or the {told[1][0]}?"
    return _asked(clip, "order", text, options, events, dict(told))


def ask_sequence(rng: np.random.Generator, clip: Clip, events: Sequence[Event]) -> Asked | None:
    """'In which order do these objects appear?', three of them, four orders to choose from."""
    names = [name for e in events if (name := _named(rng, clip, e.item)) is not None]
    if len(names) < 3:
        return None
    right, *others = (", ".join(one) for one in permutations(names))
    wrong = [others[k] for k in rng.choice(len(others), 3, replace=False)]
    return _asked(clip, "sequence", "In which order do these objects appear?", shuffled(rng, right, wrong), events)


def ask_after(rng: np.random.Generator, clip: Clip, anchor: Event, event: Event) -> Asked | None:
    """'What color is the object that appears after the red circle?'; its span is the evidence."""
    asked, name = str(pick(rng, list(ATTRIBUTES))), _named(rng, clip, anchor.item)
    if name is None:
        return None
    options = _options(rng, clip, asked, event.item.get(asked))
    return _asked(clip, "after", ASK[asked].format(f"the object that appears after the {name}"), options, [event])


def ask_turns(rng: np.random.Generator, clip: Clip, event: Event) -> Asked | None:
    """'What color does the striped circle turn?'; its first colour is an option."""
    name = _named(rng, clip, event.item, "color")
    if name is None:
        return None
    options = _options(rng, clip, "color", event.color, first=(event.item.color,))
    return _asked(clip, "turns", f"What color does the {name} turn?", options, [event], {name: event})


def ask_moves(rng: np.random.Generator, clip: Clip, event: Event) -> Asked | None:
    """'In which direction does the red circle move?'."""
    name = _named(rng, clip, event.item)
    if name is None:
        return None
    word = next(word for word, step in DIRECTIONS.items() if step == event.step)
    options = shuffled(rng, word, [w for w in DIRECTIONS if w != word])
    return _asked(clip, "moves", f"In which direction does the {name} move?", options, [event], {name: event})


def ask_count(rng: np.random.Generator, clip: Clip, events: Sequence[Event]) -> Asked:
    """'How many objects appear during the video?', one to four."""
    options = shuffled(rng, str(len(events)), [str(n) for n in range(1, 5) if n != len(events)])
    return _asked(clip, "count", "How many objects appear during the video?", options, events)


# --- families: a fresh clip and a question about it -----------------------------------------------------------------


def glimpse(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """An object that is there for a moment only, like others at other moments."""
    spans = [_span(rng, seconds * FPS, (3, 8)) for _ in range(int(rng.integers(1, 4)))]
    events = _shown(rng, scene, spans, [])
    return events and ask_glimpse(rng, Clip(scene, tuple(events), seconds), events[0])


def order(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """Two objects that come one after the other."""
    events = _shown(rng, scene, _sequence(rng, seconds * FPS, 2), [])
    return events and ask_order(rng, Clip(scene, tuple(events), seconds), events)


def sequence(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """Three objects that come one after another."""
    events = _shown(rng, scene, _sequence(rng, seconds * FPS, 3), [])
    return events and ask_sequence(rng, Clip(scene, tuple(events), seconds), events)


def after(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """Two or three objects that come one after another; the next one after one of them is asked about."""
    events = _shown(rng, scene, _sequence(rng, seconds * FPS, int(rng.integers(2, 4))), [])
    if events is None:
        return None
    at = int(rng.integers(len(events) - 1))
    return ask_after(rng, Clip(scene, tuple(events), seconds), events[at], events[at + 1])


def turns(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """One to three objects that have another colour for a while."""
    chosen = [scene.items[k] for k in rng.choice(len(scene.items), min(len(scene.items), int(rng.integers(1, 4))), replace=False)]
    events = []
    for item in chosen:
        color = str(pick(rng, [c for c in COLORS if c != item.color]))
        events.append(Event("turns", item, *_span(rng, seconds * FPS, (4, 8)), color=color))
    clip = Clip(replace(scene, items=tuple(i for i in scene.items if i not in chosen)), tuple(events), seconds)
    return ask_turns(rng, clip, events[0])


def moves(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """An object that moves by two or three cells."""
    item, side = scene.items[int(rng.integers(len(scene.items)))], scene.side_px // 16
    step, far = DIRECTIONS[str(pick(rng, list(DIRECTIONS)))], int(rng.integers(2, 4))
    path = [(item.row + k * step[0], item.col + k * step[1]) for k in range(1, far + 1)]
    others = [i for i in scene.items if i is not item]
    if any(not (0 <= r < side and 0 <= c < side) or any((i.row, i.col) == (r, c) for i in others) for r, c in path):
        return None
    start = TICK * int(rng.integers(1, (seconds - far) * FPS // TICK))  # the last cell is reached at the end, which must be seen
    event = Event("moves", item, start, start + far * FPS, step=step)
    return ask_moves(rng, Clip(replace(scene, items=tuple(others)), (event,), seconds), event)


def count(rng: np.random.Generator, scene: Scene, seconds: int) -> Asked | None:
    """One to four objects, each there for a moment."""
    events = _shown(rng, scene, [_span(rng, seconds * FPS, (3, 8)) for _ in range(int(rng.integers(1, 5)))], [])
    return events and ask_count(rng, Clip(scene, tuple(events), seconds), events)


Family = Callable[[np.random.Generator, Scene, int], Asked | None]
FAMILIES: dict[str, Family] = {
    "glimpse": glimpse, "order": order, "sequence": sequence, "after": after, "turns": turns, "moves": moves, "count": count,
}


def ask(rng: np.random.Generator, family: str, style: SceneStyle, seconds: int) -> Asked:
    """A question of a family about a fresh clip; tries scenes until one admits it."""
    while True:
        asked = FAMILIES[family](rng, sample_scene(rng, style), seconds)
        if asked is not None:
            return asked


def ask_again(rng: np.random.Generator, clip: Clip) -> Asked | None:
    """Another question about a clip; None where the one drawn cannot be asked."""
    events = sorted(clip.events, key=lambda e: e.start)
    event = events[int(rng.integers(len(events)))]
    if event.kind == "turns":
        return ask_turns(rng, clip, event)
    if event.kind == "moves":
        return ask_moves(rng, clip, event)
    in_turn = all(one.end < other.start for one, other in pairwise(events))
    kinds = ["glimpse", "glimpse", "count"]
    if in_turn and len(events) > 1:
        kinds = ["glimpse", "count", "order", "order", "after", "after"] + ["sequence", "sequence"] * (len(events) == 3)
    at = int(rng.integers(max(len(events) - 1, 1)))
    match pick(rng, kinds):
        case "glimpse":
            return ask_glimpse(rng, clip, event)
        case "order":
            return ask_order(rng, clip, [events[at], events[int(rng.integers(at + 1, len(events)))]])
        case "after":
            return ask_after(rng, clip, events[at], events[at + 1])
        case "sequence":
            return ask_sequence(rng, clip, events)
    return ask_count(rng, clip, events)
