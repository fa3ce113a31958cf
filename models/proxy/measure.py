"""Letter accuracy of a checkpoint, by the model's own greedy choice, without lmms-eval.

A right answer begins `<answer> X`. One forward over prompt and right answer tells whether greedy decoding would have
produced just that, so no decoding loop is needed. `quick` looks at families during pretraining; `measure` at whole
benchmarks, on exactly the questions that `mirrors` writes for the same split and seed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.proxy import benchmarks, clip_rows, clips, mirrors, prompts, questions
from models.proxy.architecture import HIDDEN, TEMPORAL, linear_patch_embedding, see, see_clips
from models.proxy.benchmarks import Asked
from models.proxy.questions import Question
from models.proxy.rows import Row, Tokens, Turn
from models.proxy.scenes import DENSE, USUAL
from models.proxy.splits import Role, stream

Prompt = Callable[[Question], str]
PARTIAL = (0.05, 0.90)
"""A family is answered in part if its accuracy lies between chance plus the first and the second."""


@torch.no_grad()
def answered_right(model: torch.nn.Module, tokens: Tokens, asked: list[Asked], prompt: Prompt = prompts.paper, batch: int = 32) -> list[bool]:
    """Per question: does greedy decoding begin with '<answer>' and the right letter?"""
    right: list[bool] = []
    for start in range(0, len(asked), batch):
        rows = []
        for a in asked[start : start + batch]:
            row = Row(tokens, cells=tuple(p.shape[0] // 16 for p in a.pictures))
            rows.append((row, row.turn(a.question, prompt(a.question), a.question.letter)))
        with torch.autocast("cpu", torch.bfloat16):
            by_size: dict[int, list[tuple[int, int]]] = defaultdict(list)
            for r, a in enumerate(asked[start : start + batch]):
                for k, p in enumerate(a.pictures):
                    by_size[p.shape[0]].append((r, k))
            found: dict[tuple[int, int], torch.Tensor] = {}
            for places in by_size.values():
                merged = see(model, np.stack([asked[start + r].pictures[k] for r, k in places]))
                found |= dict(zip(places, merged, strict=True))
            seen = torch.cat([found[key].float().reshape(-1, HIDDEN) for key in sorted(found)])
        right += _right(model, tokens, rows, seen)
    return right


@torch.no_grad()
def clips_right(
    model: torch.nn.Module, tokens: Tokens, asked: list[clips.Asked], prompt: Prompt = prompts.mmvp, batch: int = 32
) -> list[bool]:
    """The same of questions about clips of one size."""
    right: list[bool] = []
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        rows = []
        for one in some:
            row = Row(tokens, cells=(one.clip.scene.side_px // 16,), steps=one.clip.frames // TEMPORAL)
            rows.append((row, row.turn(replace(one.question, names=(), things=()), prompt(one.question), one.question.letter)))
        with torch.autocast("cpu", torch.bfloat16):
            seen = see_clips(model, np.stack([clip_rows.frames_of(one.clip) for one in some])).float()
        right += _right(model, tokens, rows, seen.reshape(-1, HIDDEN))
    return right


def _right(model: torch.nn.Module, tokens: Tokens, rows: list[tuple[Row, Turn]], seen: torch.Tensor) -> list[bool]:
    """seen: merged tokens [n, D] of what the rows show, in their order."""
    decoder = model.model.language_model
    ids = [r.prefix + t.ids for r, t in rows]
    length = max(map(len, ids))
    packed = torch.tensor([i + [tokens.pad] * (length - len(i)) for i in ids])
    positions = torch.stack([_positions(r, length) for r, _ in rows], dim=1)
    x = decoder.embed_tokens(packed).float()
    x[(packed == tokens.image) | (packed == tokens.video)] = seen
    right = []
    with torch.autocast("cpu", torch.bfloat16):
        hidden = decoder(inputs_embeds=x, position_ids=positions, use_cache=False).last_hidden_state
        for k, (row, turn) in enumerate(rows):
            at = len(row.prefix) + torch.tensor([turn.answer_at - 1, turn.answer_at])
            guess = model.lm_head(hidden[k, at]).argmax(-1)
            right.append(bool((guess == packed[k, at + 1]).all()))
    return right


def _positions(row: Row, length: int) -> torch.Tensor:
    """mRoPE positions [3, length] of a row's prefix and one turn after it."""
    rest = range(row.next_position, row.next_position + length - len(row.prefix))
    return torch.tensor([*row.positions, *((k, k, k) for k in rest)]).T


