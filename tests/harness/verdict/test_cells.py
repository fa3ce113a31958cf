from __future__ import annotations

import numpy as np
import pytest

from harness.spec.reported import Reported, parse
from harness.stats import Answers, estimate
from harness.verdict import Outcome, judge


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
