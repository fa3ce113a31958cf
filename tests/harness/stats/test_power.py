from __future__ import annotations

import numpy as np
import pytest

from harness.stats import compare, questions_or_seeds
from harness.stats.intervals import Variance
from tests.harness.stats.simulate import study


def test_the_stated_number_of_questions_finds_the_difference_four_times_in_five():
    random = np.random.default_rng(1)
    per_question = 0.24 * 2  # two independent rows at .6, no shared difficulty
    stated = questions_or_seeds(0.06, Variance(per_question / 300, None, 0.0, 300, 1), 300).questions
    found = 0
    for _ in range(150):
        rows = study(random, means=(0.63, 0.57), clusters=stated, per_cluster=1, image_sd=0.0)
        found += compare(rows[0], rows[1]).separates
    assert 0.68 <= found / 150 <= 0.92


def test_where_seeds_are_the_noise_more_questions_do_not_help_but_more_seeds_do():
    variance = Variance(item=1e-5, seed=4e-4, residual=1e-5, clusters=1000, seeds=3)
    decision = questions_or_seeds(0.03, variance, 1000)
    assert decision.questions is None and decision.seeds and decision.seeds > 3
    assert "seeds" in str(decision)


def test_one_seed_says_that_its_seed_noise_is_unknown():
    decision = questions_or_seeds(0.02, Variance(4e-4, None, 0.0, 300, 1), 300)
    assert decision.seeds is None and decision.questions > 300
    assert "seed noise unknown" in str(decision)


def test_a_reported_value_with_wide_noise_cannot_be_decided_by_asking_more_ourselves():
    decision = questions_or_seeds(0.01, Variance(1e-5, None, 0.0, 1000, 1), 1000, fixed=0.25 / 300)
    assert decision.questions is None and "already too wide" in str(decision)


def test_a_small_difference_asks_for_the_number_that_shows_equivalence():
    decision = questions_or_seeds(0.002, Variance(4e-4, None, 0.0, 500, 1), 500, margin=0.02)
    assert decision.target == "consistent" and decision.questions == pytest.approx(500 * 4e-4 * (2.802 / 0.018) ** 2, rel=0.01)
