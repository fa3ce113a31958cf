"""What answers may say: letters alone behind a beginning, and no run of ids twice."""

import pytest
import torch
from transformers import AutoTokenizer, NoRepeatNGramLogitsProcessor

from models.latent.script import Script, letter_ids, listed_letters, repeating
from models.parity.texts import ByteTokenizer
from models.proxy import BASE_DIR

TOKENIZER = ByteTokenizer({"<|im_end|>": 297, " A": 256, " B": 257, " C": 258})


def test_an_answer_is_the_beginning_then_one_letter_then_the_end():
    script = Script(tuple(b"The answer is:"), 297)
    assert bytes(script.allowed(at, (256, 257))[0] for at in range(14)) == b"The answer is:"
    assert script.allowed(14, (256, 257)) == (256, 257) and script.allowed(15, (256, 257)) == (297,)


def test_an_answer_with_a_prefix_alone_is_free_behind_it():
    script = Script((1, 2), 297)
    assert [script.allowed(at, None) for at in range(4)] == [(1,), (2,), None, None]


def test_letters_are_the_ids_that_follow_the_beginning():
    assert letter_ids(TOKENIZER, "ABC", "The answer is:") == (256, 257, 258)


def test_an_answer_begins_with_the_words_that_the_decode_names():
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    script = Script.of(tokenizer, "<answer>")
    said = [tokenizer.decode([*script.prefix, letter, script.end]) for letter in letter_ids(tokenizer, "AB", "<answer>")]
    assert said == ["<answer> A<|im_end|>", "<answer> B<|im_end|>"]


def test_letters_that_begin_alike_are_refused():
    with pytest.raises(ValueError, match="begin with the same token"):
        letter_ids(ByteTokenizer({"<|im_end|>": 297}), "AB", "<answer>")


def test_a_questions_letters_are_those_at_the_heads_of_its_lines():
    assert listed_letters("Which? A. B.\nA. a cat\nB. a dog\n(C) none\nE: gap") == ["A", "B", "C"]
    assert listed_letters("What is it?") == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_runs_that_may_not_come_twice_are_transformers_own(size):
    ids = torch.randint(4, (1, 30), generator=torch.Generator().manual_seed(size))
    theirs = NoRepeatNGramLogitsProcessor(size)(ids, torch.zeros(1, 4))[0].isinf().nonzero()[:, 0].tolist()
    assert sorted(repeating(ids[0].tolist(), size)) == theirs
