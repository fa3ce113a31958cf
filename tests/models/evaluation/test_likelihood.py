"""The log-likelihood of the right letter: where it is read, that it is the model's own, and what it does not depend on."""

from __future__ import annotations

import json
import math

import pytest
import torch

from models.config import DecodeSpec, EvaluateSpec
from models.evaluation import likelihood
from models.evaluation.likelihood import AnswerLetters, LetterTokens, answer_position, lone_letter, of_right
from models.evaluation.tasks import digest
from models.run import LocalRun

POSITIONS = [
    (["<answer>", " B", " </answer>", "<|im_end|>"], 1, True),
    (["Answer", ":", " B"], 2, True),
    (["(", "B", ")"], 1, True),
    (["(B", ").", "<|im_end|>"], 0, True),
    (["b", "<|im_end|>"], 0, True),
    ([" A", " is", " red", ",", " B", " is", " blue", ".", " The", " answer", " is", " A", "."], 11, True),
    (["<think>", " A", "?", " B", "!", "</think>", " C"], 6, True),
    (["<answer>", " A", " </answer>", "\n", "<answer>", " C", " </answer>"], 5, True),
    (["<answer>", " red", " </answer>"], 1, False),
    (["\n", " the", " blue", " one"], 1, False),
    (["Answer", ":", " B2"], 0, False),
    ([" A", " or", " B"], 0, False),
    (["<|lvr_start|>", "<|lvr|>", "<|lvr_end|>", "\n", "<|im_end|>"], 4, False),
    (["<|im_end|>"], 0, False),
]


@pytest.mark.parametrize(("pieces", "index", "written"), POSITIONS, ids=lambda value: "".join(value) if isinstance(value, list) else None)
def test_the_answer_position_is_where_the_letter_that_was_read_stands_or_where_one_would_have_stood(pieces, index, written):
    special = [piece.startswith("<|") for piece in pieces]
    assert answer_position(pieces, special) == (index, written)


def test_a_response_without_tokens_has_no_answer_position():
    with pytest.raises(ValueError, match="without tokens"):
        answer_position([], [])


@pytest.mark.parametrize(("text", "letter"), [(" B", "B"), ("(b).", "b"), ("B2", ""), ("AB", ""), ("Á", ""), ("?", ""), ("4", "")])
def test_a_token_writes_a_letter_when_it_writes_nothing_else_that_counts(text, letter):
    assert lone_letter(text) == letter


def test_both_normalisations_are_those_of_the_probabilities():
    letters = AnswerLetters((math.log(0.2), math.log(0.3), math.log(0.1), math.log(0.3)), True)
    found = of_right(letters, "B", 3)
    assert found == {"loglik": pytest.approx(math.log(0.5)), "loglik_vocabulary": pytest.approx(math.log(0.3)), "letter_written": True}


def test_an_unlisted_letter_is_bounded_by_the_least_token_listed_and_says_so():
    found = of_right(AnswerLetters((math.log(0.9), None), True, least=math.log(0.01)), "B", 2)
    assert found["loglik_bound"] and found["loglik"] == pytest.approx(math.log(0.01 / 0.91))


@pytest.mark.parametrize(
    ("letters", "target", "options"),
    [(None, "A", 4), (AnswerLetters((-1.0, None), True), "A", 2), (AnswerLetters((-1.0, -2.0), True), "C", 2), (AnswerLetters((-1.0,), True), "red", 1)],
)
def test_what_is_not_known_is_left_out(letters, target, options):
    assert of_right(letters, target, options) == {}


@pytest.fixture(scope="module")
def session(checkpoint):
    from models.evaluation import Session

    return Session(checkpoint, precision="fp32")


def evaluated(session, out, mirrors, images, batch_size=6, **decode):
    decode = DecodeSpec(**{"max_new_tokens": 6, "latent_steps": 2, "start": "forced"} | decode)
    spec = EvaluateSpec(benchmark="vstar", tasks=digest("vstar"), decode=decode, images=images, precision="fp32")
    session.evaluate(LocalRun(out), spec, mirror=mirrors["vstar"], batch_size=batch_size)
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


