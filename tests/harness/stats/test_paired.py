from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.stats import Answers, Family, UnmatchedIds, compare, contrast, estimate, holm, mcnemar_exact, sign_flip
from tests.harness.stats.simulate import study


def answers(values, clusters=None):
    n = len(values)
    return Answers(tuple(range(n)), tuple(clusters or range(n)), np.asarray(values, float))


@pytest.mark.parametrize("gained, lost", [(0, 0), (3, 0), (10, 4), (7, 7), (40, 80)])
def test_mcnemar_is_statsmodels_exact_mcnemar(gained, lost):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = tables.mcnemar([[50, gained], [lost, 50]], exact=True).pvalue
    assert mcnemar_exact(gained, lost) == pytest.approx(min(1, expected))


def test_holm_is_statsmodels_holm():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = [0.04, 0.001, 0.03, 0.5, 0.012]
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist())
    assert holm([]) == []


def test_sign_flips_of_separate_questions_are_mcnemars_test():
    assert sign_flip(np.array([1.0] * 9 + [-1.0] * 3)) == pytest.approx(mcnemar_exact(9, 3))
    assert sign_flip(np.array([1.0] * 60 + [-1.0] * 40)) == pytest.approx(mcnemar_exact(60, 40))
    assert sign_flip(np.array([1.0] * 900 + [-1.0] * 800)) == pytest.approx(mcnemar_exact(900, 800))


def test_whole_numbers_and_enumeration_agree():
    totals = np.array([3.0, -1, 2, 1, 1, -2, 1, 3, -1, 2, 1])
    assert sign_flip(totals) == pytest.approx(sign_flip(totals * 0.3))


def test_the_random_flips_are_the_same_every_time():
    totals = np.random.default_rng(0).normal(0.1, 1, 50)
    assert sign_flip(totals) == sign_flip(totals)


def test_a_gain_within_one_image_is_one_event_not_many():
    first, second = [1] * 12 + [0] * 88, [0] * 100
    apart = compare(answers(first), answers(second))
    together = compare(answers(first, [0] * 12 + list(range(1, 89))), answers(second, [0] * 12 + list(range(1, 89))))
    assert apart.p < 0.001 and together.p == 1.0
    assert apart.p_mcnemar == together.p_mcnemar, "McNemar ignores images, which is why it is not the test used"


def test_equal_rows_differ_by_nothing_and_the_interval_is_not_a_point():
    run = answers([1, 0] * 50)
    same = compare(run, run)
    assert same.difference == 0 and same.p == 1 and not same.separates
    assert same.interval.low < 0 < same.interval.high


def test_different_questions_cannot_be_compared():
    with pytest.raises(UnmatchedIds):
        compare(answers([1, 0, 1]), answers([1, 0]))


def test_three_seeds_judge_the_recipe_and_one_seed_the_checkpoint():
    random = np.random.default_rng(3)
    rows = study(random, means=(0.7, 0.6), seeds=3, clusters=300, image_sd=0.1, seed_sd=0.05)
    one = compare(rows[0][0], rows[1][0])
    three = compare(rows[0], rows[1])
    assert one.test == "sign flip by cluster" and three.test == "t over seeds and clusters"
    assert three.p_mcnemar is None and three.seeds == 3


def test_rows_of_different_numbers_of_seeds_are_refused():
    rows = study(np.random.default_rng(5), means=(0.7, 0.5), seeds=3, clusters=200)
    with pytest.raises(ValueError, match="rows of 3 and 1 seeds"):
        compare(rows[0], rows[1][:1])


def test_a_contrast_of_two_rows_is_their_comparison_and_a_trend_finds_a_trend():
    rows = study(np.random.default_rng(5), means=(0.5, 0.6, 0.7), seeds=3, clusters=300, image_sd=0.1)
    assert contrast([(1, rows[0]), (-1, rows[1])]) == compare(rows[0], rows[1])
    rising = contrast([(-1, rows[0]), (0, rows[1]), (1, rows[2])])
    bent = contrast([(-0.5, rows[0]), (1, rows[1]), (-0.5, rows[2])])
    assert rising.p < 0.02 < bent.p and rising.difference == pytest.approx(0.2, abs=0.05)


