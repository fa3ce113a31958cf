from decimal import Decimal

import pytest

from harness.spec.reported import parse


@pytest.mark.parametrize(
    ("text", "value", "approximate", "marks"),
    [
        ("72.30", "72.30", False, ""),
        ("~54.2", "54.2", True, ""),
        ("70.0 †", "70.0", False, "†"),
        ("+5.6", "5.6", False, ""),
        ("−3.1", "-3.1", False, ""),
        ("0.0", "0.0", False, ""),
    ],
)
def test_a_printed_number_keeps_decimals_and_marks(text, value, approximate, marks):
    reported = parse(text)
    assert (str(reported.value), reported.approximate, reported.marks) == (value, approximate, marks)
    assert reported.decimals == len(value.partition(".")[2])


@pytest.mark.parametrize("text", ["-", "–", None, ""])
def test_nothing_printed_is_missing_and_not_zero(text):
    assert parse(text).missing and parse(text).value is None


def test_an_unknown_value_is_not_a_missing_one():
    assert parse("unknown").value is None and not parse("unknown").missing


def test_values_are_exact():
    assert parse("70.9").value - parse("68.4").value == Decimal("2.5")


@pytest.mark.parametrize(("text", "words"), [("７０.９", "FULLWIDTH DIGIT SEVEN"), ("70,9", "decimal comma"), ("-1,45 %", "decimal comma")])
def test_a_number_in_other_digits_or_with_a_comma_is_no_missing_value(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


@pytest.mark.parametrize("written", [".nan", "nan", "-.inf", float("inf"), "1e999", "7e1", True, "true", "70.9.1", "1,234.5", "70_9", "70.", "abc", "n/a", "72.0±0.3"])
def test_what_is_no_number_is_refused(written):
    with pytest.raises(ValueError, match="is not a number as a paper prints it"):
        parse(written)
