"""One stage from start to finish: read, load, train, save, measure."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer, TrainingArguments

from models.backbone import checkpoint as checkpoints
from models.backbone.images import load_image_processor, stored_dtype
from models.backbone.model import Backbone
from models.backbone.samples import apart as told_apart
from models.backbone.tokens import add_tokens
from models.config import TrainSpec
from models.latent.batch import Batch
from models.loading import load
from models.methods.base import Method
from models.methods.stage import Cut, Features
from models.run import Run
from models.training.collate import Cached, Collator, Extra, rough_length
from models.training.data import Samples, read_samples
from models.training.features import FeatureStore
from models.training.lengths import rough_lengths
from models.training.order import MicroBatches, Order
from models.training.pixels import Live, Pixels
from models.training.probe import probe
from models.training.substitutes import FAILURES, Substituting
from models.training.trainer import CHECKPOINT_SECONDS, StageTrainer, trainable

PROBE_SAMPLES = 256
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def train(
    run: Run,
    spec: TrainSpec,
    *,
    inputs: Mapping[str, Path],
    micro_batch: int,
    deepspeed: dict[str, Any] | None = None,
    gradient_checkpointing: bool | None = None,
    attention: str = "sdpa",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> dict[str, Any]:
    """Train one stage and write a checkpoint folder to run.out; returns its diagnostics.

    inputs: the checkpoint `init` that training starts from, the `data`, and what the stage needs (`StageSpec.needs`), by role;
    features, folders of `cache_features`, only for spec.vision "cached". micro_batch: sequences per forward pass, on
    average where they are cut by length; what does not divide the rank's share of global_batch is an error that lists the choices. Under torchrun (RANK,
    WORLD_SIZE set) ranks share the global batch. gradient_checkpointing None: for large models on a GPU. attention: transformers' name of
    the language model's attention. The last samples of the data set (`held_out`) are never trained on: the diagnostics are of them,
    or of as many as the run trained on, if those are fewer.
    Raises `models.run.Interrupted` after a stop request, with a checkpoint in run.checkpoints.
    """
    stage = spec.stage
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(run.threads)
    init, method = Path(inputs["init"]), stage.method(spec.latent_steps)
    method.check()
    samples = read_samples(
        Path(inputs["data"]), report=run.out if rank == 0 else None, orientation=spec.images.orientation, clips=spec.clips
    )
    held = held_out(len(samples))
    pixels, extra = _pixels(spec, inputs), _extra(spec, method, inputs)
    order = Order(
        samples=len(samples) - held,
        lengths=_rough_lengths(samples, pixels, extra),
        share=_share(spec, pixels),
        steps=stage.steps,
        global_batch=stage.global_batch,
        micro_batch=max(1, min(micro_batch, stage.global_batch // world)),
        seed=spec.seed,
        rank=rank,
        world=world,
    )
    tokenizer = AutoTokenizer.from_pretrained(init)
    add_tokens(tokenizer)
    # Loaded before TrainingArguments exist: with ZeRO-3 they would shard the weights while they are read.
    model = load_model(
        spec, inputs, tokenizer, dtype=stored_dtype(init) if deepspeed else torch.float32,
        attention=attention,
    )
    args = _arguments(run, spec, order, deepspeed)
    caching = vars(model.config).get("use_cache")
    if gradient_checkpointing is None:
        gradient_checkpointing = run.device != "cpu" and model.config.text_config.hidden_size >= 2048
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    options = {
        "slots": stage.slots(spec.latent_steps),
        "max_tokens": spec.max_tokens,
        "slot_targets": stage.slot_targets,
        "end_marker": stage.marks_end,
        "write": method.writer(),
        "extra": extra,
    }
    apart = told_apart(model.model.language_model.config)
    workers = 0 if spec.vision == "cached" else max(0, min(8, run.threads - 1))
    loader = DataLoader(
        _Numbers(order.samples),
        batch_sampler=MicroBatches(order),
        collate_fn=Substituting(
            Collator(tokenizer, pixels, packing=spec.packing, short_rows=not apart, **options), samples, range(order.samples)
        ),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    trainer = StageTrainer(
        model, args, run=run, stage=stage, latent_steps=spec.latent_steps, order=order, loader=loader,
        checkpoint_seconds=checkpoint_seconds,
    )  # fmt: skip
    trained = sum(p.numel() for p in trainable(model).values())  # before they are sharded
    trainer.train(resume_from_checkpoint=str(run.resume_from) if run.resume_from else None)

    if caching is None:  # the Trainer sets it for training; it must not end up in config.json
        vars(model.config).pop("use_cache", None)
    else:
        model.config.use_cache = caching
    facts = {
        "stage": stage.kind, "latent_steps": spec.latent_steps, "seed": spec.seed, "steps": stage.steps,
        "region": getattr(stage, "region", None), "roi_bins": getattr(stage, "roi_bins", None),
        "heads": sorted(stage.method(spec.latent_steps or 1).modules()), "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    _save(trainer, model, tokenizer, init, run.out, facts, rank)
    padded = Substituting(
        Collator(tokenizer, pixels, packing="padded", **options), samples, range(order.samples, len(samples))
    )
    autocast = torch.bfloat16 if stage.precision == "bf16" else None
    looked_at = min(held, stage.steps * stage.global_batch)  # a few steps' training takes no longer to look at than to do
    batches = _probe_batches(range(order.samples, order.samples + looked_at), padded, order, args.device)
    probed = probe(model, stage, spec.latent_steps, batches, autocast=autocast)
    diagnostics = {
        "probe": probed,
        "probe_samples": looked_at,
        "training_samples": len(samples) - held,
        "rejected": samples.summary.rejected,
        "replaced": len(trainer.replaced),
        "trainable_parameters": trained,
    }
    if rank == 0:
        if trainer.replaced:
            (run.out / "replaced.jsonl").write_text("".join(json.dumps(one) + "\n" for one in trainer.replaced))
        (run.out / "diagnostics.json").write_text(json.dumps(diagnostics, indent=1) + "\n")
    return diagnostics


def held_out(samples: int) -> int:
    """How many samples at the end of a data set are kept for the diagnostics: 256, or a quarter of a small set."""
    return min(PROBE_SAMPLES, samples // 4)


def load_model(
    spec: TrainSpec, inputs: Mapping[str, Path], tokenizer: Any, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa"
) -> Backbone:
    """The model at the stage's start, with only the stage's parameters requiring gradients.

    The frozen vision tower keeps the dtype that it is stored in. Fresh heads are drawn from the spec's seed.
    """
    init, method = Path(inputs["init"]), spec.stage.method(spec.latent_steps)
    model = load(
        init, heads=method.modules(), latent_steps=spec.latent_steps, dtype=dtype, seed=spec.seed, attn_implementation=attention
    )
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(f"{init}: the embedding has {rows} rows, the tokenizer with latent tokens {len(tokenizer)}")
    method.begin(model, init, inputs)
    only_train(model, method)
    # Not `visual.to`: it would round the rotary frequencies, which are buffers.
    for parameter in model.model.visual.parameters():
        parameter.data = parameter.data.to(stored_dtype(init))
    return model


def only_train(model: Backbone, method: Method) -> None:
    """Let the stage's own parameters require gradients: the language model, and the heads that it trains."""
    model.requires_grad_(False)
    model.model.language_model.requires_grad_(True)
    model.lm_head.requires_grad_(True)
    for name in method.trainable():
        model.get_submodule(method.heads[name].prefix).requires_grad_(True)


