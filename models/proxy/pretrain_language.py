"""Phases T and B: the decoder learns lookups from text alone, then questions about pictures on a frozen vision tower.

All phases run on one or several processes that average their gradients; every process draws its own data. Pictures'
tokens are computed once per scene and kept in a ring, so a scene serves several rows with new questions each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.proxy import benchmarks, clip_rows, curriculum, language
from models.proxy.architecture import HIDDEN, see, see_clips
from models.proxy.clips import Asked
from models.proxy.curriculum import Stage
from models.proxy.rows import Batch, Tokens, collate
from models.proxy.scenes import Scene, render
from models.proxy.splits import stream

INIT_STD = 0.06
WRITE_WEIGHT = 1.0
NEVER_TAUGHT = ("<|lvr_start|>", "<|lvr|>", "<|lvr_latent_end|>", "<|image_pad|>", "<|video_pad|>", "<|vision_pad|>")
"""Tokens left out of the softmax, so that the base is not taught against them."""
PHASE_STREAM = {"text": 2, "language": 3, "answers": 4, "places": 5, "slots": 6, "kinds": 7, "clips": 8}
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
    parts: tuple[tuple[str, float], ...] = tuple((name, 0.0) for name in language.PARTS)
    """The scaffold's parts in use, each with the progress from which it counts."""

    shares: tuple[tuple[str, float], ...] = curriculum.FAMILY_SHARES
    """Shares of the question families."""
    blind: float = 0.0
    """Share of rows whose picture shows another scene, so that only the slots can be read."""
    written: float = 0.0
    """Share of an attribute question's latent segments that are written (see `curriculum.Stage`)."""
    puzzles: float = 0.0
    """Share of steps that are batches of one puzzle."""
    jigsaws: float = 0.5
    """Share of jigsaws among the puzzles."""
    fixed_order: float = 0.0
    """Share of relations that are asked as BLINK asks them."""
    own: float = 0.0
    """Share of steps in which written segments hold the model's own states, from half of the phase on."""

    clips: float = 0.0
    """Share of steps that are questions about clips."""

    def stage(self, progress: float) -> Stage:
        """The mixture at a moment."""
        ramps = (ramp(progress, *r) for r in (self.easy, self.open_ended, self.slots))
        return Stage(*ramps, shares=self.shares, blind=self.blind, written=self.written, fixed_order=self.fixed_order)

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each part of the scaffold at a moment; parts not in use are left out."""
        weight = ramp(progress, *self.scaffold)
        return {name: weight for name, start in self.parts if progress >= start}


@dataclass(frozen=True)
class Plan:
    """One phase's budget. `batch`, `ring` and `fresh` are of all processes together."""

    name: str
    steps: int
    batch: int
    """Rows per step."""
    lr: float
    warmup: int = 100
    end_lr: float = 0.05
    """Last learning rate as a share of `lr`, reached by a cosine."""
    ring: int = 768
    """Scenes kept with their tokens."""
    fresh: int = 6
    """New scenes per step."""
    dense_every: int = 6
    """Every how many steps a batch of 192-px pictures is read."""
    stop: int | None = None
    """Steps actually run, where a phase ends before its schedule does."""
    text_share: float = 0.0
    """Share of steps that are text lookups, falling to a third of it."""
    course: Course | None = None
    """None: the text phase."""

    def among(self, processes: int) -> Plan:
        """One process's part. ValueError where the rows cannot be shared equally."""
        if self.batch % processes:
            raise ValueError(f"{self.batch} rows of phase {self.name} cannot be shared among {processes} processes")
        shared = {name: max(getattr(self, name) // processes, 1) for name in ("batch", "ring", "fresh")}
        return replace(self, **shared)

    def rate(self, step: int) -> float:
        """Learning rate of a step as a share of `lr`: linear warm-up, cosine to `end_lr`."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / self.warmup) * (self.end_lr + (1 - self.end_lr) * cosine)


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


def _look_at(model: nn.Module, things: Sequence[Scene | Asked]) -> torch.Tensor:
    if isinstance(things[0], Asked):
        return see_clips(model, np.stack([clip_rows.frames_of(asked.clip) for asked in things]))
    return see(model, np.stack([render(scene) for scene in things]))


class Ring:
    """Scenes, or questions about clips, with their merged tokens (bf16); the oldest is replaced."""

    def __init__(self, model: nn.Module, capacity: int) -> None:
        self.model, self.capacity = model, capacity
        self.scenes: list[Any] = []
        self.seen: list[torch.Tensor] = []
        self._at = 0

    def add(self, scenes: Sequence[Scene | Asked]) -> None:
        """Draw, see and keep scenes or clips of one size."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            seen = _look_at(self.model, scenes).bfloat16()
        for scene, tokens in zip(scenes, seen, strict=True):
            if len(self.scenes) < self.capacity:
                self.scenes.append(scene)
                self.seen.append(tokens.clone())
            else:
                self.scenes[self._at], self.seen[self._at] = scene, tokens.clone()
                self._at = (self._at + 1) % self.capacity

    def draw(self, rng: np.random.Generator, count: int) -> tuple[list[Any], torch.Tensor]:
        """Random scenes or clips and their tokens [count, tokens, D]."""
        picked = rng.choice(len(self.scenes), count, replace=len(self.scenes) < count)
        return [self.scenes[k] for k in picked], torch.stack([self.seen[k] for k in picked])


class Feed:
    """Batches of one phase for one process."""

    def __init__(self, model: nn.Module, tokens: Tokens, plan: Plan, seed: int, rank: int, first_step: int) -> None:
        self.tokens, self.plan = tokens, plan
        self.rng = stream("pretrain", seed, PHASE_STREAM[plan.name], rank, first_step)
        self.rings = {False: Ring(model, plan.ring), True: Ring(model, plan.ring // 4)}
        self.clips = Ring(model, plan.ring)

    def next(self, step: int) -> tuple[Batch, torch.Tensor | None, torch.Tensor | None]:
        """The step's batch, the merged tokens of its scenes, and those of the pictures that are shown."""
        plan, rng, progress = self.plan, self.rng, step / self.plan.steps
        if plan.name == "text" or rng.random() < plan.text_share * (1 - progress * 2 / 3):
            plain = plan.name == "text" and progress < 0.6
            rows = [curriculum.text_row(self.tokens, rng, hard=not plain) for _ in range(plan.batch * (1 if plan.name == "text" else 4))]
            return collate(rows), None, None
        assert plan.course is not None
        stage = plan.course.stage(progress)
        if plan.course.clips and rng.random() < plan.course.clips:
            return self._clips(stage)
        if rng.random() < plan.course.puzzles:
            return self._puzzles()
        dense = step % plan.dense_every == plan.dense_every - 1 and progress > 0.25
        ring = self.rings[dense]
        count = plan.fresh if len(ring.scenes) >= plan.batch * 2 else plan.batch * 4
        ring.add([curriculum.scene_for(rng, curriculum.style_for(rng, stage, dense)) for _ in range(count)])
        scenes, seen = ring.draw(rng, max(plan.batch // 2, 1) if dense else plan.batch)
        rows = [curriculum.picture_row(self.tokens, rng, s, stage) for s in scenes]
        blind = torch.tensor([row.blind for row in rows])
        return collate(rows), seen, torch.where(blind[:, None, None], seen.roll(1, 0), seen)

    def _clips(self, stage: Stage) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        count = self.plan.fresh if len(self.clips.scenes) >= self.plan.batch * 2 else self.plan.batch * 4
        families = [benchmarks.choose(self.rng, clip_rows.SHARES) for _ in range(count)]
        self.clips.add([clip_rows.draw_asked("pretrain", self.rng, family) for family in families])
        asked, seen = self.clips.draw(self.rng, self.plan.batch)
        return collate([clip_rows.clip_row(self.tokens, self.rng, one, stage) for one in asked]), seen, seen

    def _puzzles(self) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        assert self.plan.course is not None
        name = "jigsaw" if self.rng.random() < self.plan.course.jigsaws else "pattern"
        made = [curriculum.puzzle_row(self.tokens, self.rng, name) for _ in range(2 * self.plan.batch)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            seen = torch.cat([see(self.rings[False].model, np.stack(each)) for each in zip(*(p for _, p in made), strict=True)], 1)
        return collate([row for row, _ in made]), seen.bfloat16(), seen.bfloat16()


def _average(parameters: list[nn.Parameter], world: int) -> None:
    flat = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in parameters])
    torch.distributed.all_reduce(flat)
    flat /= world
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


class Tally:
    """Sums over the steps since the last record."""

    def __init__(self) -> None:
        self.since = time.time()
        self.steps = self.pictured = self.tokens = 0
        self.answer_loss = self.write = 0.0
        self.parts = dict.fromkeys(language.PARTS, 0.0)
        self.right = {"train": [0, 0], "text": [0, 0]}

    def add(self, batch: Batch, result: language.Step) -> None:
        """Count one step."""
        pictured = batch.picture_at is not None
        self.steps += 1
        self.pictured += pictured
        self.tokens += batch.prefix.numel() + batch.turns.numel()
        self.answer_loss += float(result.answer_loss.detach())
        self.write += float(result.write.detach())
        for name, loss in result.scaffold.items():
            self.parts[name] += float(loss.detach()) * pictured
        kind = self.right["train" if pictured else "text"]
        kind[0] += int(result.answers_right.sum())
        kind[1] += len(result.answers_right)

    def record(self, world: int) -> dict[str, float | None]:
        """Means: losses in nats per turn (the scaffold's over steps with pictures), shares of right answers, speed."""
        return {
            "loss": self.answer_loss / self.steps,
            "write_loss": self.write / self.steps,
            **{f"{name}_loss": total / max(self.pictured, 1) for name, total in self.parts.items()},
            **{f"{kind}_accuracy": right / n if n else None for kind, (right, n) in self.right.items()},
            "tokens_per_second": world * self.tokens / (time.time() - self.since),
        }


def train(
    model: nn.Module, tokens: Tokens, plan: Plan, *, seed: int, rank: int, world: int, checkpoint: Path, log: Log,
    examine: Callable[[], dict] | None = None, examine_every: int = 200, save_every: int = 100,
    scaffold_state: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Run a phase from its checkpoint if there is one; process 0 writes the checkpoint and the log. Returns the scaffold's
    state, for the next phase.

    `examine()` is called on process 0 and its result logged.
    """
    for p in model.model.visual.parameters():
        p.requires_grad_(False)
    torch.manual_seed(seed)
    scaffold = language.Scaffold()
    if scaffold_state is not None:
        scaffold.load_state_dict(scaffold_state)
    parameters = [*model.model.language_model.parameters(), *model.lm_head.parameters(), *scaffold.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.ndim == 2], "weight_decay": 0.02},
         {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}],
        lr=plan.lr, betas=(0.9, 0.98),
    )
    first, last = 0, plan.stop or plan.steps
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        scaffold.load_state_dict(state["scaffold"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    feed = Feed(model, tokens, plan, seed, rank, first)
    taught = {"<|lvr_start|>"} if plan.course is not None and plan.course.written else set()
    never = torch.tensor([tokens.tokenizer.convert_tokens_to_ids(t) for t in NEVER_TAUGHT if t not in taught])
    started, tally = time.time(), Tally()
    for step in range(first, last):
        rate = plan.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * rate
        batch, pictures, shown = feed.next(step)
        own = plan.course is not None and step * 2 >= plan.steps and feed.rng.random() < plan.course.own
        weights = plan.course.weights(step / plan.steps) if plan.course else {}
        with torch.autocast("cpu", torch.bfloat16):
            result = language.step(model, batch, pictures, never, scaffold, shown=shown, own=own)
            loss = result.answer_loss + WRITE_WEIGHT * result.write + sum(weight * result.scaffold[name] for name, weight in weights.items())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if world > 1:
            _average(parameters, world)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        tally.add(batch, result)
        done = step + 1
        if rank == 0 and (done % 25 == 0 or done == last):
            elapsed = time.time() - started
            log({"phase": plan.name, "step": done, **tally.record(world), "lr": plan.lr * rate, "seconds": elapsed,
                 "seconds_left": elapsed / (done - first) * (last - done)})
            tally = Tally()
        if rank == 0 and done % save_every == 0:
            fresh = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "scaffold": scaffold.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, fresh)
            fresh.replace(checkpoint)
        if rank == 0 and examine is not None and done % examine_every == 0:
            log({"phase": plan.name, "step": done, **examine()})
    return scaffold.state_dict()