def test_a_tests_p_can_be_corrected_in_anothers_place():
    family = Family({"a": 0.01, "b": 0.03, "c": 0.5})
    assert family.adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.5})
    assert family.with_p("b", 0.001) == pytest.approx(0.003) and family.with_p("b", 0.4) == pytest.approx(0.8)


def rejections(repetitions: int, **world) -> float:
    random = np.random.default_rng(7)
    out = []
    for _ in range(repetitions):
        rows = study(random, **world)
        out.append(compare(rows[0], rows[1]).p <= 0.05)
    return np.mean(out)


def test_equal_rows_are_told_apart_about_one_time_in_twenty():
    assert rejections(250, means=(0.6, 0.6), clusters=80) <= 0.09
    assert rejections(250, means=(0.6, 0.6), clusters=80, seeds=3, seed_sd=0.05) <= 0.09


def test_a_real_difference_is_found():
    assert rejections(100, means=(0.7, 0.55), clusters=120) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        {"clusters": 300, "per_cluster": 1},
        {"clusters": 60, "per_cluster": 4, "image_sd": 0.35},
        {"clusters": 150, "seeds": 2, "seed_sd": 0.05},
        {"clusters": 150, "seeds": 3, "seed_sd": 0.05},
        {"clusters": 150, "seeds": 3, "seed_sd": 0.0},
        {"clusters": 150, "seeds": 5, "seed_sd": 0.02},
    ],
    ids=str,
)
def test_false_positives_stay_at_their_rate(world):
    assert rejections(3000, means=(0.6, 0.6), **world) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("seeds, seed_sd", [(1, 0.0), (3, 0.0), (3, 0.035), (5, 0.035)])
def test_the_interval_of_a_difference_covers_it(seeds, seed_sd):
    random = np.random.default_rng(13)
    inside = []
    for _ in range(3000):
        rows = study(random, means=(0.65, 0.6), clusters=120, seeds=seeds, seed_sd=seed_sd, image_sd=0.25)
        inside.append(0.05 in compare(rows[0], rows[1]).interval)
    assert 0.93 <= np.mean(inside) <= 0.998


@pytest.mark.slow
def test_a_family_of_true_null_hypotheses_is_rejected_together_one_time_in_twenty():
    random = np.random.default_rng(17)
    wrong = 0
    for _ in range(1500):
        rows = study(random, means=(0.6,) * 4, clusters=100)
        pairs = [compare(rows[i], rows[j]).p for i in range(4) for j in range(i)]
        wrong += min(holm(pairs)) <= 0.05
    assert wrong / 1500 <= 0.065


def test_numbers_that_are_no_shares_have_the_paired_t_interval_and_no_bound_at_one():
    random = np.random.default_rng(0)
    first, second = (Answers(tuple(range(60)), tuple(range(60)), random.normal(mean, 1, 60)) for mean in (3.0, -3.0))
    found = compare(first, second, share=False)
    difference = first.values - second.values
    half = stats.t.ppf(0.975, 59) * difference.std(ddof=1) / 60**0.5
    assert found.difference == pytest.approx(difference.mean()) and found.difference > 1
    assert (found.interval.low, found.interval.high) == pytest.approx((difference.mean() - half, difference.mean() + half))
    assert found.p_mcnemar is None and found.p < 0.001
    alone = estimate(first, share=False)
    assert alone.interval.half_width == pytest.approx(stats.t.ppf(0.975, 59) * first.values.std(ddof=1) / 60**0.5)


def test_rows_without_any_difference_have_p_of_one_over_several_seeds_too():
    same = [Answers.of((i, i // 2, -0.5 - 0.01 * (i % 7)) for i in range(20)) for _ in range(3)]
    assert compare(same, same, share=False).p == 1.0
