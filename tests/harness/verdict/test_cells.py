from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulated_tables import World, verdicts
from harness.spec.reported import Reported, parse
from harness.stats import Answers, SeedNoise, estimate
from harness.verdict import Outcome, judge


def measured(right: int, n: int = 300, seeds: int = 1):
    runs = [Answers(tuple(range(n)), tuple(range(n)), np.array([1.0] * right + [0.0] * (n - right))) for _ in range(seeds)]
    return estimate(runs)


def reported(text: str) -> Reported:
    return parse(text)


NOISE = SeedNoise(((0.01**2, 20.0),))


def test_a_large_difference_differs():
    verdict = judge(measured(150), reported("72.3"), 300, proxy=False, noise=NOISE, source="other rows")
    assert verdict.outcome is Outcome.DIFFERS and verdict.label == "differs, one seed"
    assert verdict.text.startswith("differs: measured - reported = -22.3 [-2") and "with the seed noise of other rows" in verdict.text


def test_three_hundred_questions_of_noisy_runs_decide_nothing_and_say_so():
    verdict = judge(measured(214), reported("72.3"), 300, proxy=False, noise=NOISE)
    assert verdict.outcome is Outcome.UNDETERMINED
    assert "not even equal values could be shown to lie within 2 points" in verdict.text


def test_one_seed_without_anything_that_tells_of_others_is_undetermined_however_large_the_difference():
    verdict = judge(measured(150), reported("72.3"), 300, proxy=False)
    assert verdict.outcome is Outcome.UNDETERMINED and "nothing says how far another would lie" in verdict.text


def test_the_same_questions_make_runs_that_agree_on_them_consistent():
    """Their own noise would be 3.7 points of 95 % on either side, were they other questions."""
    alike = over_seeds((213, 214, 215), n=300)
    verdict = judge(alike, reported("71.3"), 300, proxy=False)
    assert verdict.outcome is Outcome.CONSISTENT
    elsewhere = judge(alike, reported("71.3"), 600, proxy=False)
    assert elsewhere.outcome is Outcome.UNDETERMINED and "on 300 questions here and 600 there" in elsewhere.text


def test_a_value_that_no_count_gives_does_not_differ_and_is_called_wrong_only_under_a_condition():
    verdict = judge(measured(150), reported("70.9"), 300, proxy=False)
    assert verdict.outcome is Outcome.NOT_ONE_RUN and "212/300 = 70.667" in verdict.text
    assert "it would be right if it is a mean over 3 to 5 runs" in verdict.text and "impossible" not in verdict.text


def test_a_value_that_no_mean_of_runs_gives_is_not_called_impossible_either():
    verdict = judge(measured(5, 10), reported("51.37"), 10, proxy=False)
    assert verdict.outcome is Outcome.NOT_ONE_RUN and "no mean over 2 to 5 runs" in verdict.text
    assert "averaged afterwards could still give it" in verdict.text


def test_an_approximate_value_is_judged_by_its_distance():
    assert judge(measured(45), reported("~15"), 300, proxy=False).outcome is not Outcome.NOT_ONE_RUN


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


def test_a_model_that_is_not_trained_here_is_judged_on_the_questions_themselves():
    close, far = (judge(measured(right), reported("72.3"), 300, proxy=False, trained=False) for right in (214, 150))
    assert close.outcome is Outcome.CONSISTENT and far.outcome is Outcome.DIFFERS
    assert "one seed" not in close.text and not close.borrowed


def test_several_seeds_borrow_nothing():
    verdict = judge(over_seeds((147, 150, 153), n=300), reported("72.3"), 300, proxy=False)
    assert verdict.outcome is Outcome.DIFFERS and verdict.label == "differs"


def test_what_is_not_judged_has_no_reservation_either():
    assert not judge(measured(150), reported("70.9"), 300, proxy=False).borrowed
    assert judge(measured(150), reported("72.3"), 300, proxy=True).label == "proxy"


def test_seed_noise_counts_on_both_sides_with_the_few_degrees_of_freedom_of_its_seeds():
    verdict = judge(over_seeds((640, 700, 760)), reported("70.0"), 1000, proxy=False)
    # Between seeds 6 points: ours the mean of three of them, theirs one more; t with 2 degrees of freedom at 98 % is 6.96.
    assert verdict.difference.half_width == pytest.approx(6.96 * 6 * (1 + 1 / 3) ** 0.5, rel=0.03)


def test_the_reported_runs_seed_noise_is_the_moderated_one():
    moderated = over_seeds((699, 700, 701), noise=SeedNoise(((0.03**2, 8.0),)))
    verdict = judge(moderated, reported("70.0"), 1000, proxy=False)
    assert verdict.difference.half_width > 2.3 * 3 * (1 + 1 / 3) ** 0.5, "three rows' steadiness is no proof of one's"


SAME = World(seeds=3, n=1919, sd=0.0)


def test_equal_models_on_many_questions_are_mostly_consistent_and_others_differ():
    equal, apart = verdicts(SAME, 40), verdicts(SAME, 40, apart=6.0)
    assert equal.get(Outcome.CONSISTENT, 0) >= 0.7 and apart.get(Outcome.DIFFERS, 0) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("world", [SAME, World(seeds=3, n=800, sd=0.0, turning=0.05)], ids=str)
def test_equal_models_are_consistent_four_times_in_five_where_questions_allow_it(world):
    rates = verdicts(world, 1500)
    assert rates[Outcome.CONSISTENT] >= 0.8 and rates.get(Outcome.DIFFERS, 0) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [300, 800])
@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("noise", ["equal", "unequal"])
def test_a_reported_run_of_the_same_recipe_rarely_differs(n, borrowed, noise):
    """Bar: 5 %; two standard errors of 2000 repetitions are 1 point."""
    assert verdicts(World(seeds=3, n=n, sd=2.0, noise=noise), 2000, borrowed=borrowed).get(Outcome.DIFFERS, 0) <= 0.06
