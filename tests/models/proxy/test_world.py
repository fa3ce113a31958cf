"""Scenes, questions, pairs and puzzles: exact boxes, right answers, disjoint splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.proxy import benchmarks, pairs, puzzles, questions, splits
from models.proxy.glyphs import FILLS, SHAPES, SIZES_PX, object_alpha
from models.proxy.scenes import DENSE, USUAL, render, sample_scene

FAMILIES = {**questions.CORE, **questions.HELD_OUT}


def scenes(count: int, style=USUAL, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, style) for _ in range(count)]


def test_every_drawn_pixel_of_an_object_lies_inside_its_exact_box():
    for scene in scenes(8) + scenes(4, DENSE):
        whole = render(scene).astype(int)
        for item in scene.items:
            without = render(replace(scene, items=tuple(i for i in scene.items if i != item))).astype(int)
            ys, xs = np.nonzero((whole != without).any(-1))
            x0, y0, x1, y1 = item.pixels
            assert len(xs) > 5
            assert x0 <= xs.min() and xs.max() < x1 and y0 <= ys.min() and ys.max() < y1
            box = np.array(scene.box(item)) * scene.side_px
            assert box[0] <= x0 and box[1] <= y0 and box[2] >= x1 and box[3] >= y1


def test_shapes_and_fills_all_look_different():
    masks = [object_alpha(s, f, SIZES_PX[1]) for s in SHAPES for f in FILLS]
    apart = [np.abs(a - b).sum() for k, a in enumerate(masks) for b in masks[:k]]
    assert min(apart) > 3


def test_an_unknown_shape_names_the_known_ones():
    with pytest.raises(ValueError, match="circle, square"):
        object_alpha("blob", "solid", 12)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_asks_with_distinct_options_and_valid_evidence(name):
    rng = np.random.default_rng(1)
    found = 0
    for scene in scenes(30, benchmarks.MARKED, seed=2):
        q = questions.ask(rng, scene, FAMILIES[name])
        if q is None:
            continue
        found += 1
        assert len(set(q.options)) == len(q.options) >= 2
        assert 0 <= q.answer < len(q.options)
        x0, y0, x1, y1 = q.box
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert all(n in q.text for n in q.names)
    assert found > 15


@pytest.mark.parametrize("name", FAMILIES)
def test_the_right_letter_is_not_given_away_by_its_place(name):
    rng = np.random.default_rng(3)
    letters = [q.letter for s in scenes(300, benchmarks.MARKED, seed=4) if (q := questions.ask(rng, s, FAMILIES[name])) is not None]
    share = max(letters.count(letter) for letter in set(letters)) / len(letters)
    assert share < 0.65


def test_attribute_answers_agree_with_the_scene():
    rng = np.random.default_rng(5)
    for scene in scenes(60):
        q = questions.ask(rng, scene, questions.attribute)
        if q is not None:
            (item,) = q.things
            assert q.answer_text in (item.color, item.shape, item.fill)


@pytest.mark.parametrize("name", pairs.MAKERS)
def test_a_minimal_pair_has_one_content_two_answers_and_few_changed_pixels(name):
    rng = np.random.default_rng(6)
    made = [p for s in scenes(60, seed=7) if (p := pairs.MAKERS[name](rng, s)) is not None]
    assert made
    for pair in made:
        first, second = pair.questions
        assert first.text == second.text and first.options == second.options and first.answer != second.answer
        assert pair.scenes[0].content() == pair.scenes[1].content()
        changed = (render(pair.scenes[0]) != render(pair.scenes[1])).any(-1).sum()
        assert 0 < changed <= 4 * 13**2


def test_a_jigsaw_piece_fits_exactly_one_of_two_places():
    for seed in range(10):
        puzzle = puzzles.jigsaw(np.random.default_rng(seed))
        right = puzzle.pictures[1 + puzzle.question.answer]
        assert np.array_equal(right, render(puzzle.scenes[0])[64:, 64:])
        assert not puzzle.pictures[0][64:, 64:].any()


def test_roles_share_no_scene_and_no_stream():
    seen = {}
    for role in ("train", "dev", "test", "pretrain"):
        contents = set()
        for k in range(60):
            rng = splits.stream(role, 0, k)
            contents.add(splits.draw(role, lambda rng=rng: sample_scene(rng, USUAL), lambda s: [s.content()]).content())
        seen[role] = contents
    for held in ("dev", "test"):
        buckets = {splits.bucket(c) for c in seen[held]}
        for other in ("train", "pretrain", "test" if held == "dev" else "dev"):
            assert not buckets & splits.ROLE_BUCKETS[other]
            assert not seen[held] & seen[other]


def test_an_unknown_role_names_the_known_ones():
    with pytest.raises(ValueError, match="pretrain, train, dev, test"):
        splits.stream("validation", 0)


def test_items_depend_on_role_seed_and_index_alone():
    first, again = benchmarks.hrbench_item("dev", 0, 3), benchmarks.hrbench_item("dev", 0, 3)
    assert first[1].question == again[1].question
    assert np.array_equal(first[1].pictures[0], again[1].pictures[0])
    assert benchmarks.hrbench_item("dev", 1, 3)[1].question != first[1].question


def test_blink_keeps_the_originals_proportions():
    assert benchmarks.blink_counts(697) == benchmarks.BLINK_COUNTS
    counts = benchmarks.blink_counts(benchmarks.BLINK_TOTAL)
    assert sum(counts.values()) == benchmarks.BLINK_TOTAL
    assert abs(counts["Counting"] / 1046 - 120 / 697) < 0.001
