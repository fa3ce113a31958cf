from __future__ import annotations

import numpy as np
import pytest

from harness.spec.reported import Reported, parse
from harness.stats import Answers, SeedNoise, estimate
from harness.verdict import Outcome, judge
from tests.harness.stats.simulate import study


def measured(right: int, n: int = 300, seeds: int = 1):
    runs = [Answers(tuple(range(n)), tuple(range(n)), np.array([1.0] * right + [0.0] * (n - right))) for _ in range(seeds)]
    return estimate(runs)


def reported(text: str) -> Reported:
    return parse(text)


def test_a_large_difference_differs():
    verdict = judge(measured(150), reported("72.3"), 300, proxy=False)
    assert verdict.outcome is Outcome.DIFFERS
    assert verdict.text.startswith("differs: measured - reported = -22.3 [-3")


def test_three_hundred_questions_rarely_decide_and_say_what_would():
    verdict = judge(measured(214), reported("72.3"), 300, proxy=False)
    assert verdict.outcome is Outcome.UNDETERMINED
    assert "reported value's own noise is already too wide" in verdict.text


def test_many_questions_on_both_sides_can_be_consistent():
    verdict = judge(measured(14_040, 20_000), reported("70.0"), 20_000, proxy=False)
    assert verdict.outcome is Outcome.CONSISTENT


def test_an_open_cell_states_the_number_of_questions():
    verdict = judge(measured(711, 1000), reported("70.0"), 20_000, proxy=False)
    assert verdict.outcome is Outcome.UNDETERMINED
    assert verdict.decision and verdict.decision.questions and f"{verdict.decision.questions:,} questions" in verdict.text


def test_a_value_that_no_count_gives_is_impossible_not_different():
    verdict = judge(measured(150), reported("70.9"), 300, proxy=False)
    assert verdict.outcome is Outcome.IMPOSSIBLE and "212/300 = 70.667" in verdict.text


def test_an_approximate_value_is_not_called_impossible():
    assert judge(measured(45), reported("~15"), 300, proxy=False).outcome is not Outcome.IMPOSSIBLE


@pytest.mark.parametrize("value", ["72.3", "1.0", "70.9"])
def test_a_proxy_cell_never_gets_a_verdict_against_the_paper(value):
    verdict = judge(measured(150), reported(value), 300, proxy=True)
    assert verdict.outcome is Outcome.PROXY and verdict.difference is None


def test_a_missing_cell_says_why():
    verdict = judge(None, reported("72.3"), 300, proxy=True, absent=(Outcome.NOT_RUN, "no weights are public"))
    assert verdict.text == "not run: no weights are public"


def test_nothing_reported_is_no_zero():
    assert judge(measured(150), reported("-"), 300, proxy=False).outcome is Outcome.NOT_REPORTED


def over_seeds(rights: tuple[int, ...], n: int = 1000, noise: SeedNoise | None = None):
    runs = [Answers(tuple(range(n)), tuple(range(n)), np.array([1.0] * right + [0.0] * (n - right))) for right in rights]
    return estimate(runs, noise=noise)


@pytest.mark.parametrize(
    "right, n, outcome",
    [(150, 300, Outcome.DIFFERS), (711, 1000, Outcome.UNDETERMINED), (14_040, 20_000, Outcome.CONSISTENT)],
)
def test_one_seed_is_no_certainty_whatever_the_outcome(right, n, outcome):
    verdict = judge(measured(right, n), reported("70.0"), 20_000, proxy=False)
    assert verdict.outcome is outcome and verdict.one_seed and verdict.label == f"{outcome}, one seed"
    assert verdict.text.endswith("; one seed: seed noise is unknown and not counted")


def test_several_seeds_and_a_model_that_is_not_trained_here_have_no_such_reservation():
    for verdict in (
        judge(measured(150, seeds=3), reported("72.3"), 300, proxy=False),
        judge(measured(150), reported("72.3"), 300, proxy=False, trained=False),
    ):
        assert verdict.outcome is Outcome.DIFFERS and verdict.label == "differs"
        assert "one seed" not in verdict.text and not verdict.one_seed


def test_what_is_not_judged_has_no_reservation_either():
    assert not judge(measured(150), reported("70.9"), 300, proxy=False).one_seed
    assert judge(measured(150), reported("72.3"), 300, proxy=True).label == "proxy"


def test_seed_noise_counts_on_both_sides_with_the_few_degrees_of_freedom_of_its_seeds():
    verdict = judge(over_seeds((640, 700, 760)), reported("70.0"), 20_000, proxy=False)
    # Between seeds 6 points: ours the mean of three of them, theirs one more; t with 2 degrees of freedom is 4.3.
    assert verdict.difference.half_width == pytest.approx(4.30 * 6 * (1 + 1 / 3) ** 0.5, rel=0.03)


def test_the_reported_runs_seed_noise_is_the_pooled_one_where_rows_lend_theirs():
    pooled = over_seeds((699, 700, 701), noise=SeedNoise(0.03**2, 8))
    verdict = judge(pooled, reported("70.0"), 20_000, proxy=False)
    assert verdict.difference.half_width > 2.3 * 3 * (1 + 1 / 3) ** 0.5, "three rows' steadiness is no proof of one's"


@pytest.mark.slow
def test_a_reported_run_of_the_same_recipe_rarely_differs():
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        ours, (theirs,) = (study(random, means=(0.7,), clusters=300, per_cluster=1, seeds=k, seed_sd=0.035)[0] for k in (3, 1))
        printed = reported(f"{100 * theirs.values.mean():.3f}")
        wrong += judge(estimate(ours), printed, 300, proxy=False).outcome is Outcome.DIFFERS
    assert wrong / 2000 <= 0.06
