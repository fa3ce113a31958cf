"""Prompts and pixels equal the stock processor's; features are kept; shuffled latents come from other pictures."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from models.backbone.images import load_image_processor
from models.config import DecodeSpec, Images
from models.evaluation import prefills, vision
from models.evaluation.cache import BoundedCache
from models.evaluation.engine import Engine
from models.evaluation.lmms_model import LmmsModel, stock_text
from models.evaluation.vision import merged_grid
from models.latent import decoding, prefill
from models.latent.prompt import Prompt
from tests.models.evaluation.conftest import byte_processor, picture

LIMITS = Images(min_pixels=48 * 48, max_pixels=96 * 96)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return Engine(checkpoint, precision="fp32")


def conversation(text, *pictures):
    content = [{"type": "image", "url": p} for p in pictures] + [{"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def prepared(engine, *conversations, images=LIMITS):
    def pictures(c):
        return lambda: [part["url"] for part in c[0]["content"] if part["type"] == "image"]

    return engine.prepare(conversations, images, [pictures(c) for c in conversations])


CONVERSATIONS = [
    conversation("Which letter?\nA. <answer>\nB. naïve 你好", picture(1, 64)),
    conversation("Two of them  ", picture(2, 40), picture(3, 200).resize((100, 60))),
    conversation("No picture at all"),
]


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_ids_and_features_are_those_of_the_checkpoint_s_own_processor(backend, engine, checkpoint):
    from transformers import AutoProcessor

    images = LIMITS.model_copy(update={"processor": backend})
    stock = AutoProcessor.from_pretrained(checkpoint)
    stock.image_processor = load_image_processor(checkpoint, images)
    assert stock.image_processor.size["longest_edge"] == 96 * 96
    for question, chat in zip(prepared(engine, *CONVERSATIONS, images=images), CONVERSATIONS, strict=True):
        pictures = question.reload()
        messages = [
            {"role": "user", "content": [{**p, "image": p["url"]} if "url" in p else p for p in chat[0]["content"]]}
        ]
        text = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = stock(text=[text], images=pictures or None, return_tensors="pt")
        assert question.input_ids.tolist() == inputs["input_ids"][0].tolist()
        if not pictures:
            continue
        grid = inputs["image_grid_thw"]
        assert (question.grids * 2).tolist() == grid[:, 1:].tolist()
        with torch.inference_mode():
            expected = engine.model.model.visual(inputs["pixel_values"], grid).pooler_output
        held = torch.cat([engine.features.get((key, images)) for key in question.images])
        torch.testing.assert_close(held, expected, atol=2e-5, rtol=1e-4)


def test_a_hub_configuration_s_own_limits_do_not_override_the_spec_s(tmp_path):
    import json

    byte_processor().image_processor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    written = json.loads(file.read_text())
    written.pop("size")
    file.write_text(json.dumps(written | {"min_pixels": 3136, "max_pixels": 12845056}))
    processor = load_image_processor(tmp_path, LIMITS)
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (LIMITS.min_pixels, LIMITS.max_pixels)
    assert merged_grid(processor, picture(0, 200)) == (6, 6)


def test_features_that_do_not_fit_are_computed_again_with_the_same_answer(checkpoint):
    answers = []
    for capacity in (1 << 30, 1):
        engine = Engine(checkpoint, precision="fp32", feature_cache_bytes=capacity)
        questions = prepared(engine, *CONVERSATIONS)
        answers.append(engine.answer(questions, DecodeSpec(max_new_tokens=4), LIMITS))
    assert answers[0] == answers[1]


def test_the_cache_forgets_the_longest_unused_features_first():
    cache = BoundedCache(capacity_bytes=8)
    for name in "ab":
        cache.put(name, torch.zeros(1))
    cache.get("a")
    cache.put("c", torch.zeros(1))
    assert "a" in cache and "b" not in cache and cache.bytes == 8


def test_a_checkpoint_without_latent_tokens_answers_plainly(tmp_path):
    from tests.models.evaluation import conftest

    folder = conftest.write_checkpoint(tmp_path, latent_tokens=False)
    engine = Engine(folder, precision="fp32")
    answers = engine.answer(prepared(engine, *CONVERSATIONS), DecodeSpec(max_new_tokens=4), LIMITS)
    assert not any(a.latent_started for a in answers) and all(1 <= a.new_tokens <= 4 for a in answers)


def test_bf16_answers_too(checkpoint):
    engine = Engine(checkpoint, precision="bf16")
    (answer, *_) = engine.answer(prepared(engine, *CONVERSATIONS), DecodeSpec(max_new_tokens=3, start="forced"), LIMITS)
    assert answer.latent_started and answer.latent_steps == 8


@pytest.mark.parametrize("latents", ["own", "zeroed", "noise", "shuffled"])
def test_no_latents_mode_depends_on_the_batch_size(latents, engine):
    def responses(batch_size):
        model = LmmsModel(
            engine, batch_size=batch_size, images=LIMITS, latents=latents, start="forced", max_new_tokens=5
        )
        chats = [conversation(f"Question {k} {'x' * k}", picture(10 + k, 48)) for k in range(20)]
        model.prepared = {("vr_mmvp", k): q for k, q in enumerate(prepared(engine, *chats))}
        limits = dict.fromkeys(model.prepared, 5)
        model._answer(list(limits), limits)
        return [model.answers[key].response for key in sorted(model.answers)]

    assert responses(1) == responses(64)


def test_shuffled_batches_hold_no_picture_twice_and_nobody_alone(engine):
    model = LmmsModel(engine, images=LIMITS, latents="shuffled")
    chats = [conversation(f"Rotation {k}", picture(30 + k // 4, 48)) for k in range(20)]
    model.prepared = {("vr_hrbench4k", k): q for k, q in enumerate(prepared(engine, *chats))}
    groups = model._groups(list(model.prepared), dict.fromkeys(model.prepared, 5))
    assert sorted(key for group in groups for key in group) == sorted(model.prepared)
    for group in groups:
        shown = [model.prepared[key].images for key in group]
        assert len(set(shown)) == len(shown) > 1
    model.prepared = {key: model.prepared[key] for key in list(model.prepared)[:4]}
    with pytest.raises(ValueError, match="shuffled needs questions on different pictures"):
        model._groups(list(model.prepared), dict.fromkeys(model.prepared, 5))


def test_a_batch_takes_as_much_cache_as_batch_size_of_the_longest_questions_and_answers_are_those_of_one_at_a_time(checkpoint, monkeypatch):
    engine = Engine(checkpoint, precision="fp32")
    chats = [conversation(f"Short {k}") for k in range(12)]
    chats += [conversation(f"Long {k} " + 30 * "what is it, ", picture(50 + k, 96)) for k in range(4)]
    questions = {("vr_vstar", k): q for k, q in enumerate(prepared(engine, *chats))}
    order = sorted(questions, key=lambda key: (len(questions[key].input_ids), key))
    longest = len(questions[order[-1]].input_ids) + 6
    shapes, real = [], decoding.last_states
    monkeypatch.setattr(decoding, "last_states", lambda model, embeds, mask, *rest: shapes.append(tuple(mask.shape)) or real(model, embeds, mask, *rest))
    model = LmmsModel(engine, batch_size=2, images=LIMITS, latents="own", latent_steps=2)
    model.prepared = questions
    model._answer(order, dict.fromkeys(questions, 6))
    assert shapes[0][0] >= 6 and shapes[-1][0] <= 2, "many short questions, two long ones"
    assert max(rows * columns for rows, columns in shapes) <= 2 * longest
    together = [model.answers[key].response for key in order]
    assert together == [answer for key in order for answer in _alone(engine, questions[key])]
    assert len(set(together)) > 1


def test_a_share_of_the_gpus_memory_takes_more_questions_at_once_and_the_same_on_every_day(checkpoint, monkeypatch):
    engine = Engine(checkpoint, precision="fp32")
    with pytest.raises(ValueError, match="cache_share is a share of a GPU's memory, but this model is on a CPU; leave it out"):
        engine.cache_tokens(0.5)
    weights = sum(parameter.nbytes for parameter in engine.model.parameters())
    (question,) = prepared(engine, conversation("Hello"))
    read = decoding.read(engine.model, [Prompt(question.input_ids)], False, engine.tokens)
    token = sum(buffer[0, :, 0].nbytes for pair in read.buffers for buffer in pair)
    card = SimpleNamespace(total_memory=weights + 1000 * token)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(engine, "device", "cuda")
    assert engine.cache_tokens(0.5) == 500
    monkeypatch.undo()
    monkeypatch.setattr(engine, "cache_tokens", lambda share: 1e6 * share)
    asked, real = [], engine._prompts
    monkeypatch.setattr(engine, "_prompts", lambda of, *rest: asked.append(len(of.names)) or real(of, *rest))
    questions = {("vr_vstar", k): q for k, q in enumerate(prepared(engine, *[conversation(f"Question {k}", picture(k, 48)) for k in range(9)]))}
    answers = []
    for share in (None, 0.5):
        model = LmmsModel(engine, batch_size=2, cache_share=share, images=LIMITS, latent_steps=2)
        model.prepared = questions
        model._answer(list(questions), dict.fromkeys(questions, 6))
        answers.append([answer.response for _, answer in sorted(model.answers.items())])
    assert asked[-1] == 9 and max(asked[:-1]) == 2
    assert answers[0] == answers[1]


def _alone(engine, question):
    spec = DecodeSpec(latents="own", latent_steps=2, max_new_tokens=6)
    return [answer.response for answer in engine.answer([question], spec, LIMITS)]


def test_the_model_takes_lmms_eval_s_string_arguments(checkpoint):
    model = LmmsModel.create_from_arg_string(
        f"checkpoint={checkpoint},precision=fp32,latent_steps=4,latents=zeroed,max_pixels=9216",
        {"batch_size": 2, "max_batch_size": None, "device": "cpu"},
    )
    assert (model.decode.latent_steps, model.decode.latents, model.images.max_pixels, model.batch_size) == (
        4,
        "zeroed",
        9216,
        2,
    )
    with pytest.raises(ValueError, match="unknown model argument latent; choose from latent_steps"):
        LmmsModel(model.engine, latent=3)


def test_a_stock_task_gets_the_last_block_or_the_text_without_special_tokens():
    assert stock_text("<|lvr_start|><|lvr|><|lvr_end|>\n<answer> B </answer><|im_end|>") == "B"
    assert stock_text("<|lvr_start|><|lvr|><|lvr_end|>\nThe answer is B<|im_end|>") == "The answer is B"


@pytest.fixture
def columns(monkeypatch):
    """Tokens that went through the layers before the first new one: (rows, columns) of each pass."""
    found, real = [], prefill.last_states
    monkeypatch.setattr(
        prefill, "last_states", lambda model, embeds, *rest: found.append(tuple(embeds.shape[:2])) or real(model, embeds, *rest)
    )
    monkeypatch.setattr(prefills, "SHORTEST_PREFIX", 8)
    return found


def rotations(questions, first=60):
    """Four questions on each picture, as HR-Bench asks them."""
    return [conversation(f"Rotation {k % 4} {'x' * (k % 4)}", picture(first + k // 4, 48)) for k in range(4 * questions)]


def asked(engine, questions, **decode):
    return engine.answer(questions, DecodeSpec(max_new_tokens=6, start="forced", **decode), LIMITS)


def test_four_questions_on_a_picture_encode_and_read_it_once_and_are_answered_as_alone(checkpoint, columns, monkeypatch):
    encoded = []
    real = vision.encode_images
    monkeypatch.setattr(vision, "encode_images", lambda model, patches, grids: encoded.extend(patches) or real(model, patches, grids))
    shared = Engine(checkpoint, precision="fp32")
    questions = prepared(shared, *rotations(3))
    together = [answer for k in range(4) for answer in asked(shared, questions[k::4])]
    assert len(encoded) == 3
    begun, *rest = columns
    picture_ends = max(int((q.input_ids == shared.tokens.image).nonzero()[-1]) + 1 for q in questions)
    assert begun == (3, picture_ends)
    assert rest == [(3, max(len(q.input_ids) for q in questions[k::4]) + 1 - picture_ends) for k in range(4)]
    whole = Engine(checkpoint, precision="fp32", prefill_cache_bytes=0)
    alone = [asked(whole, [question])[0] for k in range(4) for question in questions[k::4]]
    assert len({answer.response for answer in alone}) > 1
    for one, other in zip(together, alone, strict=True):
        assert replace(one, letters=None) == replace(other, letters=None)
        assert one.letters.logs == pytest.approx(other.letters.logs, abs=2e-4)


def test_every_kind_of_latents_number_of_steps_and_protocol_goes_on_from_what_was_read_once(checkpoint, columns):
    engine = Engine(checkpoint, precision="fp32")
    chats = rotations(2)
    questions = prepared(engine, *chats)
    for latents, steps in (("own", 8), ("zeroed", 8), ("noise", 8), ("own", 4), ("own", 0)):
        asked(engine, questions, latents=latents, latent_steps=steps)
    engine.forget_answers(same_pictures=True)
    other = prepared(engine, *[conversation(f"{c[0]['content'][1]['text']}?", c[0]["content"][0]["url"]) for c in chats])
    asked(engine, other)
    engine.answer(other, DecodeSpec(max_new_tokens=6), LIMITS)
    assert sorted(number for number, _ in columns) == [2] + 7 * [8], "two pictures once, then what stands behind them"
    engine.forget_answers()
    columns.clear()
    asked(engine, other)
    assert len(columns) == 2


def test_prefixes_stay_while_there_is_room_and_the_others_pass(checkpoint, columns):
    engine = Engine(checkpoint, precision="fp32")
    questions = prepared(engine, *rotations(6, first=80))
    asked(engine, questions[:1])
    size = engine.prefills._staying_bytes
    engine.prefills.limit(8 * size)
    answers = [asked(engine, [question])[0] for question in questions]
    assert sum(rows for rows, _ in columns) == 2 + 6 + 24 and len(engine.prefills._staying) == 6
    engine.prefills.limit(4 * size)  # three stay, one passes at a time
    columns.clear()
    again = [asked(engine, [question])[0] for question in questions]
    assert again == answers and sum(rows for rows, _ in columns) == 6 + 24
    columns.clear()
    assert [asked(engine, [question])[0] for question in questions] == answers
    assert sum(rows for rows, _ in columns) == 3 + 24, "those that stayed are not read again"
    assert (len(engine.prefills._staying), len(engine.prefills._passing)) == (3, 1)


def test_the_profile_s_memory_says_how_much_is_kept(checkpoint):
    small, large = (Engine(checkpoint, precision="fp32", memory_bytes=gigabytes * 1e9) for gigabytes in (0.1, 100))
    assert small.prefills.capacity_bytes == int(0.5 * 0.125 * 1e8)
    assert 48e9 < large.prefills.capacity_bytes < 50e9 and 24e9 < large.features.capacity_bytes < 25e9
