"""Phases T and B: the decoder learns lookups from text alone, then questions about pictures on a frozen vision tower.

Both phases run on one or several processes that average their gradients; every process draws its own data. Pictures'
tokens are computed once per scene and kept in a ring, so a scene serves several rows with new questions each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.proxy import curriculum, language
from models.proxy.architecture import HIDDEN, see
from models.proxy.curriculum import Stage
from models.proxy.rows import Batch, Tokens, collate
from models.proxy.scenes import Scene, render
from models.proxy.splits import stream

INIT_STD = 0.06
PHASE_STREAM = {"text": 2, "language": 3, "answers": 4}
"""Each phase's number in the random streams."""
Log = Callable[[dict], None]


def ramp(progress: float, start: float, end: float, first: float, last: float) -> float:
    """`first` until `start`, then straight to `last` at `end`, and `last` after it."""
    return float(np.interp(progress, (start, end), (first, last)))


@dataclass(frozen=True)
class Course:
    """How a phase's mixture moves with its progress (0..1); each entry is (start, end, first, last) of a ramp."""

    easy: tuple[float, float, float, float]
    """Share of scenes with few objects."""
    open_ended: tuple[float, float, float, float]
    """Share of answers without options: these must be right before letters can be learned."""
    slots: tuple[float, float, float, float]
    """Share of turns with latent slots."""
    scaffold: tuple[float, float, float, float]
    """Weight of the scaffold's losses."""

    def stage(self, progress: float) -> Stage:
        """The mixture at a moment."""
        return Stage(*(ramp(progress, *r) for r in (self.easy, self.open_ended, self.slots)))


@dataclass(frozen=True)
class Plan:
    """One phase's budget. `batch` is rows per process and step."""

    name: str
    steps: int
    batch: int
    lr: float
    warmup: int = 100
    end_lr: float = 0.05
    """Last learning rate as a share of `lr`, reached by a cosine."""
    ring: int = 768
    """Scenes kept with their tokens, per process."""
    fresh: int = 6
    """New scenes per step and process."""
    dense_every: int = 6
    """Every how many steps a batch of 192-px pictures is read."""
    stop: int | None = None
    """Steps actually run, where a phase ends before its schedule does."""
    text_share: float = 0.0
    """Share of steps that are text lookups, falling to a third of it."""
    course: Course | None = None
    """None: the text phase."""


def initialise(model: nn.Module, tokens: Tokens, directions: dict[str, torch.Tensor], seed: int) -> None:
    """Give the decoder its first values: a wider normal than transformers' default, residual outputs scaled down, words
    at the directions that phase A's heads found for them, and merged tokens scaled to unit RMS (the scale of BCM's
    output, so that latent slots hold nothing of unfamiliar size)."""
    generator = torch.Generator().manual_seed(seed)
    decoder = model.model.language_model
    with torch.no_grad():
        for name, p in decoder.named_parameters():
            if p.ndim == 2:
                scale = INIT_STD / math.sqrt(2 * len(decoder.layers)) if name.endswith(("o_proj.weight", "down_proj.weight")) else INIT_STD
                p.normal_(0, scale, generator=generator)
            elif name.endswith("bias"):
                p.zero_()
        model.lm_head.weight.normal_(0, 0.02, generator=generator)
        for word, direction in directions.items():
            ids = tokens.encode(" " + word)
            if len(ids) == 1 and word != "?":
                decoder.embed_tokens.weight[ids[0]] = direction * INIT_STD * math.sqrt(HIDDEN)


def unit_vision(model: nn.Module, pictures: np.ndarray) -> float:
    """Scale the merger's last layer so that these pictures' merged tokens have RMS 1; returns the factor."""
    with torch.no_grad():
        factor = 1 / float(see(model, pictures).pow(2).mean().sqrt())
        last = model.model.visual.merger.mlp[-1]
        last.weight.mul_(factor)
        last.bias.mul_(factor)
    return factor


