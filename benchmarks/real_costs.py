"""Seconds, bytes and prefills of Qwen2.5-VL-7B on eight A800, by formula. `benchmarks.real_scale` prints them.

Each estimate says what it assumes and each row that misses its goal says so.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

from harness.spec.files import load_profile
from harness.spec.profile import Resources
from models.config import Images
from models.evaluation.engine import Question
from models.evaluation.prefills import Prefills, rooms
from models.latent.prefill import Prefill
from models.latent.prompt import Prompt
from models.training.cost import WRITE_BYTES_PER_SECOND, checkpoint_bytes
from models.training.trainer import SAVING_SHARE

RANKS, ACCUMULATION, SLOTS = 8, 8, 8
LAYERS, WIDTH, KEY_HEADS, HEAD_WIDTH = 28, 3584, 4, 128
LANGUAGE_MODEL, HEAD, ALL = 7.07e9, 545e6, 8.29e9
"""Parameters: the language model without lm_head, lm_head, everything."""
VISION_TOWER, PATCHES = 0.67e9, 4
"""Parameters, and patches to a merged token; it is frozen, so it only goes forward."""
BCM = 51_430_400
"""Parameters, as in Table 3(e)."""
PEAK_FLOPS, MEMORY_BYTES = 312e12, 2.0e12
"""Per second, of an A800 (its data sheet)."""
MFU, LINK_BYTES = 0.45, 200e9
"""Assumed: the share of the peak that is reached, and bytes per second and rank in a gather."""
SHARED, QUESTION = 4096, 90
"""Assumed tokens of an HR-Bench prompt: those that its four rotations share, and those of each."""

PICTURES, ROTATIONS, MODES = 200, 4, 4
"""Of HR-Bench, and the kinds of latents."""
RESIDENT = 8e9
"""Assumed: bytes of main memory that an evaluation takes before it keeps anything."""
TOGETHER = 16
"""Questions on different pictures that `LmmsModel` puts into a group."""


def step_seconds(tokens: float, typical: float, waste: float) -> float:
    """Of arithmetic: 2 FLOP a parameter and token forward, twice that backward, once more for recomputation; causal attention
    has 2 · length · width FLOP a token and layer forward (Narayanan et al. 2021, appendix). All tokens count as a picture's.

    tokens: of a step over all ranks. typical: length of the row that a token is in. waste: against a perfect spread.
    """
    forward = 2 * LANGUAGE_MODEL + 2 * LAYERS * WIDTH * typical
    return (4 * forward + 2 * VISION_TOWER * PATCHES) * tokens * waste / RANKS / (PEAK_FLOPS * MFU)


def slots_seconds() -> float:
    """A step's chunks of one column: bound by reading the weights, once forward, once recomputed, twice backward."""
    return ACCUMULATION * SLOTS * 4 * 2 * LANGUAGE_MODEL / MEMORY_BYTES


def gathers_seconds(times: float) -> float:
    """So many gathers of the trained parameters in bf16, or reductions of gradients as large."""
    return times * 2 * (LANGUAGE_MODEL + HEAD) * (RANKS - 1) / RANKS / LINK_BYTES


