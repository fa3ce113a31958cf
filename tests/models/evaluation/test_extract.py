"""The answer grammar, case by case, and the release's reading of the same texts."""

import pytest

from models.evaluation.extract import last_answer, read_release, read_strict

# response, what it states (four options), what the release reads
CASES = [
    # alone
    ("<answer> B </answer>", "B", "B"),
    ("<answer> b </answer>", "B", "B"),
    ("B<|im_end|>", "B", "B"),
    ("(C)", "C", "C"),
    ("[D].", "D", "D"),
    ("C:", "C", "C"),
    ("F", None, None),
    ("E", None, "E"),
    # leading
    ("<answer> (C) red </answer>", "C", "C"),
    ("<answer> D. left </answer>", "D", "D"),
    ("B) 4", "B", "B"),
    ("A. red", "A", "A"),
    ("(A) or (B)", None, "A"),
    ("A red car", None, "A"),
    # stated
    ("<answer> The answer is B </answer>", "B", "E"),
    ("The correct answer is B.", "B", "E"),
    ("the answer is b.", "B", "E"),
    ("The answer is a dog", None, "E"),
    ("The answer is A dog", None, "E"),
    ("The answer is A because it is larger", "A", "E"),
    ("Answer: (B) red", "B", "A"),
    ("The answer is B. Option A is wrong", "B", "E"),
    ("The answer is A. No, the answer is B.", None, "E"),
    ("The answer is E", None, "E"),
    ("The answer is not B", None, "E"),
    # chosen
    ("I'd choose option B", "B", "D"),
    ("My choice: c", "C", "C"),
    # bracketed
    ("It is red, so (C) it is", "C", "E"),
    ("Between (A) and (C)", None, "B"),
    # standing
    ("The image shows B", "B", "E"),
    ("It shows a dog", None, "A"),
    ("Both A and B", None, "B"),
    ("**B**", "B", "B"),
    ("B's", None, "B"),
    ("B\nC", None, "B"),
    # nothing
    ("<answer> none </answer>", None, "E"),
    ("<answer></answer>", None, "A"),
    ("", None, None),
    # blocks and special tokens
    ("<|lvr_start|><|lvr|><|lvr_end|>\n<answer> B </answer><|im_end|>", "B", "B"),
    ("<|lvr_start|><|lvr|><|lvr_end|>\nB<|im_end|>", "B", "A"),
    ("<answer>A</answer> wait <answer>B</answer>", "B", "B"),
    ("A <answer> B", "B", "A"),
]


@pytest.mark.parametrize(("response", "strict", "release"), CASES)
def test_a_response_is_read_as_the_grammar_says(response, strict, release):
    assert read_strict(response, options=4) == strict
    assert read_release(response) == release


def test_only_letters_of_the_question_s_own_options_count():
    assert read_strict("C", options=2) is None
    assert read_strict("C", options=3) == "C"
    with pytest.raises(ValueError, match="between 1 and 26"):
        read_strict("A", options=0)


def test_the_last_complete_block_is_the_answer():
    assert last_answer("<answer> A </answer><answer>B\n</answer><answer> C") == "B"
    assert last_answer("B") is None
