"""What the method costs at inference (Table 3(e)): parameters, memory, FLOPs and latency, counted or measured here.

Counting needs no weights: the model is built on the meta device. Latency is a ratio of two decodings of one model, with
and without latent steps, taken in turn in one process; seconds depend on the machine, the ratio much less.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig
from transformers.cache_utils import DynamicCache

from models.backbone.model import Backbone
from models.backbone.tokens import SpecialTokens, add_tokens
from models.config import DecodeSpec, MeasureSpec
from models.latent.decoding import decode
from models.latent.prompt import Prompt
from models.loading import load
from models.methods.vreflection.modules import HEADS
from models.run import Interrupted, Run

FULL_SIZE: dict[str, Any] = {
    "text_config": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064, "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "tie_word_embeddings": False,
}  # fmt: skip
"""Qwen2.5-VL-7B-Instruct's config.json, as far as it decides sizes."""

RESAMPLERS = {name: HEADS[name] for name in ("bcm", "dac")}
"""What Table 3(e) counts."""
BOUNDARY = 2
"""Tokens that a latent segment adds beside its slots: `<|lvr_start|>` and `<|lvr_end|>`."""


@dataclass(frozen=True)
class Account:
    """Counts of one architecture, exact. Parameters: heads = BCM + DAC; language: the language model without lm_head."""

    parameters: int
    language: int
    heads: int
    heads_bf16_mib: float
    step_flops: int
    """One decoding step of the language model with its lm_head, at `context` tokens in the KV cache."""
    step_flops_with_heads: int
    """The same step of a model that carries BCM and DAC."""
    prefill_flops: int
    context: int


def account(config: Qwen2_5_VLConfig, latent_steps: int, context: int) -> Account:
    """Counted on the meta device: no weights, no memory."""
    with torch.device("meta"):
        plain, full = (Backbone(config, heads, latent_steps) for heads in ({}, RESAMPLERS))
    heads = sum(p.numel() for head in RESAMPLERS.values() for p in full.get_submodule(head.prefix).parameters())
    prefill, step = step_flops(plain, context)
    return Account(
        parameters=sum(p.numel() for p in plain.parameters()),
        language=sum(p.numel() for p in plain.model.language_model.parameters()),
        heads=heads,
        heads_bf16_mib=heads * 2 / 2**20,
        step_flops=step,
        step_flops_with_heads=step_flops(full, context)[1],
        prefill_flops=prefill,
        context=context,
    )


def step_flops(model: Backbone, context: int) -> tuple[int, int]:
    """(of reading `context` tokens, of one more with a KV cache), on whatever device the model is."""
    device, width = model.device, model.config.text_config.hidden_size
    cache = DynamicCache()

    def count(length: int, first: int) -> int:
        place = torch.arange(first, first + length, device=device).expand(4, 1, -1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            hidden = model.model.language_model(
                inputs_embeds=torch.empty(1, length, width, device=device, dtype=model.dtype),
                position_ids=place, past_key_values=cache, use_cache=True,
            ).last_hidden_state  # fmt: skip
            model.lm_head(hidden[:, -1:])
        return counter.get_total_flops()

    return count(context, 0), count(1, context)


@dataclass(frozen=True)
class Timing:
    """Seconds, one entry a repeat, baseline and latent taken in turn. answer: tokens of the answer, boundaries left out."""

    answer: int
    prompt: int
    prefill: tuple[float, ...]
    baseline: tuple[float, ...]
    latent: tuple[float, ...]


def measure(run: Run, spec: MeasureSpec, *, checkpoint: Path, attention: str = "sdpa") -> dict[str, Any]:
    """Count the 7B configuration and this checkpoint's, time this checkpoint's decoding; writes and returns measure.json.

    Every answer has exactly the number of tokens that is asked for: nothing ends it early. With latent steps, S forwards
    and the two boundary tokens come on top. attention: transformers' name of the language model's, of what is timed.
    """
    from transformers import AutoTokenizer

    torch.set_num_threads(run.threads)
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    model = load(
        checkpoint, heads=(), latent_steps=spec.latent_steps, dtype=dtype, attn_implementation=attention
    ).to(run.device)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    add_tokens(tokenizer)
    tokens = SpecialTokens.of(tokenizer)
    total = len(spec.prompts) * len(spec.answers)
    timings = []
    for number, (prompt, answer) in enumerate((p, a) for p in spec.prompts for a in spec.answers):
        if run.should_stop():
            raise Interrupted(f"{number} of {total} settings timed")
        timings.append(time_answers(model, tokens, spec, prompt, answer, run.device))
        run.log(number + 1, total)
    own = Qwen2_5_VLConfig.from_pretrained(checkpoint)
    found = {
        "full_size": asdict(account(Qwen2_5_VLConfig(**FULL_SIZE), spec.latent_steps, spec.context)),
        "checkpoint": asdict(account(own, spec.latent_steps, max(spec.prompts))),
        "latent_steps": spec.latent_steps,
        "timings": [asdict(timing) for timing in timings],
        "device": device_name(run.device),
        "threads": run.threads,
        "precision": spec.precision,
        "attention": attention,
    }
    (run.out / "measure.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def time_answers(
    model: Backbone, tokens: SpecialTokens, spec: MeasureSpec, prompt: int, answer: int, device: str
) -> Timing:
    """Repeats of: one token (prefill), the plain answer, the answer after a latent segment; one prompt, batch 1."""
    words = torch.randint(0, tokens.image, (prompt,), generator=torch.Generator().manual_seed(spec.seed))
    question = [Prompt(input_ids=words)]
    plain = DecodeSpec(latent_steps=0, max_new_tokens=answer)
    first = plain.model_copy(update={"max_new_tokens": 1})
    latent = DecodeSpec(latent_steps=spec.latent_steps, start="forced", max_new_tokens=answer + BOUNDARY)

    def seconds(decoding: DecodeSpec) -> float:
        _synchronise(device)
        began = time.perf_counter()
        with torch.inference_mode():
            (given,) = decode(model, question, decoding, tokens=tokens, eos=set())
        _synchronise(device)
        taken = time.perf_counter() - began
        assert given.latent_steps == (spec.latent_steps if decoding.start == "forced" else 0)
        return taken

    # Nothing ends an answer early, so a trained model would sooner or later open another segment.
    closed = model.lm_head.register_forward_hook(
        lambda module, inputs, logits: logits.index_fill(-1, torch.tensor([tokens.lvr_start], device=logits.device), -torch.inf)
    )
    try:
        for decoding in (first, plain, latent):
            seconds(decoding)
        rows = [(seconds(first), seconds(plain), seconds(latent)) for _ in range(spec.repeats)]
    finally:
        closed.remove()
    return Timing(answer, prompt, *map(tuple, zip(*rows)))


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """The processor's or the GPU's name, as its maker writes it."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
