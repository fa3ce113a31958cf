"""What latent slots do to a checkpoint's answers: `python -m models.proxy.readable DIR`.

Questions of the development share in the fine-tuning world, by kind, each asked with the slots holding
    none      no segment at all
    own       the model's own states, as when it decodes
    zeroed    zeros
    shuffled  another question's own states
    evidence  the merged tokens under the question's box
    random    normal noise of the evidence's size
`blind` shows another scene's picture instead, so that only the slots can tell. `wrote` is how often the own state at the
first slot lies nearest (cosine) to the evidence's token among all tokens of the picture.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.proxy import benchmarks, measure, prompts
from models.proxy.architecture import HIDDEN, see
from models.proxy.benchmarks import Asked
from models.proxy.rows import Row, Slots, Tokens, cells_of
from models.proxy.scenes import SceneStyle
from models.proxy.splits import stream

MODES = ("none", "own", "zeroed", "shuffled", "evidence", "random")
KINDS = ("attribute", "extreme", "two_hop")
SLOTS = 8


class _Prompts:
    """Prompts of some questions with or without a segment, left of the answer: embeddings and positions, padded right."""

    def __init__(self, model: torch.nn.Module, tokens: Tokens, asked: Sequence[Asked], shown: torch.Tensor, slots: int) -> None:
        self.model, self.tokens, self.slots = model, tokens, slots
        self.rows = []
        for a in asked:
            row = Row(tokens, cells=(a.scenes[0].side_px // 16,))
            held = Slots(slots, (0,) * slots) if slots else None
            self.rows.append((row, row.turn(a.question, prompts.paper(a.question), a.question.letter, held)))
        ids = [row.prefix + turn.ids for row, turn in self.rows]
        length = max(map(len, ids))
        self.ids = torch.tensor([i + [tokens.pad] * (length - len(i)) for i in ids])
        self.positions = torch.stack([measure._positions(row, length) for row, _ in self.rows], 1)
        self.embeds = model.model.language_model.embed_tokens(self.ids).float()
        self.embeds[self.ids == tokens.image] = shown.reshape(-1, HIDDEN)
        self.first = torch.tensor([len(r.prefix) + t.fills[0][0] if slots else 0 for r, t in self.rows])
        self.answer = torch.tensor([len(r.prefix) + t.answer_at for r, t in self.rows])

    def hidden(self, embeds: torch.Tensor) -> torch.Tensor:
        return self.model.model.language_model(
            inputs_embeds=embeds, position_ids=self.positions, use_cache=False
        ).last_hidden_state.float()

    def filled(self, latents: torch.Tensor) -> torch.Tensor:
        """Embeddings with `latents` [n, S, D] in the slots."""
        embeds = self.embeds.clone()
        embeds[torch.arange(len(latents))[:, None], self.first[:, None] + torch.arange(self.slots)] = latents
        return embeds

    def own(self) -> torch.Tensor:
        """The model's own latents [n, S, D], slot by slot."""
        found = torch.zeros(len(self.rows), self.slots, HIDDEN)
        at = torch.arange(len(self.rows))
        for slot in range(self.slots):
            found[:, slot] = self.hidden(self.filled(found))[at, self.first + slot - 1]
        return found

    def right(self, embeds: torch.Tensor) -> torch.Tensor:
        """bool [n]: whether the right letter is the likeliest token after `<answer>`."""
        at = torch.arange(len(self.rows))
        guess = self.model.lm_head(self.hidden(embeds)[at, self.answer]).argmax(-1)
        return guess == self.ids[at, self.answer + 1]


@torch.no_grad()
def readable(
    model: torch.nn.Module, tokens: Tokens, asked: Sequence[Asked], *, slots: int = SLOTS, blind: bool = False, seed: int = 0,
    batch: int = 50,
) -> dict[str, float]:
    """Accuracy (0..1) under every one of MODES, and `wrote`. Questions of one picture size, one picture each."""
    right: dict[str, list[torch.Tensor]] = {mode: [] for mode in MODES}
    wrote = []
    noise = torch.Generator().manual_seed(seed)
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        side = some[0].scenes[0].side_px // 16
        merged = see(model, np.stack([a.pictures[0] for a in some])).float()
        shown = merged.roll(1, 0) if blind else merged
        cells = [cells_of(a.question.box, side) for a in some]
        evidence = torch.stack([m[[c[k * len(c) // slots] for k in range(slots)]] for m, c in zip(merged, cells, strict=True)])
        plain, held = (_Prompts(model, tokens, some, shown, count) for count in (0, slots))
        own = held.own()
        filling = {
            "own": own, "zeroed": torch.zeros_like(own), "shuffled": own.roll(1, 0), "evidence": evidence,
            "random": torch.randn(own.shape, generator=noise) * evidence.pow(2).mean().sqrt(),
        }
        right["none"].append(plain.right(plain.embeds))
        for mode, latents in filling.items():
            right[mode].append(held.right(held.filled(latents)))
        alike = torch.nn.functional.cosine_similarity(own[:, :1], merged, dim=-1).argmax(-1)
        wrote += [float(int(a) in c) for a, c in zip(alike, cells, strict=True)]
    return {mode: float(torch.cat(found).float().mean()) for mode, found in right.items()} | {"wrote": float(np.mean(wrote))}


def questions_of(kind: str, style: SceneStyle, count: int, seed: int = 0) -> list[Asked]:
    """Development questions of one family with four options, one scene each."""
    rng = stream("dev", seed, 98, list(KINDS).index(kind) if kind in KINDS else 90 + len(kind))
    return [benchmarks.ask_scene("dev", rng, kind, style) for _ in range(count)]


def table(model: torch.nn.Module, tokens: Tokens, *, clean: bool, n: int = 200) -> list[dict]:
    """What slots do to each of KINDS, with the own and with another picture, in percent."""
    style = benchmarks.CLEAN if clean else benchmarks.USUAL
    rows = []
    for kind in KINDS:
        asked = questions_of(kind, style, n)
        for blind in (False, True):
            found = readable(model, tokens, asked, blind=blind)
            rows.append({"world": "clean" if clean else "shifted", "kind": kind, "blind": blind, "n": n,
                         **{k: round(100 * v, 1) for k, v in found.items()}})  # fmt: skip
    return rows


def main() -> None:
    """One JSON line for each kind, shown and blind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clean", action="store_true", help="the base's own world instead of the fine-tuning one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokens = measure.load(options.checkpoint)
    for row in table(model, tokens, clean=options.clean, n=options.n):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