def _arguments(run: Run, spec: TrainSpec, order: Order, deepspeed: dict[str, Any] | None) -> TrainingArguments:
    stage, cpu = spec.stage, run.device == "cpu"
    options: dict[str, Any] = {}
    if deepspeed is not None:
        options["deepspeed"] = deepspeed
        if cpu:
            _use_gloo()
            options["accelerator_config"] = {"use_configured_state": True}
    else:
        options["use_cpu"] = cpu
        if order.world > 1:
            options |= {"ddp_find_unused_parameters": True, "ddp_backend": "gloo" if cpu else "nccl"}
    return (_OnGloo if cpu and deepspeed is not None else TrainingArguments)(
        output_dir=str(run.checkpoints),
        max_steps=stage.steps,
        per_device_train_batch_size=order.micro_batch,
        gradient_accumulation_steps=order.accumulation,
        learning_rate=stage.lr,
        weight_decay=stage.weight_decay,
        adam_beta1=stage.adam_betas[0],
        adam_beta2=stage.adam_betas[1],
        lr_scheduler_type=_SCHEDULES[stage.schedule],
        warmup_steps=math.ceil(stage.warmup_ratio * stage.steps),
        max_grad_norm=stage.max_grad_norm,
        bf16=stage.precision == "bf16",
        seed=spec.seed,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        **options,
    )


