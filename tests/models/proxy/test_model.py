"""Processor, rows and base checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from models.proxy import (
    BASE_DIR,
    architecture,
    benchmarks,
    curriculum,
    language,
    measure,
    processor,
    prompts,
    questions,
)
from models.proxy.rows import Row, Slots, Tokens, cells_of, collate
from models.proxy.scenes import ATTRIBUTES, DENSE, USUAL, render, sample_scene

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def built():
    return processor.build_processor()


@pytest.fixture(scope="module")
def committed():
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(BASE_DIR)


@pytest.fixture(scope="module")
def tiny(built):
    ids = {n: built.tokenizer.convert_tokens_to_ids(n) for n in architecture.TOKENS_IN_CONFIG}
    return architecture.build(ids, 0).eval()


def test_the_committed_tokenizer_is_what_the_code_builds(built, committed):
    assert built.tokenizer.get_vocab() == committed.tokenizer.get_vocab()
    assert built.chat_template == committed.chat_template


def test_special_and_latent_tokens_are_single_entries_in_order(committed):
    one = committed.tokenizer.convert_tokens_to_ids
    for group in (processor.SPECIAL_TOKENS, processor.LATENT_TOKENS):
        ids = [one(t) for t in group]
        assert ids == list(range(ids[0], ids[0] + len(group)))
        assert [committed.tokenizer(t).input_ids for t in group] == [[i] for i in ids]
    assert one("<|lvr_end|>") == len(committed.tokenizer) - 1 < architecture.VOCABULARY


def test_every_prompt_survives_the_tokenizer_and_is_short(committed):
    rng = np.random.default_rng(0)
    for family in {**questions.CORE, **questions.HELD_OUT}.values():
        q = None
        while q is None:
            q = questions.ask(rng, sample_scene(rng, benchmarks.MARKED), family)
        for prompt in prompts.LETTER_PROMPTS.values():
            ids = committed.tokenizer(prompt(q)).input_ids
            assert committed.tokenizer.decode(ids) == prompt(q)
            assert len(ids) < 40
    odd = "Ünïcode, 漢字 and\ttabs\n\n  survive — 42!"
    assert committed.tokenizer.decode(committed.tokenizer(odd).input_ids) == odd


def test_attribute_words_and_letters_are_one_token(committed):
    for word in [*(w for v in ATTRIBUTES.values() for w in v), *"ABCDE"]:
        assert len(committed.tokenizer(" " + word).input_ids) == 1


@pytest.mark.parametrize("style", [USUAL, DENSE])
def test_the_processor_keeps_pictures_as_they_are(committed, style):
    picture = render(sample_scene(np.random.default_rng(0), style))
    got = committed.image_processor(Image.fromarray(picture), return_tensors="pt")
    assert torch.allclose(got["pixel_values"], architecture.patches(picture[None]), atol=1e-5)
    assert got["image_grid_thw"].tolist() == [[1, style.side_px // 8, style.side_px // 8]]


def test_the_chat_template_is_qwens(committed):
    text = committed.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}], add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "Why?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_every_turn_of_a_row_is_a_single_turn_conversation_to_transformers(tiny, committed):
    rng = np.random.default_rng(0)
    tokens, scene = Tokens(committed.tokenizer), sample_scene(rng, benchmarks.MARKED)
    row = curriculum.picture_row(tokens, rng, scene, curriculum.Stage(easy=0, open_ended=0.3, slots=0.0))
    assert len(row.turns) > 2
    picture = render(scene)
    with torch.no_grad():
        hidden, _ = language.forward(tiny, collate([row]), architecture.see(tiny, picture[None]))
        for turn, states in zip(row.turns, hidden, strict=True):
            text = tokens.tokenizer.decode(row.prefix + turn.ids).replace("<|image_pad|>" * 64, "<|image_pad|>")
            given = committed(text=[text], images=[Image.fromarray(picture)], return_tensors="pt")
            assert given["input_ids"][0].tolist() == row.prefix + turn.ids
            expected = tiny(**given).logits[0, len(row.prefix) :]
            assert torch.allclose(tiny.lm_head(states)[: len(turn.ids)], expected, atol=1e-4)


def test_slots_hold_the_evidences_tokens_and_are_not_taught(committed):
    rng = np.random.default_rng(1)
    tokens, scene = Tokens(committed.tokenizer), sample_scene(rng, USUAL)
    q = questions.ask(rng, scene, questions.attribute)
    cells = cells_of(q.box, 8)
    turn = Row(tokens, cells=(8,)).turn(q, prompts.paper(q), q.letter, Slots(len(cells), tuple(cells)))
    assert q.things[0].row * 8 + q.things[0].col in cells
    assert [turn.ids[s] for s, _ in turn.fills] == [tokens.latent] * len(cells)
    taught = {t for _, t, _ in turn.targets}
    assert tokens.latent_start not in taught and tokens.latent not in taught
    assert committed.tokenizer.decode(turn.ids).endswith(f"<|lvr_end|>\n<answer> {q.letter} </answer><|im_end|>\n")


def test_attention_is_shown_the_last_word_of_a_name(committed):
    rng = np.random.default_rng(2)
    tokens, scene = Tokens(committed.tokenizer), sample_scene(rng, USUAL)
    q = questions.ask(rng, scene, questions.relation)
    turn = Row(tokens, cells=(8,)).turn(q, prompts.blink(q), q.letter)
    assert len(turn.looks) == 2
    for (at, cell, _), thing, name in zip(turn.looks, q.things, q.names, strict=True):
        assert cell == thing.row * 8 + thing.col
        assert tokens.tokenizer.decode([turn.ids[at]]).strip() == name.split()[-1]


def test_evidence_never_fills_the_slots_of_a_held_out_family(committed):
    tokens, rng = Tokens(committed.tokenizer), np.random.default_rng(3)
    assert not set(questions.CORE) & set(questions.HELD_OUT)
    for shares, filled in (tuple((f, 1.0) for f in questions.HELD_OUT), False), ((("attribute", 1.0),), True):
        stage = curriculum.Stage(easy=0, open_ended=0, slots=1.0, shares=shares, written=1.0)
        rows = [curriculum.picture_row(tokens, rng, sample_scene(rng, USUAL), stage) for _ in range(20)]
        assert any(turn.fills for row in rows for turn in row.turns) == filled
        assert any(tokens.latent in turn.ids for row in rows for turn in row.turns) == filled


def test_a_blind_rows_answer_is_looked_for_in_its_slots(committed):
    tokens, rng = Tokens(committed.tokenizer), np.random.default_rng(4)
    row = curriculum.blind_row(tokens, rng, sample_scene(rng, USUAL), curriculum.Stage(easy=0, open_ended=0, slots=1.0))
    assert row.blind and row.turns
    for turn in row.turns:
        slots = [at for at, _ in turn.fills]
        assert slots and all(turn.ids[at] == tokens.latent for at in slots)
        assert turn.hops == [(turn.answer_at, slots[0], slots[-1])] and not turn.looks


def test_a_jigsaws_answer_looks_at_the_edges_and_at_the_piece_that_fits(committed):
    tokens, rng = Tokens(committed.tokenizer), np.random.default_rng(5)
    for _ in range(6):
        row, pictures = curriculum.puzzle_row(tokens, rng, "jigsaw")
        assert [p.shape[0] // 16 for p in pictures] == list(row.cells) == [8, 4, 4]
        (turn,) = row.turns
        pictured = [k for k, token in enumerate(row.prefix) if token == tokens.image]
        at, *pieces = turn.hops[0]
        assert at == turn.answer_at
        first = 64 + (0 if turn.ids[turn.answer_at + 1] == tokens.encode(" A")[0] else 16)
        assert all(len(row.prefix) + key in pictured[first : first + 16] for key in pieces)


needs_base = pytest.mark.skipif(not (BASE_DIR / "model.safetensors").exists(), reason="no base checkpoint in this checkout")


@needs_base
def test_the_base_is_small():
    assert sum(p.stat().st_size for p in BASE_DIR.iterdir()) < 15e6


@needs_base
def test_plain_transformers_loads_the_base_and_it_answers_with_a_letter(committed):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE_DIR, dtype=torch.float32).eval()
    for k in range(3):
        asked = benchmarks.mmvp_pair("dev", 123, k)[0]
        content = [{"type": "image"}, {"type": "text", "text": prompts.paper(asked.question)}]
        text = committed.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        given = committed(text=[text], images=[Image.fromarray(asked.pictures[0])], return_tensors="pt")
        out = model.generate(**given, max_new_tokens=8, do_sample=False)[0, given["input_ids"].shape[1] :]
        assert committed.tokenizer.decode(out) in {f"<answer> {x} </answer><|im_end|>" for x in "AB"}


@needs_base
def test_the_base_is_well_above_chance_on_what_it_was_taught():
    model, tokens = measure.load(BASE_DIR)
    rng = np.random.default_rng(7)
    asked = [benchmarks.ask_scene("dev", rng, "attribute", USUAL) for _ in range(96)]
    assert np.mean(measure.answered_right(model, tokens, asked)) > 0.8