def quick(model: torch.nn.Module, tokens: Tokens, seed: int, each: int = 64) -> dict[str, float]:
    """Accuracy per family on `each` questions of the dev share, keys 'dev/<family>' and 'dev/dense_attribute'."""
    result = {}
    for number, name in enumerate([*questions.CORE, *questions.HELD_OUT, "dense_attribute"]):
        rng = stream("dev", seed, 99, number)
        style = DENSE if name == "dense_attribute" else benchmarks.MARKED if name == "reflectance" else USUAL
        asked = [benchmarks.ask_scene("dev", rng, "attribute" if name == "dense_attribute" else name, style) for _ in range(each)]
        result[f"dev/{name}"] = float(np.mean(answered_right(model, tokens, asked)))
    return result


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    z, p = 1.959964, right / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def questions_of(benchmark: str, role: Role, seed: int, n: int | None = None) -> list[tuple[str, Asked]]:
    """(subset, question) of a benchmark in the order of its mirror's rows; HR-Bench's option rotations included."""
    total = n or mirrors.DEFAULT_ROWS[benchmark]
    if benchmark == "mmvp":
        return [("pairs", a) for k in range(total // 2) for a in benchmarks.mmvp_pair(role, seed, k)]
    if benchmark == "blink":
        return [(s, benchmarks.blink_item(role, seed, s, k)) for s, c in benchmarks.blink_counts(total).items() for k in range(c)]
    if benchmark in ("hrbench4k", "hrbench8k"):
        return [
            (category, mirrors.rotated(asked, turn))
            for category, asked in (benchmarks.hrbench_item(role, seed, k, benchmark) for k in range(total // 4))
            for turn in range(4)
        ]
    if benchmark == "vstar":
        direct = round(total * 115 / 191)
        return [("direct" if k < direct else "relative", benchmarks.vstar_item(role, seed, k, k < direct)) for k in range(total)]
    if benchmark == "mmerealworld_lite":
        perception = round(total * 1169 / 1919)
        return [("perception" if k < perception else "reasoning", mirrors.with_none(benchmarks.mme_item(role, seed, k, k >= perception)))
                for k in range(total)]
    raise ValueError(f"unknown benchmark {benchmark!r}; known: {', '.join(benchmarks.BENCHMARKS)}")


def measure(model: torch.nn.Module, tokens: Tokens, benchmark: str, role: Role, seed: int, n: int | None = None,
            prompt: Prompt = prompts.paper) -> dict:
    """Accuracy, its 95 % interval and chance, the share of questions of families that are answered in part (PARTIAL), and
    accuracy per subset and per family, in percent."""
    items = questions_of(benchmark, role, seed, n)
    right = answered_right(model, tokens, [a for _, a in items], prompt)
    groups: dict[str, list[bool]] = defaultdict(list)
    for (subset, asked), r in zip(items, right, strict=True):
        groups[f"subset/{subset}"].append(r)
        groups[f"family/{asked.question.family}"].append(r)
    low, high = wilson(sum(right), len(right))
    chances: dict[str, list[float]] = defaultdict(list)
    for _, asked in items:
        chances[f"family/{asked.question.family}"].append(1 / len(asked.question.options))
    between = sum(len(c) for k, c in chances.items() if np.mean(c) + PARTIAL[0] <= np.mean(groups[k]) <= PARTIAL[1])
    return {
        "benchmark": benchmark, "split": role, "n": len(right), "accuracy": round(100 * float(np.mean(right)), 1),
        "low": round(100 * low, 1), "high": round(100 * high, 1), "chance": round(100 * float(np.mean([1 / len(a.question.options) for _, a in items])), 1),
        "partial": round(100 * between / len(items), 1),
        **{k: [round(100 * float(np.mean(v)), 1), len(v)] for k, v in sorted(groups.items())},
    }


def measure_clips(model: torch.nn.Module, tokens: Tokens, role: Role, *, shifted: bool, seed: int = 0, each: int = 100) -> dict:
    """Percent right on `each` questions of every family about clips, and of all."""
    result: dict = {"world": "shifted" if shifted else "clean", "split": role, "each": each}
    for number, family in enumerate(clips.FAMILIES):
        rng = stream(role, seed, 97, number)
        style = clips.SHIFTED if shifted else clips.STYLE
        asked = [clip_rows.draw_asked(role, rng, family, style) for _ in range(each)]
        result[family] = round(100 * float(np.mean(clips_right(model, tokens, asked))), 1)
    return result | {"mean": round(float(np.mean([result[family] for family in clips.FAMILIES])), 1)}


def load(folder: Path) -> tuple[torch.nn.Module, Tokens]:
    """A saved checkpoint in fp32, with the fast patch embedding."""
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    linear_patch_embedding(model)
    return model, Tokens(AutoTokenizer.from_pretrained(folder))


def main() -> None:
    """``python -m models.proxy.measure DIR --split dev``: one JSON line per benchmark, or with --clips per world of clips."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=None, help="rows per benchmark (default: the mirrors')")
    parser.add_argument("--benchmarks", nargs="+", default=list(benchmarks.BENCHMARKS), choices=list(benchmarks.BENCHMARKS))
    parser.add_argument("--protocol", choices=list(prompts.LETTER_PROMPTS), default="paper")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", action="store_true", help="questions about clips, by family, in the base's world and in the shifted one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokens = load(options.checkpoint)
    if options.clips:
        for shifted in (False, True):
            found = measure_clips(model, tokens, options.split, shifted=shifted, seed=options.seed, each=options.n or 100)
            print(json.dumps(found), flush=True)
        return
    for name in options.benchmarks:
        result = measure(model, tokens, name, options.split, options.seed, options.n, prompts.LETTER_PROMPTS[options.protocol])
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
