"""Clips of the proxy world: exact spans, right answers, nothing given away."""

from __future__ import annotations

import numpy as np
import pytest

from models.proxy import clips
from models.proxy.clips import FAMILIES, FPS, LIGHT_STEP, SHIFTED, STYLE, ask
from tests.models.proxy.test_leaks import ALLOWED, by_classifier


def asked(family: str, count: int, style=STYLE, seconds: int = 8) -> list[clips.Asked]:
    rng = np.random.default_rng(len(family))
    return [ask(rng, family, style, seconds) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_asked_about_happens_within_its_spans_and_nowhere_else(family):
    for one in asked(family, 20):
        about = [e for e in one.clip.events if e.item in one.question.things]
        assert len(about) == len(one.spans)
        for event, (low, high) in zip(about, one.spans, strict=True):
            assert 0 < low < high <= one.clip.seconds
            usual = event.at(0)
            changed = {frame for frame in range(one.clip.frames) if event.at(frame) != usual}
            assert changed and min(changed) >= low * FPS
            if event.kind == "moves":  # the first cell is left after a second; at the end it stays where it has come to
                assert event.at(round(high * FPS)) == event.at(one.clip.frames - 1) != usual
            else:
                assert changed == set(range(round(low * FPS), round(high * FPS)))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_objects_are_never_in_one_cell_of_a_frame(family):
    for one in asked(family, 20):
        for frame in range(one.clip.frames):
            cells = [(item.row, item.col) for item in one.clip.items(frame)]
            assert len(set(cells)) == len(cells)


@pytest.mark.parametrize("family", FAMILIES)
def test_options_differ_and_one_of_them_is_right(family):
    for one in asked(family, 40):
        question = one.question
        assert len(set(question.options)) == len(question.options) == (2 if family == "order" else 4)
        assert 0 <= question.answer < len(question.options)


def test_a_glimpsed_object_is_named_by_words_that_fit_no_other_of_the_clip():
    for one in asked("glimpse", 60):
        (item,) = one.question.things
        named = one.question.text.removesuffix("?").removesuffix(" have").split(" the ")[1].split()
        fitting = [i for i in one.clip.all_items if all(w in (i.color, i.shape, i.fill, "object") for w in named)]
        assert fitting == [item]


def test_things_change_when_an_event_begins_or_ends_and_the_light_all_the_time():
    one = asked("turns", 1, SHIFTED)[0]
    frames = [one.clip.draw(k).astype(int) for k in range(one.clip.frames)]
    for before, after, k in zip(frames, frames[1:], range(1, len(frames)), strict=False):
        redder = (before[..., 0] != after[..., 0]).any() or (before[..., 2] != after[..., 2]).any()
        assert redder == any(k in (e.start, e.end) for e in one.clip.events)
        assert np.median(after[..., 1] - before[..., 1]) == LIGHT_STEP


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_alone_do_not_tell_the_letter(family):
    found = asked(family, 3000)
    spans = [(one.spans[0][0], one.spans[-1][1], max(s[1] for s in one.spans), float(len(one.spans))) for one in found]
    assert by_classifier(np.array(spans), np.array([one.question.letter for one in found])) <= ALLOWED