def test_the_stored_numbers_are_those_of_one_plain_forward_over_prompt_and_answer(
    session, mirrors, images, tmp_path, checkpoint, monkeypatch
):
    """transformers' own model, without a cache, over the whole sequence: no code of decoding in common."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    written, answer_of = {}, session.engine.answer_of

    def noted(decoded, spec):
        answer = answer_of(decoded, spec)
        written[answer.response] = decoded.token_ids
        return answer

    monkeypatch.setattr(session.engine, "answer_of", noted)
    rows = evaluated(session, tmp_path, mirrors, images, start="never", repetition_penalty=1.3)
    engine = session.engine
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = engine.image_processor(images)
    (prepared,) = [found for found in session._prepared.values() if ("vr_vstar", 0) in found]
    assert len(rows) == 5
    for row in rows:
        question = prepared["vr_vstar", row["doc_id"]]
        ids = written[row["response"]]
        pixels = processor(images=question.reload(), return_tensors="pt")
        whole = torch.cat([question.input_ids, torch.tensor(ids)])[None]
        kinds = (whole == engine.tokens.image).int()
        with torch.inference_mode():
            logits = stock(
                input_ids=whole, pixel_values=pixels["pixel_values"], image_grid_thw=pixels["image_grid_thw"], mm_token_type_ids=kinds
            ).logits[0]
        pieces = [engine.tokenizer.decode([token]) for token in ids]
        at, letter = answer_position(pieces, [token in engine.letters.special for token in ids])
        logs = logits[len(question.input_ids) + at - 1].log_softmax(-1)
        small = letter and pieces[at].islower()
        byte = {letter: engine.tokenizer.convert_tokens_to_ids(letter.lower() if small else letter) for letter in "ABCD"}
        options = "ABCD"[: 4 if row["groups"]["category"] == "direct_attributes" else 2]
        right = logs[byte[row["target"]]]
        assert row["loglik_vocabulary"] == pytest.approx(right.item(), abs=2e-4)
        assert row["loglik"] == pytest.approx((right - torch.logsumexp(logs[[byte[o] for o in options]], 0)).item(), abs=2e-4)


def test_batches_and_kept_prefills_change_no_digit_that_counts(session, mirrors, images, tmp_path):
    one = evaluated(session, tmp_path / "1", mirrors, images, batch_size=1)
    six = evaluated(session, tmp_path / "6", mirrors, images)
    kept = evaluated(session, tmp_path / "kept", mirrors, images)  # from the prefills of the run before
    session.engine.forget_answers()
    fresh = evaluated(session, tmp_path / "fresh", mirrors, images)
    assert kept == six == fresh
    assert [row["loglik"] for row in one] == pytest.approx([row["loglik"] for row in six], abs=1e-4)
    assert all(row["loglik"] < 0 and row["loglik_vocabulary"] <= row["loglik"] for row in six)


def test_other_latents_give_other_likelihoods(session, mirrors, images, tmp_path):
    own, zeroed = (evaluated(session, tmp_path / mode, mirrors, images, latents=mode) for mode in ("own", "zeroed"))
    assert [row["loglik"] for row in own] != [row["loglik"] for row in zeroed]


def test_the_probability_of_a_letter_is_the_sum_over_the_tokens_that_write_it():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("models/proxy/base")
    letters = LetterTokens(tokenizer)
    logits = torch.randn(3, len(tokenizer) + 5)
    found, probabilities = letters(logits), logits.softmax(-1)
    writing = [token for token in range(len(tokenizer)) if token not in letters.special and lone_letter(tokenizer.decode([token])) == "B"]
    assert len(writing) > 1 and found[:, 1].exp() == pytest.approx(probabilities[:, writing].sum(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_read_in_parts_have_the_digits_of_all_at_once(dtype, monkeypatch):
    from transformers import AutoTokenizer

    letters = LetterTokens(AutoTokenizer.from_pretrained("models/proxy/base"))
    logits = torch.randn(7, 20_000).to(dtype)
    whole = letters(logits)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 3 * 20_000)
    assert torch.equal(letters(logits), whole)
