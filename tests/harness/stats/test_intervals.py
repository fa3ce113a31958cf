from __future__ import annotations

import numpy as np
import pytest

from harness.stats import Answers, UnmatchedIds, align, estimate, wilson
from tests.harness.stats.simulate import study


def answers(values, clusters=None):
    n = len(values)
    return Answers(tuple(range(n)), tuple(clusters or range(n)), np.asarray(values, float))


@pytest.mark.parametrize("k, n", [(0, 10), (3, 10), (10, 10), (213, 300), (1, 1)])
def test_wilson_is_statsmodels_wilson(k, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    low, high = proportion.proportion_confint(k, n, method="wilson")
    interval = wilson(k, n)
    assert interval.low == pytest.approx(max(low, 0), abs=1e-12)
    assert interval.high == pytest.approx(min(high, 1), abs=1e-12)


def test_one_run_of_separate_images_gets_wilsons_interval_up_to_the_t_quantile():
    run = answers([1] * 700 + [0] * 300)
    interval, plain = estimate(run).interval, wilson(700, 1000)
    assert interval.low == pytest.approx(plain.low, abs=2e-4)
    assert interval.high == pytest.approx(plain.high, abs=2e-4)


def test_questions_that_share_an_image_count_for_less():
    values = [1, 1, 1, 1] * 70 + [0, 0, 0, 0] * 30
    shared = estimate(answers(values, [i // 4 for i in range(400)]))
    apart = estimate(answers(values))
    assert shared.clusters == 100 and shared.n == 400
    assert shared.interval.half_width == pytest.approx(2 * apart.interval.half_width, rel=0.05)


def test_all_right_is_no_certainty():
    interval = estimate(answers([1] * 50)).interval
    assert interval.high == 1 and 0.88 < interval.low < 0.95


def test_seed_noise_is_kept_apart_and_widens_the_interval():
    steady = [answers([1] * 60 + [0] * 40) for _ in range(3)]
    shaky = [answers([1] * k + [0] * (100 - k)) for k in (50, 60, 70)]
    assert estimate(steady).seed_sd == 0
    assert estimate(shaky).seed_sd == pytest.approx(0.1)
    assert estimate(shaky).interval.half_width > 1.5 * estimate(steady).interval.half_width
    assert estimate(shaky[0]).seed_sd is None, "with one seed the seed noise is unknown, not zero"


def test_unmatched_questions_are_an_error_that_counts_them():
    with pytest.raises(UnmatchedIds, match="lacks 1 of the first run's 3 questions and has 1 others"):
        align([Answers((1, 2, 3), (1, 2, 3), np.ones(3)), Answers((1, 2, 4), (1, 2, 4), np.ones(3))])


def test_another_order_of_questions_is_put_right():
    first = Answers(("a", "b"), (0, 1), np.array([1.0, 0.0]))
    second = Answers(("b", "a"), (1, 0), np.array([0.0, 1.0]))
    assert align([first, second]).tolist() == [[1, 0], [1, 0]]


def test_a_question_answered_twice_is_refused():
    with pytest.raises(ValueError, match="'a' is answered twice"):
        Answers(("a", "a"), (0, 1), np.ones(2))


def coverage(repetitions: int, **world) -> float:
    random = np.random.default_rng(11)
    truth = world["means"][0]
    return np.mean([truth in estimate(study(random, **world)[0]).interval for _ in range(repetitions)])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    assert 0.90 <= coverage(300, means=(0.7,), clusters=80) <= 0.99
    assert 0.90 <= coverage(300, means=(0.7,), clusters=80, seeds=3, seed_sd=0.035) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        {"means": (0.7,), "clusters": 300, "per_cluster": 1},
        {"means": (0.7,), "clusters": 60, "per_cluster": 4},
        {"means": (0.5,), "clusters": 200, "per_cluster": 4, "image_sd": 0.35},
        {"means": (0.95,), "clusters": 300, "per_cluster": 1, "image_sd": 0.0},
        {"means": (0.7,), "clusters": 150, "seeds": 2, "seed_sd": 0.035},
        {"means": (0.7,), "clusters": 150, "seeds": 3, "seed_sd": 0.035},
        {"means": (0.7,), "clusters": 150, "seeds": 3, "seed_sd": 0.0},
        {"means": (0.7,), "clusters": 150, "seeds": 5, "seed_sd": 0.02},
    ],
    ids=str,
)
def test_the_interval_covers_the_truth_in_many_worlds(world):
    assert 0.93 <= coverage(4000, **world) <= 0.995