class Ring:
    """Scenes with their merged tokens (bf16); the oldest is replaced."""

    def __init__(self, model: nn.Module, capacity: int) -> None:
        self.model, self.capacity = model, capacity
        self.scenes: list[Scene] = []
        self.seen: list[torch.Tensor] = []
        self._at = 0

    def add(self, scenes: list[Scene]) -> None:
        """Draw, see and keep scenes of one size."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            seen = see(self.model, np.stack([render(s) for s in scenes])).bfloat16()
        for scene, tokens in zip(scenes, seen, strict=True):
            if len(self.scenes) < self.capacity:
                self.scenes.append(scene)
                self.seen.append(tokens.clone())
            else:
                self.scenes[self._at], self.seen[self._at] = scene, tokens.clone()
                self._at = (self._at + 1) % self.capacity

    def draw(self, rng: np.random.Generator, count: int) -> tuple[list[Scene], torch.Tensor]:
        """Random scenes and their tokens [count, tokens, D]."""
        picked = rng.choice(len(self.scenes), count, replace=len(self.scenes) < count)
        return [self.scenes[k] for k in picked], torch.stack([self.seen[k] for k in picked])


class Feed:
    """Batches of one phase for one process."""

    def __init__(self, model: nn.Module, tokens: Tokens, plan: Plan, seed: int, rank: int, first_step: int) -> None:
        self.tokens, self.plan = tokens, plan
        self.rng = stream("pretrain", seed, PHASE_STREAM[plan.name], rank, first_step)
        self.rings = {False: Ring(model, plan.ring), True: Ring(model, plan.ring // 4)}

    def next(self, step: int) -> tuple[Batch, torch.Tensor | None]:
        """The step's batch and its pictures' tokens."""
        plan, rng, progress = self.plan, self.rng, step / self.plan.steps
        if plan.name == "text" or rng.random() < plan.text_share * (1 - progress * 2 / 3):
            plain = plan.name == "text" and progress < 0.6
            rows = [curriculum.text_row(self.tokens, rng, hard=not plain) for _ in range(plan.batch * (1 if plan.name == "text" else 4))]
            return collate(rows), None
        assert plan.course is not None
        stage = plan.course.stage(progress)
        dense = step % plan.dense_every == plan.dense_every - 1 and progress > 0.25
        ring = self.rings[dense]
        count = plan.fresh if len(ring.scenes) >= plan.batch * 2 else plan.batch * 4
        ring.add([curriculum.scene_for(rng, curriculum.style_for(rng, stage, dense)) for _ in range(count)])
        scenes, seen = ring.draw(rng, max(plan.batch // 2, 1) if dense else plan.batch)
        return collate([curriculum.picture_row(self.tokens, rng, s, stage) for s in scenes]), seen


def _average(parameters: list[nn.Parameter], world: int) -> None:
    flat = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in parameters])
    torch.distributed.all_reduce(flat)
    flat /= world
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


def train(
    model: nn.Module, tokens: Tokens, plan: Plan, *, seed: int, rank: int, world: int, checkpoint: Path, log: Log,
    examine: Callable[[int], dict] | None = None, examine_every: int = 200, save_every: int = 100,
    scaffold_state: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Run a phase from its checkpoint if there is one; process 0 writes the checkpoint and the log. Returns the scaffold's
    state, for the next phase.

    `examine(step)` is called on process 0 and its result logged.
    """
    for p in model.model.visual.parameters():
        p.requires_grad_(False)
    torch.manual_seed(seed)
    scaffold = language.Scaffold()
    if scaffold_state is not None:
        scaffold.load_state_dict(scaffold_state)
    parameters = [*model.model.language_model.parameters(), *model.lm_head.parameters(), *scaffold.parameters()]
    matrices = [p for p in parameters if p.ndim == 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.02}, {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}],
        lr=plan.lr, betas=(0.9, 0.98),
    )
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        scaffold.load_state_dict(state["scaffold"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    feed = Feed(model, tokens, plan, seed, rank, first)
    one = tokens.tokenizer.convert_tokens_to_ids
    never = torch.tensor([one(t) for t in ("<|lvr_start|>", "<|lvr|>", "<|lvr_latent_end|>", "<|image_pad|>", "<|video_pad|>", "<|vision_pad|>")])
    started, sums = time.time(), {"answer": 0.0, "look": 0.0, "read": 0.0, "hop": 0.0, "say": 0.0, "pick": 0.0, "right": 0.0, "answers": 0, "tokens": 0, "looked": 0, "text_right": 0, "text_answers": 0}
    last = plan.stop or plan.steps
    for step in range(first, last):
        rate = min(1.0, (step + 1) / plan.warmup) * (plan.end_lr + (1 - plan.end_lr) * 0.5 * (1 + math.cos(math.pi * step / plan.steps)))
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * rate
        batch, pictures = feed.next(step)
        with torch.autocast("cpu", torch.bfloat16):
            result = language.step(model, batch, pictures, never, scaffold)
            held = result.look_loss + result.read_loss + result.hop_loss + result.say_loss + result.pick_loss
            loss = result.answer_loss + (ramp(step / plan.steps, *plan.course.scaffold) if plan.course else 0.0) * held
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if world > 1:
            _average(parameters, world)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        sums["answer"] += float(result.answer_loss.detach())
        sums["looked"] += int(pictures is not None)
        for name in ("look", "read", "hop", "say", "pick"):
            sums[name] += float(getattr(result, f"{name}_loss").detach())
        kind = "" if pictures is not None else "text_"
        sums[kind + "right"] += int(result.answers_right.sum())
        sums[kind + "answers"] += len(result.answers_right)
        sums["tokens"] += batch.prefix.numel() + batch.turns.numel()
        if rank == 0 and ((step + 1) % 25 == 0 or step + 1 == last):
            elapsed, done = time.time() - started, step + 1 - first
            log({
                "phase": plan.name, "step": step + 1, "loss": sums["answer"] / 25, **{f"{name}_loss": sums[name] / max(sums["looked"], 1) for name in ("look", "read", "hop")}, "say_loss": sums["say"] / 25, "pick_loss": sums["pick"] / 25,
                "train_accuracy": sums["right"] / max(sums["answers"], 1),
                "text_accuracy": sums["text_right"] / sums["text_answers"] if sums["text_answers"] else None, "lr": plan.lr * rate,
                "tokens_per_second": world * sums["tokens"] / (time.time() - sums.get("since", started)),
                "seconds": elapsed, "seconds_left": elapsed / done * (last - step - 1),
            })
            sums = dict.fromkeys(sums, 0) | {"since": time.time()}
        if rank == 0 and (step + 1) % save_every == 0:
            fresh = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "scaffold": scaffold.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, fresh)
            fresh.replace(checkpoint)
        if rank == 0 and examine is not None and (step + 1) % examine_every == 0:
            log({"phase": plan.name, "step": step + 1, **examine(step + 1)})
    return scaffold.state_dict()


__all__ = ["Feed", "Plan", "initialise", "train", "unit_vision"]