class _OnGloo(TrainingArguments):
    """transformers allows bf16 without a GPU only with `use_cpu`, and with `use_cpu` no DeepSpeed."""

    def _validate_args(self) -> None:
        self.use_cpu = True
        super()._validate_args()
        self.use_cpu = False


def _use_gloo() -> None:
    """DeepSpeed on CPU: without this, transformers either ignores it or sees one rank."""
    from accelerate import PartialState

    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    import deepspeed.ops

    # A kernel for inference, compiled for a minute at first use; a rank killed meanwhile leaves a lock that hangs the next.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    PartialState(backend="gloo")


def _pixels(spec: TrainSpec, inputs: Mapping[str, Path]) -> Pixels:
    if spec.vision == "live":
        return Live(load_image_processor(inputs["init"], spec.images))
    return Cached(_store(inputs, "features", spec))


def _extra(spec: TrainSpec, method: Method, inputs: Mapping[str, Path]) -> dict[str, Extra]:
    """Inputs that the stage encodes besides the samples' pictures."""
    cuts = {need.role: need.cut for need in spec.stage.needs() if isinstance(need, Features) and need.cut is not None}
    found: dict[str, Extra] = {}
    for role, pieces in method.extra_pixels().items():
        if spec.vision == "live":
            pixels: Pixels = Live(pieces.processor(inputs["init"], spec.images), pieces)
        else:
            pixels = Cached(_store(inputs, role, spec, cuts[role]))
        found[role] = Extra(pieces, pixels)
    return found


def _store(inputs: Mapping[str, Path], role: str, spec: TrainSpec, cut: Cut | None = None) -> FeatureStore:
    if inputs.get(role) is None:
        of = "" if cut is None else f" of the {role}"
        raise ValueError(
            f"vision: cached needs a folder of features{of} as inputs[{role!r}]; compute them first (cache_features), or set vision: live"
        )
    store = FeatureStore(Path(inputs[role]))
    store.check(spec.images, None if cut is None else (role, cut), spec.clips if spec.stage.clips else None)
    return store


def _rough_lengths(samples: Samples, pixels: Pixels, extra: Mapping[str, Extra]) -> list[int] | None:
    """0 for a sample without features, which will be substituted."""
    if not isinstance(pixels, Cached):
        return rough_lengths(samples, pixels.processor)

    def length(number: int) -> int:
        try:
            return rough_length(samples[number], pixels, extra)
        except FAILURES:
            return 0

    return [length(number) for number in range(len(samples))]


def _share(spec: TrainSpec, pixels: Pixels) -> Literal["count", "tokens", "padded"]:
    """Cached features of pictures are of small ones: their micro-batches stay as many samples each. Rows that are not packed are padded
    in memory, whatever the attention's kernel leaves out."""
    if isinstance(pixels, Cached) and not spec.stage.clips:
        return "count"
    return "tokens" if spec.packing == "packed" else "padded"


class _Numbers(Dataset):
    """Sample numbers for a DataLoader; the collate function reads the samples."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def _probe_batches(
    numbers: range, collator: Substituting, order: Order, device: torch.device
) -> Iterator[tuple[int, Batch]]:
    """(place in `numbers` of its first sample, batch) of this rank's micro-batches of these samples, as large as training's. Every
    rank has as many, because sharded parameters are gathered in step: where they do not come out even, the first ones again."""
    firsts = range(0, len(numbers), order.micro_batch)
    for turn in range(0, len(firsts), order.world):
        first = firsts[(turn + order.rank) % len(firsts)]
        yield first, collator(numbers[first : first + order.micro_batch]).batch.to(device)


def _save(
    trainer: StageTrainer, model: Backbone, tokenizer: Any, init: Path, out: Path, facts: dict[str, Any], rank: int
) -> None:
    """Weights in the dtype that `init` is stored in, with its tokenizer and processor files."""
    dtype = stored_dtype(init)
    state = None
    if trainer.is_deepspeed_enabled:
        gathered = trainer.accelerator.get_state_dict(trainer.deepspeed)  # by all ranks together, for the first
        state = {} if rank else {name: value.to(dtype) for name, value in gathered.items()}
    else:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    if rank:
        return
    for file in checkpoints.reading_files(init):
        shutil.copyfile(file, out / file.name)
    checkpoints.save(model, out, facts, state)
    tokenizer.save_pretrained(out)
