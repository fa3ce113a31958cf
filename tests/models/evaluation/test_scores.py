"""Scores from rows, and that a disagreement with lmms-eval is an error."""

import pytest

from models.evaluation.rows import clusters
from models.evaluation.scores import Mismatch, compare, recompute


def row(task, correct, release=None, **groups):
    return {
        "task": task,
        "correct": correct,
        "correct_release": correct if release is None else release,
        "groups": groups,
    }


def test_pairs_categories_and_rotations_are_averaged_as_the_tasks_do():
    rows = [row("vr_mmvp", c, pair=str(k // 2)) for k, c in enumerate([True, True, True, False])]
    assert recompute(rows) == {"accuracy": 0.75, "accuracy_release": 0.75, "pair_accuracy": 0.5}
    rows = [row("vstar_bench", c, category="direct_attributes") for c in (True, False)]
    assert recompute(rows) == {"vstar_overall_acc": 50.0}
    rows = [row("stock_hrbench4k", c, category="single", cycle=k) for c, k in ((True, "0"), (True, "0"), (False, "1"))]
    assert recompute(rows) == {"average": 0.5, "single": 0.5}


def test_several_tasks_keep_their_own_scores_and_share_a_mean_by_questions():
    rows = [row("blink_counting", True), row("blink_jigsaw", False), row("blink_jigsaw", False)]
    assert recompute(rows) == {
        "blink_counting.blink_acc": 1.0,
        "blink_jigsaw.blink_acc": 0.0,
        "blink_acc": pytest.approx(1 / 3),
    }


def test_a_difference_names_the_metric_and_both_values():
    compare({"accuracy": 0.5}, {"accuracy": 0.5 + 1e-12})
    with pytest.raises(Mismatch, match="accuracy: 0.5 from the samples, 0.75 from lmms-eval"):
        compare({"accuracy": 0.5}, {"accuracy": 0.75})
    with pytest.raises(Mismatch, match="single: None from the samples"):
        compare({"accuracy": 0.5}, {"accuracy": 0.5, "single": 0.1})


def test_questions_that_share_a_picture_directly_or_through_others_are_one_cluster():
    found = clusters({0: ("x", "y"), 1: ("y",), 2: ("z",), 3: ("z", "x"), 4: ("w",), 5: ()})
    assert found[0] == found[1] == found[2] == found[3]
    assert len({found[0], found[4], found[5]}) == 3
