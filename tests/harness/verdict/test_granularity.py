from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

import pytest

from harness.verdict.granularity import ROUNDINGS, granularity, round_fraction


@pytest.mark.parametrize(
    "value, rounding, expected",
    [
        (Fraction(1, 2), "half up", "1"),
        (Fraction(1, 2), "half even", "0"),
        (Fraction(3, 2), "half even", "2"),
        (Fraction(-1, 2), "half up", "-1"),
        (Fraction(99, 100), "truncation", "0"),
    ],
)
def test_rounding_is_exact(value, rounding, expected):
    assert round_fraction(value, 0, rounding) == Decimal(expected)


@pytest.mark.parametrize("value", ["69.5", "70.9", "65.9", "68.4", "71.5", "70.2", "67.5", "69.8", "70.4", "70.1"])
def test_no_three_hundred_questions_give_these(value):
    assert not granularity(Decimal(value), 300).possible


def test_the_arithmetic_is_stated():
    assert granularity(Decimal("70.9"), 300).text == "70.9 is no k/300: 212/300 = 70.667, 213/300 = 71.000"


def test_a_value_that_exists_only_truncated_is_told_apart():
    found = granularity(Decimal("69.6"), 300)
    assert found.possible and found.only == "truncation" and found.ways == ((209, "truncation"),)
    assert not granularity(Decimal("69.7"), 300).only


@pytest.mark.parametrize("value, roundings", [("53.6", "t"), ("52.6", "t"), ("28.2", "t"), ("56.4", "h"), ("54.2", "ht")])
def test_some_values_exist_only_truncated_and_others_only_rounded(value, roundings):
    """Of 697 questions: 53.6 beside 56.4 in one table are explained by no single way of rounding."""
    assert {rounding[0] for _, rounding in granularity(Decimal(value), 697).ways} == set(roundings)


def test_what_was_really_counted_is_never_called_impossible():
    random.seed(0)
    for _ in range(2000):
        n, decimals, rounding = random.randint(1, 2000), random.choice([0, 1, 2]), random.choice(ROUNDINGS)
        k = random.randint(0, n)
        printed = round_fraction(Fraction(100 * k, n), decimals, rounding)
        assert (k, rounding) in granularity(printed, n).ways


def test_trailing_zeros_count_as_decimals():
    assert granularity(Decimal("33.3"), 3).possible
    assert not granularity(Decimal("33.30"), 3).possible
