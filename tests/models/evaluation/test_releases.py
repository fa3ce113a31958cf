"""The readings of other releases, at the edges that their reference cases do not show (those are in the parity data)."""

import pytest

from models.evaluation.releases import read_lvr, read_visreflect


@pytest.mark.parametrize(
    ("response", "read"),
    [("<answer>\nB. red</answer>", "B"), ("<answer>A", "A"), ("<answer> </answer>", None), ("Apple", "A"), ("<answer>B</answe", "B")],
)
def test_lvr_reads_the_first_character_of_the_last_answer(response, read):
    assert read_lvr(response) == read


@pytest.mark.parametrize(
    ("response", "read"),
    [("(C) red", "C"), ("the answer is (b)", "B"), ("c", "C"), ("red or blue", None), ("red (D)", "D"), ("Answer: A. The answer is: B", "B")],
)
def test_visreflect_reads_the_first_pattern_that_occurs(response, read):
    assert read_visreflect(response) == read
