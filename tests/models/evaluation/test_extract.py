"""The answer grammar, case by case, and the release's reading of the same texts."""

import json
import string
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.evaluation.extract import last_answer, read_release, read_strict

DATA = Path(__file__).parents[2] / "data"

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


FORMS = [json.loads(line) for line in (DATA / "answers" / "forms.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: ascii(form["response"])[:60])
def test_a_form_of_the_field_is_read_as_a_person_reads_it(form):
    assert (read_strict(form["response"], form["options"]) or "none") == form["letter"]


def test_the_table_of_forms_is_large_and_holds_each_form_once():
    assert len(FORMS) >= 150 and sum(form["letter"] == "none" for form in FORMS) >= 100
    assert len({(form["response"], str(form["options"])) for form in FORMS}) == len(FORMS)


letters = st.sampled_from("ABCD")
wrapped = st.sampled_from(
    ["{}", "({})", "[{}]", "**{}**", "`{}`", '"{}"', "'{}'", "“{}”", "\\boxed{{{}}}", "${}$", "<b>{}</b>", "{}."]
)
said = st.sampled_from([
    "{}", "The answer is {}", "Answer: {}", "Final answer: {}", "I choose option {}", "The correct option is {}",
    "答案是{}", "选{}", '{{"answer": "{}"}}', "A closer look shows that the answer is {}",
])  # fmt: skip
around = st.text(alphabet=" \t\n\u00a0\u200b\ufeff", max_size=6)
prompts = st.sampled_from([
    "", "Let me look at the image.\n", "The picture shows a dog and a car. ", "<|lvr_start|><|lvr|><|lvr_end|>\n",
    "<think>Is it A, or B? C is red.</think>", "I see the car. It is red. ",
])  # fmt: skip


@given(letters, wrapped, said, around, around, prompts, st.booleans())
def test_wrapping_white_space_case_and_what_stands_before_do_not_change_the_letter(
    letter, wrap, say, before, after, prompt, small
):
    """Left out: a box inside a JSON text, and an "a" behind a sentence on the same line, which may be an article."""
    assume(not (say.startswith("{{") and wrap not in ("{}", "({})", "{}.", "[{}]", "**{}**")))
    assume(not (small and letter == "A" and say == "{}" and prompt.endswith(". ")))
    stated = say.format(wrap.format(letter.lower() if small else letter))
    assert read_strict(prompt + before + stated + after, 4) == letter


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from(["or", "and", "/", ",", "&", "vs", "→"]), said)
def test_two_letters_offered_together_are_no_answer(one, other, join, say):
    assume(one != other)
    assert read_strict(say.format(f"{one} {join} {other}"), 4) is None


@given(
    letters,
    st.sampled_from(
        ["not {}", "{} is wrong", "The answer is not {}", "It isn't {}", "Eliminate {}", "不选{}", "except {}"]
    ),
)
def test_a_rejected_letter_is_never_the_answer(letter, say):
    assert read_strict(say.format(letter), 4) is None


@given(st.text(max_size=200), st.integers(1, 26))
def test_whatever_the_text_a_letter_is_one_of_the_options(text, options):
    assert read_strict(text, options) in (None, *string.ascii_uppercase[:options])


@given(
    st.lists(
        st.sampled_from(
            [
                "A",
                "B.",
                "(C)",
                "not",
                "or",
                "answer",
                "is",
                "{",
                "}",
                "'",
                ":",
                "\\boxed{",
                "<answer>",
                "\n",
                "选",
                "I",
                "a",
            ]
        ),
        max_size=40,
    )
)
def test_pieces_of_answers_in_any_order_are_read_without_an_error(pieces):
    assert read_strict(" ".join(pieces), 3) in (None, "A", "B", "C")


def test_a_long_response_is_read_in_linear_time():
    for piece in ("not ", "the answer is ", "A, ", "(", "{'answer': ", "if A ", "<think>", "is B? "):
        began = time.perf_counter()
        read_strict(piece * 4_000, 4)
        assert time.perf_counter() - began < 20, piece  # seconds; quadratic reading took minutes


def test_the_options_own_texts_count_as_their_letters():
    assert read_strict("The answer is red.", ["red", "blue"]) == "A"
    assert read_strict("A is darker", ["B is darker", "A is darker"]) == "B"
    assert read_strict("red", ["red", "Red"]) is None  # two options have that text
