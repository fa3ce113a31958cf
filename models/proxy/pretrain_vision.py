"""Phase A: the vision tower and merger alone learn to say, per merged token, what is there.

Dense heads on every merged token: object or not, colour, shape, fill, marker, plate level, row, column, background
colour. The heads are thrown away afterwards but for their class directions, which become the first values of the
matching words' embeddings (see `word_directions`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.proxy import scenes as world
from models.proxy.architecture import HIDDEN, see
from models.proxy.scenes import COLORS, DENSE, EASY, FILLS, GRAY_LEVELS, MARKERS, SHAPES, USUAL, Marker, Scene
from models.proxy.splits import draw, stream

MAX_CELLS = 12
CLASSES = {
    "color": len(COLORS), "shape": len(SHAPES), "fill": len(FILLS), "marker": len(MARKERS),
    "level": len(GRAY_LEVELS), "row": MAX_CELLS, "col": MAX_CELLS, "kind": 3,
}
"""Number of classes per head; kind: 0 background, 1 object, 2 marker."""
_IGNORE = -100
_CROP = replace(EASY, side_px=64, items=(1, 5))


def _sample(seed: int, step: int, index: int) -> Scene:
    rng = stream("pretrain", seed, 1, step, index)
    style = (USUAL, EASY, DENSE, USUAL, _CROP)[step % 5]

    def make() -> Scene:
        scene = world.sample_scene(rng, replace(style, marker_probability=0.0))
        free = [c for c in range(style.cells**2) if (c // style.cells, c % style.cells) not in {(i.row, i.col) for i in scene.items}]
        picked = rng.choice(free, 3, replace=False)
        markers = tuple(
            Marker(MARKERS[int(rng.integers(len(MARKERS)))], int(rng.integers(len(GRAY_LEVELS))), int(c) // style.cells, int(c) % style.cells)
            for c in picked
        )
        return replace(scene, markers=markers)

    return draw("pretrain", make, lambda s: [s.content()])


def labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Per-token class labels [n, tokens] by head, -100 where a head has nothing to say, and "background" [n, tokens, 3]."""
    cells = scenes[0].side_px // world.CELL_PX
    out = {name: np.full((len(scenes), cells, cells), _IGNORE, dtype=np.int64) for name in CLASSES}
    out["kind"][:] = 0
    out["row"][:] = np.arange(cells)[:, None]
    out["col"][:] = np.arange(cells)[None, :]
    back = np.empty((len(scenes), cells, cells, 3), dtype=np.float32)
    for k, scene in enumerate(scenes):
        for i in scene.items:
            out["kind"][k, i.row, i.col] = 1
            for name, words in world.ATTRIBUTES.items():
                out[name][k, i.row, i.col] = words.index(i.get(name))
        for m in scene.markers:
            out["kind"][k, m.row, m.col] = 2
            out["marker"][k, m.row, m.col] = MARKERS.index(m.letter)
            out["level"][k, m.row, m.col] = m.level
        smooth = world.background(scene).reshape(cells, world.CELL_PX, cells, world.CELL_PX, 3).mean((1, 3))
        back[k] = (smooth - 128) / 20
    result = {name: torch.from_numpy(v.reshape(len(scenes), -1)) for name, v in out.items()}
    result["background"] = torch.from_numpy(back.reshape(len(scenes), -1, 3))
    return result


class Heads(nn.Module):
    """One linear classifier per label on merged tokens [n, tokens, HIDDEN], and a regression of the background."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.ModuleDict({name: nn.Linear(HIDDEN, count) for name, count in CLASSES.items()})
        self.background = nn.Linear(HIDDEN, 3)

    def forward(self, tokens: torch.Tensor, target: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and, per head, accuracy over the tokens that carry a label (mean absolute error for background)."""
        loss = F.smooth_l1_loss(self.background(tokens).float(), target["background"])
        scores = {"background_error": float((self.background(tokens).detach().float() - target["background"]).abs().mean())}
        for name, head in self.classify.items():
            logits, y = head(tokens).float().flatten(0, 1), target[name].flatten()
            known = y != _IGNORE
            if known.any():
                loss = loss + F.cross_entropy(logits, y, ignore_index=_IGNORE) * (0.3 if name in ("row", "col") else 1.0)
                scores[name] = float((logits.argmax(-1)[known] == y[known]).float().mean())
        return loss, scores


def word_directions(heads: Heads) -> dict[str, torch.Tensor]:
    """Unit directions [HIDDEN] in merged-token space, by word: colours, shapes, fills and marker letters."""
    words = {"color": COLORS, "shape": SHAPES, "fill": FILLS, "marker": MARKERS}
    return {
        word: F.normalize(row, dim=0)
        for name, vocabulary in words.items()
        for word, row in zip(vocabulary, heads.classify[name].weight.detach().float(), strict=True)
    }


def train(
    model: nn.Module, heads: Heads, *, seed: int, steps: int, batch: int, lr: float, log: Callable[[dict], None],
) -> None:
    """Train tower, merger and heads in place; `log` gets one record per 25 steps."""
    tower = model.model.visual
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    started = time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        pictured = [_sample(seed, step, k) for k in range(batch * 2 if step % 5 == 4 else batch // 2 if step % 5 == 2 else batch)]
        pictures = np.stack([world.render(s) for s in pictured])
        with torch.autocast("cpu", torch.bfloat16):
            loss, scores = heads(see(model, pictures), labels(pictured))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            elapsed = time.time() - started
            log({"phase": "vision", "step": step, "loss": float(loss.detach()), **scores, "seconds": elapsed,
                 "seconds_left": elapsed / (step + 1) * (steps - step - 1)})
