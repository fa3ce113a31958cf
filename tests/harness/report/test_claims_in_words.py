"""Claims of order in a sentence: what is compared once, then the results column by column."""

from harness.report.sections.conclusion import by_column


def test_rows_whose_names_hold_an_equals_sign_are_named_whole():
    tests = [("BLINK", "S = 2 − S = 1 = +1.0 [−2.1, +4.1], p = 1.00"), ("MMVP", "S = 2 − S = 1 = −1.5 [−3.5, +0.4], p = 0.40")]
    assert by_column(tests) == "S = 2 − S = 1: BLINK +1.0 [−2.1, +4.1], p = 1.00; MMVP −1.5 [−3.5, +0.4], p = 0.40"


def test_different_pairs_are_named_with_each_result():
    tests = [("BLINK", "S = 2 − S = 1 = +1.0 [−2.1, +4.1]"), ("MMVP", "S = 4 − S = 1 = 0.0 [−3.5, +0.4]")]
    assert by_column(tests) == "BLINK: S = 2 − S = 1 = +1.0 [−2.1, +4.1]; MMVP: S = 4 − S = 1 = 0.0 [−3.5, +0.4]"


def test_what_is_no_result_stays_as_it_is():
    assert by_column([("MMVP", "not judged")]) == "MMVP: not judged"