def evaluated(resources: Resources) -> list[int]:
    """Tokens that go through the layers before the first new one, in each of MODES evaluations of HR-Bench in one session."""
    counted: list[int] = []
    image, question = 1, 2
    text = SimpleNamespace(head_dim=HEAD_WIDTH, num_hidden_layers=LAYERS, num_key_value_heads=KEY_HEADS)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text), dtype=torch.bfloat16, device="meta")

    def reader(model: object, prompts: list[Prompt], forced: bool, tokens: object, begun: list = ()) -> Prefill:
        lengths = [len(prompt.input_ids) for prompt in prompts]
        counted[-1] += sum(lengths) - sum(len(prefix or ()) for prefix in begun)
        mask = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
        buffer = torch.empty(len(prompts), KEY_HEADS, max(lengths), HEAD_WIDTH, dtype=torch.bfloat16, device="meta")
        return Prefill(forced, mask, mask, mask, mask, LAYERS * [(buffer, buffer)])

    kept = Prefills(rooms(1e9 * resources.memory_gb, RESIDENT)[1], "meta", reader)
    ids = torch.tensor([image] * SHARED + [question] * QUESTION)
    asked = [
        Question(ids, (str(picture),), torch.tensor([[64, 64]]), list)
        for first in range(0, PICTURES, TOGETHER)
        for _ in range(ROTATIONS)
        for picture in range(first, min(PICTURES, first + TOGETHER))
    ]
    for _ in range(MODES):
        counted.append(0)
        for first in range(0, len(asked), resources.batch_size):
            batch = asked[first : first + resources.batch_size]
            tokens = SimpleNamespace(image=image, video=-1)
            kept.of(model, batch, [Prompt(one.input_ids) for one in batch], False, tokens, Images())
    return counted


def table(tokens: float, typical: float, before: float, ours: float) -> str:
    """before, ours: waste of padded micro-batches as they come, and as they are shared out by length."""
    zero3 = step_seconds(tokens, typical, before) + slots_seconds() + gathers_seconds(3 * ACCUMULATION * (SLOTS + 2))
    zero2 = step_seconds(tokens, typical, ours) + slots_seconds() + gathers_seconds(ACCUMULATION)
    size = checkpoint_bytes(int(LANGUAGE_MODEL + HEAD), int(ALL))
    apart = size / WRITE_BYTES_PER_SECOND / SAVING_SHARE / 60
    each = SHARED + QUESTION
    evaluation = load_profile("a800").value.resources["evaluate"]
    one, *rest = evaluated(evaluation)
    four = one + sum(rest)
    whole = PICTURES * ROTATIONS * each
    rows = [
        ("A step of stage 2, sequential rollout", f"{zero3:.0f} s (ZeRO-3, samples as they come)", f"{zero2:.0f} s (ZeRO-2)", "≤ 35 s",
         (f"a lower bound: {MFU:.0%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s and {LINK_BYTES / 1e9:.0f} GB/s between ranks are assumed; "
         f"ZeRO-3 gathers {SLOTS + 2} chunks three times; the optimiser, launches of kernels and reading of pictures are left out")),
        ("A checkpoint of stage 1", f"{size / 1e9:.0f} GB after 20 s", f"{size / 1e9:.0f} GB, at least {apart:.0f} min apart", "by time and cost",
         f"`models.training.cost`, at an assumed {WRITE_BYTES_PER_SECOND / 1e9:.0f} GB/s until one is written"),
        ("The teacher of stage 2, on each rank", f"{2 * ALL / 1e9:.1f} GB (a whole model)", f"{2 * BCM / 1e9:.2f} GB", "its BCM alone", "bf16"),
        ("HR-Bench: pictures encoded", f"{PICTURES * ROTATIONS}", f"{PICTURES}", f"{PICTURES}", "features are kept by the picture's content"),
        ("HR-Bench, 4 rotations of a picture: tokens prefilled", f"{ROTATIONS * each:,}", f"{one / PICTURES:,.0f}", f"{SHARED + ROTATIONS * QUESTION:,}",
         f"counted with `models.evaluation.prefills`, batches of {evaluation.batch_size}; {SHARED:,} shared tokens and {QUESTION} of each question are assumed"),
        (f"HR-Bench, {MODES} kinds of latents of one checkpoint: tokens prefilled", f"{MODES * whole / 1e6:.1f} million", f"{four / 1e6:.1f} million",
         f"{PICTURES * (SHARED + MODES * ROTATIONS * QUESTION) / 1e6:.1f} million",
         f"the same; {evaluation.memory_gb:g} GB, of which {RESIDENT / 1e9:g} are assumed to be in use before anything is kept"),
    ]  # fmt: skip
    lines = ["| What | The usual way | Here | Goal | How |", "| :-- | --: | --: | --: | :-- |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
