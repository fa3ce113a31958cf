import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.backbone.template import build, encode, positions, prompt, prompt_text
from models.backbone.tokens import ADDED, SpecialTokens, add_tokens
from models.parity.reference import TINY

QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]


@pytest.fixture(scope="module")
def tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = PreTrainedTokenizerFast(tokenizer_object=bare)
    made.add_tokens(QWEN, special_tokens=True)
    add_tokens(made)
    return made


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return SpecialTokens.of(tokenizer)


TALK = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "<lvr>\n<answer> A </answer>"}]
BOX = [[0.1, 0.2, 0.5, 0.6]]
TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|><|image_pad|><|image_pad|><|image_pad|><|image_pad|><|image_pad|><|image_pad|><|vision_end|>What is it?"
    "<|im_end|>\n<|im_start|>assistant\n"
)


def shown(tokenizer, ids) -> str:
    return "".join(
        t if t.startswith("<|") else t.replace("Ċ", "\n").replace("Ġ", " ")
        for t in tokenizer.convert_ids_to_tokens(ids)
    )


def test_the_added_tokens_stand_in_the_releases_order(tokenizer):
    assert add_tokens(tokenizer) == 0
    ids = tokenizer.convert_tokens_to_ids(list(ADDED))
    assert ids == list(range(ids[0], ids[0] + 4))


def test_a_tokenizer_without_the_latent_tokens_is_refused_with_the_remedy():
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    with pytest.raises(ValueError, match=r"lacks <\|lvr_start\|>, .*add_tokens"):
        SpecialTokens.of(bare)


@pytest.mark.parametrize("steps", [0, 1, 8])
def test_a_sample_is_the_releases_string_and_supervises_the_answer(tokenizer, tokens, steps):
    sample = build(tokenizer, tokens, TALK, [(2, 3)], BOX, latent_steps=steps)
    answer = "<|lvr_start|>" + steps * "<|lvr|>" + "<|lvr_end|>\n<answer> A </answer><|im_end|>\n"
    assert shown(tokenizer, sample.input_ids) == TEXT + answer
    supervised = [i for i in sample.labels if i != -100]
    assert shown(tokenizer, supervised) == answer
    assert sample.labels[-len(supervised) :] == supervised == sample.input_ids[-len(supervised) :]
    assert sample.input_ids[sample.starts[0] - 1] == tokens.lvr_start
    after = sample.input_ids[sample.starts[0] : sample.starts[0] + steps + 1]
    assert after == steps * [tokens.lvr] + [tokens.lvr_end]


def test_sft_has_no_latent_segment(tokenizer, tokens):
    sample = build(tokenizer, tokens, TALK, [(2, 3)], BOX, latent_steps=None)
    assert shown(tokenizer, sample.input_ids) == TEXT + "<answer> A </answer><|im_end|>\n"
    assert (sample.starts, sample.boxes, sample.images) == ([], [], [])


def test_the_prompt_is_the_sample_up_to_its_answer(tokenizer, tokens):
    sample = build(tokenizer, tokens, TALK, [(2, 3)], BOX, latent_steps=2)
    assert prompt_text("<image>\nWhat is it?", [(2, 3)]) == TEXT
    ids = prompt(tokenizer, "<image>\nWhat is it?", [(2, 3)])
    assert ids == sample.input_ids[: len(ids)] and ids == encode(tokenizer, TEXT)


def test_every_box_names_its_image(tokenizer, tokens):
    talk = [
        {"from": "human", "value": "<image>\n<image>\nSame?"},
        {"from": "gpt", "value": "Look <lvr> and <lvr> so no"},
    ]
    sample = build(tokenizer, tokens, talk, [(1, 2), (2, 2)], 2 * BOX, latent_steps=1, box_images=[1, 0])
    assert sample.images == [1, 0] and len(sample.starts) == 2
    text = shown(tokenizer, sample.input_ids)
    assert text.endswith("<|lvr_start|><|lvr|><|lvr_end|> and <|lvr_start|><|lvr|><|lvr_end|> so no<|im_end|>\n")
    assert text.count("<|vision_end|>") == 2 and "Look" not in text


@pytest.mark.parametrize(
    ("talk", "grids", "boxes", "images", "message"),
    [
        (TALK, [], BOX, None, "1 <image> placeholders for 0 images"),
        (TALK, [(2, 3), (2, 3)], BOX, None, "1 <image> placeholders for 2 images"),
        (TALK, [(2, 3)], 2 * BOX, None, "s3: 1 <lvr> placeholders, 2 boxes"),
        (TALK, [(2, 3)], BOX, [1], "s3, box 0: image 1 of 1"),
        (TALK, [(2, 3)], [[0.5, 0.5, 0.5, 0.6]], None, "s3, box 0: box .* is empty"),
        ([{"from": "bot", "value": ""}], [], [], None, "s3: a message is from 'bot'"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_by_name(tokenizer, tokens, talk, grids, boxes, images, message):
    with pytest.raises(ValueError, match=message):
        build(tokenizer, tokens, talk, grids, boxes, latent_steps=2, box_images=images, name="s3")


def test_positions_are_those_of_transformers(model):
    generator = torch.Generator().manual_seed(1)
    grids = [(4, 6), (5, 2), (1, 1)]
    pieces = [torch.randint(10, 290, (3,), generator=generator)]
    for height, width in grids:
        pieces += [
            torch.tensor([302] + height * width * [300] + [303]),
            torch.randint(10, 290, (4,), generator=generator),
        ]
    ids = torch.cat(pieces)
    theirs, _ = model.model.get_rope_index(
        ids[None],
        mm_token_type_ids=(ids == 300).int()[None],
        image_grid_thw=torch.tensor([[1, 2 * h, 2 * w] for h, w in grids]),
    )
    ours = positions(ids, grids, TINY.image_token_id)
    assert torch.equal(ours[1:], theirs[:, 0]) and torch.equal(ours[0], torch.arange(len(ids)))
    with pytest.raises(ValueError, match="image tokens, but the grids"):
        positions(ids, grids[:2], TINY.image_token_id)
