"""The `transformers.Trainer` subclass: losses summed exactly over a step, resumable checkpoints, metrics logged periodically.

transformers does the loop, mixed precision, gradient accumulation, distribution and DeepSpeed. This class knows how a
`Collated` batch becomes a loss, what a checkpoint holds, and when to stop. It knows nothing of data files or recipes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from models.backbone.model import Backbone
from models.latent.diagnostics import mechanism
from models.latent.terms import StageOutput
from models.methods.stage import StageSpec
from models.run import Interrupted, Run
from models.training.collate import Collated
from models.training.cost import WRITE_BYTES_PER_SECOND, checkpoint_bytes
from models.training.order import Order, noise
from models.training.substitutes import allowed, too_many

COMPLETE = "COMPLETE"
WEIGHTS = "trainable.safetensors"
REPLACED = "replaced.json"
LOG_SECONDS = 2.0
CHECKPOINT_SECONDS = 20.0
"""Minimum time between two checkpoints."""
SAVING_SHARE = 0.05
"""Upper limit on the share of time spent writing checkpoints, including the first: slow checkpoints are written rarely.
The newest complete one is kept; the one before it goes as soon as it is there, so a disk has to hold two."""



class NotFinite(FloatingPointError):
    """A loss or gradient is NaN or infinite; the message names the step and the samples."""


class StageTrainer(Trainer):
    """Trains the parameters of `model` that require gradients, for one stage.

    loader: this rank's micro-batches over the whole run, from step 0. checkpoint_seconds: minimum time between
    checkpoints (see `SAVING_SHARE`). Raises `Interrupted` after a stop request, `NotFinite` for a broken loss, OSError
    (ENOSPC) where a stop is asked for and the disk has no room for a checkpoint.
    """

    def __init__(
        self,
        model: Backbone,
        args: TrainingArguments,
        *,
        run: Run,
        stage: StageSpec,
        latent_steps: int,
        order: Order,
        loader: DataLoader,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        super().__init__(model=model, args=args)
        self.run, self.stage, self.latent_steps, self.order, self.loader = run, stage, latent_steps, order, loader
        self.method = stage.method(latent_steps)
        self.summed = ("loss", "ce", *stage.means, *stage.counts)
        """Metrics logged from a forward pass."""
        self.loss_is_scaled_for_ga = True  # `num_items` and the like count the whole step
        if self.is_deepspeed_enabled:  # what accelerate would set it to, with a warning about a mismatch
            self.accelerator.gradient_accumulation_steps = args.gradient_accumulation_steps
        self.remove_callback(PrinterCallback)
        self.add_callback(_Watch(self, checkpoint_seconds))
        self.micro = 0
        self.sums: dict[str, Tensor] = {}
        self.seen_ids: list[str] = []
        self.tokens = 0
        self.gradient_norm = 0.0
        self.want_numbers = True
        """Whether this step's numbers are logged."""
        self.mechanism: dict[str, float] = {}
        self.replaced: list[dict[str, Any]] = []
        """{"step", "id", "by", "why"} of samples that could not be read, over all ranks."""

    # Data

    def get_train_dataloader(self) -> DataLoader:
        return self.loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Tensor]:
        """One step's micro-batches, and [supervised tokens, boxes, slots] of the step over all ranks."""
        batches: list[Collated] = [next(epoch_iterator) for _ in range(num_batches)]
        totals = torch.tensor(
            [[b.supervised, len(b.batch.boxes), b.batch.slots, len(b.replaced)] for b in batches], device=device
        ).sum(0)
        if self.order.world > 1:
            dist.all_reduce(totals)
        self.micro = 0
        self.seen_ids = [name for b in batches for name in b.ids]
        if totals[0] == 0:
            raise ValueError(
                f"step {self.state.global_step}: no supervised token in samples {', '.join(self.seen_ids)}"
            )
        if totals[3]:
            self._note([name for b in batches for name in b.replaced])
        self.tokens += sum(b.tokens for b in batches)
        return batches, totals[:3]

    def _note(self, replaced: list[dict[str, str]]) -> None:
        """Keep, on every rank, what any rank replaced in this step. Raises DataError when it is too much."""
        parts = [replaced]
        if self.order.world > 1:
            parts = [[] for _ in range(self.order.world)]
            dist.all_gather_object(parts, replaced)
        for one in (name for part in parts for name in part):
            self.replaced.append({"step": self.state.global_step} | one)
            if self.order.rank == 0:
                print(f"step {self.state.global_step}: {one['by']} instead of {one['id']}: {one['why']}", flush=True)
        if len(self.replaced) > allowed(drawn := self.order.steps * self.order.global_batch):
            raise too_many(len(self.replaced), drawn, self.replaced[-1]["why"])

    def _prepare_inputs(self, inputs: Collated) -> Collated:
        inputs.batch = inputs.batch.to(self.args.device)
        return inputs

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    # Loss

    def compute_loss(self, model: nn.Module, inputs: Collated, return_outputs: bool = False, num_items_in_batch=None):
        step = self.state.global_step
        out: StageOutput = model(
            batch=inputs.batch,
            stage=self.stage,
            latent_steps=self.latent_steps,
            indicator=self.method.indicator(self.order, step, self.micro),
            generator=noise(self.order, step, self.micro),
            num_items=num_items_in_batch[0],
            num_boxes=num_items_in_batch[1].clamp(min=1),
            num_slots=num_items_in_batch[2].clamp(min=1),
        )
        self.micro += 1
        if not torch.isfinite(out.loss):
            parts = ", ".join(f"{name} {out.parts[name].item():g}" for name in ("ce", *self.stage.means) if name in out.parts)
            raise NotFinite(f"step {step}: loss is {out.loss.item():g} ({parts}); samples {', '.join(inputs.ids)}")
        for name, value in (out.parts | {"loss": out.loss.detach()}).items():
            if name in self.summed:
                self.sums[name] = self.sums.get(name, 0.0) + value.float()
        if self.want_numbers and self.micro == 1:
            self.mechanism = mechanism(out)
        loss = out.loss * self.order.world  # ranks' gradients are averaged, their losses add up
        loss = loss * getattr(self.stage, "gradient_scale", 1.0)
        return (loss, out) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.gradient_norm = float(norm) if norm is not None else 0.0
        if not math.isfinite(self.gradient_norm):
            samples = ", ".join(self.seen_ids)
            raise NotFinite(
                f"step {self.state.global_step}: gradient norm is {self.gradient_norm:g}; samples {samples}"
            )
        return norm

    # Optimiser

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; norms and biases are not decayed unless `decay_norms`."""
        if self.optimizer is None:
            options = self.stage
            decayed, plain = parameter_groups(self.model, options.decay_norms)
            groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
            self.optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]], lr=options.lr, betas=options.adam_betas, eps=1e-8
            )
        return self.optimizer

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trainable parameters, as they are; the rest comes from the stage's start. DeepSpeed's engine saves its own."""
        if self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            if not self.is_deepspeed_enabled:
                save_file(trainable(self.model), Path(output_dir) / WEIGHTS)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The one before goes only once this one is on the disk. One that cannot be written to its end is removed: the half of
        it would keep a full disk full."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            self._write_checkpoint(folder, model, trial)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _write_checkpoint(self, folder: Path, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.order.world > 1:
            dist.barrier()
        if self.args.should_save:
            (folder / REPLACED).write_text(json.dumps(self.replaced))
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    _sync(file)
            (folder / COMPLETE).write_text(f"{self.state.global_step}\n")
            _sync(folder / COMPLETE)
            _sync(folder)
            for other in folder.parent.glob("checkpoint-*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
            self.run.saved()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        held, own = load_file(Path(resume_from_checkpoint) / WEIGHTS), trainable(self.model)
        if held.keys() != own.keys():
            other = sorted(held.keys() ^ own.keys())
            raise ValueError(f"{resume_from_checkpoint}: trainable parameters differ: {', '.join(other[:5])}")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(held[name])

    def train(self, *args: Any, **kwargs: Any):
        if (kept := self.run.resume_from) and (kept / REPLACED).is_file():
            self.replaced = json.loads((kept / REPLACED).read_text())
        result = super().train(*args, **kwargs)
        if self.state.global_step < self.order.steps:
            raise Interrupted(
                f"stopped after step {self.state.global_step} of {self.order.steps}; a checkpoint is written"
            )
        return result


class _Watch(TrainerCallback):
    """Logs, saves and stops by the clock; where ranks' clocks differ, the first decides for all."""

    def __init__(self, trainer: StageTrainer, checkpoint_seconds: float) -> None:
        self.trainer, self.checkpoint_seconds = trainer, checkpoint_seconds
        self.logged = self.saved = self.began_saving = time.monotonic()
        # Before DeepSpeed shards the parameters, and with them their counts.
        every = list(trainer.model.parameters())
        held = sum(p.numel() for p in every) if trainer.is_deepspeed_enabled else 0
        itemsize = 4 if trainer.stage.precision == "fp32" else 2
        self.bytes = checkpoint_bytes(sum(p.numel() for p in every if p.requires_grad), held, itemsize)
        self.saving = self.bytes / WRITE_BYTES_PER_SECOND
        self.logged_step = 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.logged = self.saved = time.monotonic()
        self.logged_step = state.global_step
        self.trainer.want_numbers = True

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_log = control.should_evaluate = False
        if self.trainer.want_numbers:
            self._log(state)
        now = time.monotonic()
        last = state.global_step + 1 >= state.max_steps
        wait = max(self.checkpoint_seconds, self.saving / SAVING_SHARE)
        stop, save, self.trainer.want_numbers = self._agreed(
            self.trainer.run.should_stop(), now - self.saved >= wait, last or now - self.logged >= LOG_SECONDS
        )
        if state.global_step < state.max_steps:
            if stop or save:
                (full,) = self._agreed(state.is_world_process_zero and self._no_room(stop))
                if full and stop:
                    raise OSError(errno.ENOSPC, f"stopped without a checkpoint: {self._need()}", str(self.folder))
                control.should_save, self.began_saving = not full, now
                self.saved = now  # a full disk is not checked again at every step
            control.should_training_stop |= stop

    def on_save(self, args, state, control, **kwargs) -> None:
        self.saved = time.monotonic()
        self.saving = self.saved - self.began_saving

    @property
    def folder(self) -> Path:
        return Path(self.trainer.args.output_dir)

    def _need(self) -> str:
        return f"it needs {self.bytes / 1e9:.3g} GB, and the disk has {_free(self.folder) / 1e9:.3g} GB free"

    def _no_room(self, stop: bool) -> bool:
        full = _free(self.folder) < self.bytes
        if full and not stop:
            print(f"{self.folder}: no checkpoint now: {self._need()}; training goes on", file=sys.stderr, flush=True)
        return full

    def _agreed(self, *flags: bool) -> list[bool]:
        """True if it is true on any rank."""
        if self.trainer.order.world == 1:
            return list(flags)
        shared = torch.tensor(flags, dtype=torch.int, device=self.trainer.args.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in shared]

    def _log(self, state) -> None:
        trainer, now = self.trainer, time.monotonic()
        steps = max(state.global_step - self.logged_step, 1)
        device = trainer.args.device
        sums = torch.tensor([float(trainer.sums.get(name, 0.0)) for name in trainer.summed], dtype=torch.float64)
        sums = torch.stack([sums, torch.tensor([float(name in trainer.sums) for name in trainer.summed])]).to(device)
        tokens = torch.tensor(float(trainer.tokens), device=device)
        if trainer.order.world > 1:
            dist.all_reduce(sums)
            dist.all_reduce(tokens)
        values = {name: total / steps for name, total, ranks in zip(trainer.summed, *sums.tolist(), strict=True) if ranks}
        values |= {
            **({"replaced": len(trainer.replaced)} if trainer.replaced else {}),
            "lr": trainer._get_learning_rate(),
            "grad_norm": trainer.gradient_norm,
            "tokens_per_second": tokens.item() / max(now - self.logged, 1e-9),
            "seconds_per_step": (now - self.logged) / steps,
            **trainer.mechanism,
        }
        if state.is_world_process_zero:
            trainer.run.log(state.global_step, state.max_steps, **values)
        trainer.sums, trainer.tokens = {}, 0
        self.logged, self.logged_step = now, state.global_step


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that require gradients, by name; tied parameters are listed once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def parameter_groups(model: nn.Module, decay_norms: bool) -> tuple[list[Tensor], list[Tensor]]:
    """(with weight decay, without weight decay): norm weights and all biases are in the second, unless `decay_norms`."""
    norms = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    }
    decayed, plain = [], []
    for name, parameter in trainable(model).items():
        skip = not decay_norms and (name in norms or name.split(".")[-1].endswith("bias"))
        (plain if skip else decayed).append(parameter)
    return decayed, plain


def _free(folder: Path) -> int:
    """Free bytes on the disk of the nearest folder that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
