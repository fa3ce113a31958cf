"""Prompts and pixels equal the stock processor's; features are kept; shuffled latents come from other pictures."""

import pytest
import torch

from models.backbone.images import load_image_processor
from models.config import DecodeSpec, Images
from models.evaluation.engine import Engine
from models.evaluation.lmms_model import LmmsModel, stock_text
from models.evaluation.vision import FeatureCache, merged_grid
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
    cache = FeatureCache(capacity_bytes=8)
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
        for batch in model._batches(list(limits), limits):
            model._decode(batch, limits[batch[0][0]])
        return [model.answers[key].response for key in sorted(model.answers)]

    assert responses(1) == responses(64)


def test_shuffled_batches_hold_no_picture_twice_and_nobody_alone(engine):
    model = LmmsModel(engine, images=LIMITS, latents="shuffled")
    chats = [conversation(f"Rotation {k}", picture(30 + k // 4, 48)) for k in range(20)]
    model.prepared = {("vr_hrbench4k", k): q for k, q in enumerate(prepared(engine, *chats))}
    batches = model._batches(list(model.prepared), dict.fromkeys(model.prepared, 5))
    groups = [group for batch in batches for group in batch]
    assert sorted(key for group in groups for key in group) == sorted(model.prepared)
    for group in groups:
        shown = [model.prepared[key].images for key in group]
        assert len(set(shown)) == len(shown) > 1
    model.prepared = {key: model.prepared[key] for key in list(model.prepared)[:4]}
    with pytest.raises(ValueError, match="shuffled needs questions on different pictures"):
        model._batches(list(model.prepared), dict.fromkeys(model.prepared, 5))


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
