"""The proxy's tokenizer and processor: Qwen2's byte-level BPE trained on this world's sentences, Qwen2.5-VL's specials.

Ids in order: BPE entries, Qwen2.5-VL's special tokens, the prompts' fixed sentences (one token each, so that a prompt
costs a few tokens), the four latent tokens. Any text can be encoded: all 256 bytes are entries.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.proxy import prompts, puzzles, questions
from models.proxy.architecture import IMAGE_MEAN, IMAGE_STD, MERGE, PATCH_PX, TEMPORAL, VOCABULARY
from models.proxy.scenes import ATTRIBUTES, EASY, USUAL, sample_scene

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>",
)
LATENT_TOKENS = ("<|lvr_start|>", "<|lvr|>", "<|lvr_latent_end|>", "<|lvr_end|>")
_BPE_ENTRIES = 940
_CORPUS_SCENES = 1500
_CORPUS_SEED = 1

CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}<|im_start|>system\n" + prompts.SYSTEM + "<|im_end|>\n{% endif %}"
    "{%- for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif 'text' in part %}{{ part['text'] }}"
    "{%- endif %}{%- endfor %}{%- endif %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sentence_tokens() -> list[str]:
    """Fixed sentences and markup that are one token each."""
    options = ["\n" + o for letter in prompts.LETTERS for o in (f"{letter}.", f"({letter})")]
    return [
        "<answer>", " </answer>", *options, *prompts.reminders(5), questions.REFLECTANCE, puzzles.PATTERN_TEXT, puzzles.JIGSAW_TEXT,
    ]


def corpus() -> list[str]:
    """What the BPE is trained on: questions and options of random scenes, and every word of the world after a space."""
    rng = np.random.default_rng(_CORPUS_SEED)
    lines = []
    for k in range(_CORPUS_SCENES):
        scene = sample_scene(rng, (EASY, USUAL)[k % 2])
        for family in (questions.CORE | questions.HELD_OUT).values():
            q = questions.ask(rng, scene, family)
            if q is not None:
                lines.append(" ".join([q.text, *q.options]))
    words = [w for values in ATTRIBUTES.values() for w in values]
    fixed = [
        *(" " + w for w in words), *(f" {letter}" for letter in prompts.LETTERS), *map(str, range(10)), prompts.SYSTEM,
        "system\n", "user\n", "assistant\n", *(" " + o for o in puzzles.PATTERN_OPTIONS + puzzles.JIGSAW_OPTIONS),
        "Which option says red?", "Which option is it?", *sentence_tokens(),
    ]
    return lines + fixed * 50


def _train_bpe():
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_BPE_ENTRIES, min_frequency=1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def build_tokenizer():
    """Train the tokenizer anew; the same bytes every time. Raises ValueError if it does not fit the embedding."""
    import json

    from tokenizers import AddedToken
    from transformers import Qwen2TokenizerFast

    model = json.loads(_train_bpe().to_str())["model"]
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Qwen2TokenizerFast(vocab=model["vocab"], merges=merges)
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS], special_tokens=True)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in sentence_tokens()])
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in LATENT_TOKENS], special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 4096
    if len(tokenizer) > VOCABULARY:
        raise ValueError(f"{len(tokenizer)} entries do not fit the embedding's {VOCABULARY} rows")
    return tokenizer


def build_processor():
    """Tokenizer, image and video processor as one Qwen2_5_VLProcessor.

    The torchvision-backed image processor is the one used throughout (`from_pretrained` chooses it by default); the
    PIL-backed one differs where it resizes. Pictures of 32 to 512 px a side that are multiples of 16 px are not resized.
    """
    from transformers import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    size = {"shortest_edge": 32 * 32, "longest_edge": 512 * 512}
    shared = dict(patch_size=PATCH_PX, merge_size=MERGE, temporal_patch_size=TEMPORAL, image_mean=list(IMAGE_MEAN), image_std=list(IMAGE_STD))
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **shared),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=size, **shared),
        chat_template=CHAT_TEMPLATE,
    )


def write_processor(out: Path) -> None:
    """Build and save tokenizer, processor and chat template in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    build_processor().save_pretrained(out)
