"""A checkpoint that was trained elsewhere, as the outcome of one of our stages: does it fit, and the folder it becomes.

Read as it comes: a transformers folder, or bare weights (one file or shards, safetensors or `pytorch_model*.bin`, as
DeepSpeed's `zero_to_fp32.py` leaves them) that take config, tokenizer and processor from the base model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2_5_VLConfig

from models.backbone import checkpoint
from models.backbone.model import Backbone
from models.backbone.tokens import ADDED, add_tokens
from models.backbone.untrusted import Unfit, check_files, check_values, inside, read_json
from models.config import TrainSpec
from models.loading import every_head
from models.methods.stage import opens_segments

PICKLED = "pytorch_model"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
             "merges.txt", "chat_template.jinja", "chat_template.json")  # fmt: skip
PROCESSOR = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
SAME = {
    "text_config": ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    "vision_config": ("depth", "hidden_size", "intermediate_size", "num_heads", "patch_size", "spatial_merge_size"),
}  # fmt: skip
"""What must equal the base model's: two sizes of Qwen2.5-VL are not one result."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Fitting:
    """A checkpoint folder that was looked through. weights: its files; borrowed: the base's files that it lacks."""

    folder: Path
    weights: tuple[Path, ...]
    borrowed: tuple[Path, ...]
    spec: TrainSpec
    tensors: int

    def digest(self) -> str:
        """sha256 over names and contents of the weight files."""
        total = hashlib.sha256()
        for file in self.weights:
            with file.open("rb") as content:
                total.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def fit(folder: Path, spec: TrainSpec, base: Path | None) -> Fitting:
    """Compare a checkpoint's names and shapes with what the stage would leave; writes nothing. Raises Unfit.

    base: the base model's folder, where it is here: for missing files, and to compare sizes with.
    """
    if not folder.is_dir():
        raise Unfit(f"{folder}: no such folder; give a checkpoint folder")
    check_files(folder)
    weights = weight_files(folder)
    borrowed = _borrowed(folder, base)
    config = _config(folder if (folder / "config.json").is_file() else base)
    if base is not None:
        _same_size(folder, config, _config(base))
    held = {}
    for file in weights:
        if twice := sorted(held.keys() & (found := shapes(file)).keys()):
            raise Unfit(f"{file}: {twice[0]} stands in another file of {folder} too")
        held |= found
    _compare(folder, held, config, spec)
    _recorded(folder, spec)
    _tokens(folder, base, config, spec)
    for file in weights:
        check_values(file)
    return Fitting(folder, weights, borrowed, spec, len(held))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights; an index decides, where there is one."""
    for pattern in ("model*.safetensors", f"{PICKLED}*.bin"):
        files = sorted(folder.glob(pattern))
        index = next(iter(sorted(folder.glob(f"{pattern.split('*')[0]}{pattern.split('*')[1]}.index.json"))), None)
        if index is not None:
            placed = read_json(index).get("weight_map")
            named = sorted({str(name) for name in placed.values()}) if isinstance(placed, dict) else []
            files = inside(folder, index, named)
        if files:
            return tuple(files)
    deepspeed = next(folder.glob("*/*_model_states.pt"), None) or next(folder.glob("*_model_states.pt"), None)
    if deepspeed is not None:
        raise Unfit(
            f"{folder}: holds DeepSpeed shards; make weights of them first: python zero_to_fp32.py {folder} OUT "
            "--safe_serialization, then adopt OUT"
        )
    raise Unfit(f"{folder}: no model*.safetensors and no {PICKLED}*.bin; give the folder that holds the weights")


def shapes(file: Path) -> Shapes:
    """Name → shape, without reading the values."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as held:
                names = held.keys()
                return {name: tuple(held.get_slice(name).get_shape()) for name in names}
        loaded = torch.load(file, map_location="meta", weights_only=True)
        return {name: tuple(value.shape) for name, value in loaded.items()}
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, AttributeError) as error:
        raise Unfit(f"{file}: not readable as weights ({str(error).splitlines()[0]}); fetch it again") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise Unfit(f"{file}: holds more than weights, and so is not opened; save it as safetensors") from None


def todays_name(key: str) -> str:
    """A key under the names that transformers uses now; the authors' heads keep theirs."""
    for old, new in checkpoint.OLD_NAMES.items():
        renamed, count = re.subn(old, new, key)
        if count:
            return renamed
    return key


def copy(fitting: Fitting, out: Path, facts: Mapping[str, Any]) -> None:
    """Write the checkpoint to `out` as our stages do: weights as safetensors, config, tokenizer, processor, vreflection.json.

    facts: the provenance; it stands in vreflection.json under `adopted`.
    """
    if fitting.weights[0].suffix == ".safetensors":
        for file in (*fitting.weights, *fitting.folder.glob("model.safetensors.index.json")):
            shutil.copyfile(file, out / file.name)
    else:
        _as_safetensors(fitting.weights, out)
    own = [file for file in fitting.folder.iterdir() if file.name in (*TOKENIZER, *PROCESSOR, "config.json", "generation_config.json")]
    for file in (*own, *fitting.borrowed):
        shutil.copyfile(file, out / file.name)
    config = json.loads((out / "config.json").read_text())
    config["architectures"] = ["Qwen2_5_VLForConditionalGeneration"]
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(out)
    if add_tokens(tokenizer):
        tokenizer.save_pretrained(out)
    spec, stage = fitting.spec, fitting.spec.stage
    recorded = checkpoint.facts(fitting.folder) or {
        "stage": stage.kind, "latent_steps": spec.latent_steps, "seed": spec.seed, "steps": stage.steps,
        "region": getattr(stage, "region", None), "roi_bins": getattr(stage, "roi_bins", None),
        "heads": sorted(stage.method(spec.latent_steps or 1).modules()), "spec": spec.model_dump(mode="json"),
    }  # fmt: skip
    text = json.dumps({**recorded, "adopted": dict(facts)}, indent=2, sort_keys=True, ensure_ascii=False)
    (out / checkpoint.FACTS).write_text(text + "\n")


def _as_safetensors(files: tuple[Path, ...], out: Path) -> None:
    """One safetensors file for each pickled one, and an index if there are several."""
    placed: dict[str, str] = {}
    size = 0
    for number, file in enumerate(files, start=1):
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        held = {key: value.contiguous().clone() for key, value in loaded.items()}
        save_file(held, out / name, metadata={"format": "pt"})
        placed |= dict.fromkeys(held, name)
        size += sum(value.nbytes for value in held.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": placed}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _borrowed(folder: Path, base: Path | None) -> tuple[Path, ...]:
    """The base's files for what the folder lacks: config, tokenizer, processor."""
    found: list[Path] = []
    for what, names in (("config.json", ("config.json", "generation_config.json")), ("tokenizer", TOKENIZER), ("processor", PROCESSOR)):
        if any((folder / name).is_file() for name in names):
            continue
        there = [base / name for name in names if (base / name).is_file()] if base is not None else []
        if not there:
            raise Unfit(f"{folder}: has no {what}; name a folder that has it: --base DIR")
        found += there
    return tuple(found)


def _config(folder: Path) -> Qwen2_5_VLConfig:
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "qwen2_5_vl":
        raise Unfit(f"{folder / 'config.json'}: model_type is {kind}; only qwen2_5_vl checkpoints can be adopted")
    try:
        return Qwen2_5_VLConfig.from_pretrained(folder)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise Unfit(f"{folder / 'config.json'}: is no sound configuration ({' '.join(str(error).split())})") from None


def _same_size(folder: Path, config: Qwen2_5_VLConfig, base: Qwen2_5_VLConfig) -> None:
    for part, names in SAME.items():
        for name in names:
            ours, theirs = (getattr(getattr(c, part), name, None) for c in (config, base))
            if ours != theirs:
                raise Unfit(
                    f"{folder / 'config.json'}: {part}.{name} is {ours}, the base model's is {theirs}; adopt it under the "
                    "profile whose backbone it was trained from"
                )


def _compare(folder: Path, held: Shapes, config: Qwen2_5_VLConfig, spec: TrainSpec) -> None:
    """Raises Unfit naming the first keys that do not fit the model that the stage leaves."""
    method = spec.stage.method(spec.latent_steps)
    heads = {name: method.heads[name] for name in method.heads if name in method.modules()}
    with torch.device("meta"):
        model = Backbone(config, heads=heads, latent_steps=spec.latent_steps)
    want = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings or getattr(config.text_config, "tie_word_embeddings", False):
        want.pop("lm_head.weight", None)
        held = {key: shape for key, shape in held.items() if key != "lm_head.weight"}
    found = {todays_name(key): shape for key, shape in held.items()}
    used = {head.prefix for head in heads.values()}
    spare = tuple(f"{head.prefix}." for head in every_head().values() if head.prefix not in used)
    wrong = [
        f"{key} has shape {found[key]}, expected {want[key]}" for key in want if key in found and found[key] != want[key]
    ]
    wrong += [f"{key} is missing" for key in sorted(want.keys() - found.keys())]
    wrong += [f"{key} is unexpected" for key in sorted(found.keys() - want.keys()) if not key.startswith(spare)]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise Unfit(f"{folder}: does not fit {spec.stage.kind} with S = {spec.latent_steps}: {'; '.join(wrong[:3])}{more}")


def _recorded(folder: Path, spec: TrainSpec) -> None:
    """A checkpoint of ours says what it is."""
    said = checkpoint.facts(folder)
    wanted = {"stage": spec.stage.kind, "latent_steps": spec.latent_steps, "seed": spec.seed}
    for name, value in wanted.items():
        if name in said and said[name] != value:
            raise Unfit(f"{folder / checkpoint.FACTS}: {name} is {said[name]}, the job's is {value}; name its own row and seed")


def _tokens(folder: Path, base: Path | None, config: Qwen2_5_VLConfig, spec: TrainSpec) -> None:
    own = any((folder / name).is_file() for name in TOKENIZER)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder if own else base)
    except (OSError, ValueError) as error:
        raise Unfit(f"{folder if own else base}: its tokenizer cannot be read ({str(error).splitlines()[0]})") from None
    lacking = [token for token in ADDED if token not in tokenizer.get_vocab()]
    if lacking and own and opens_segments(spec.stage):
        raise Unfit(f"{folder}: its tokenizer lacks {', '.join(lacking)}: it was not trained with latent tokens")
    add_tokens(tokenizer)
    if len(tokenizer) > config.text_config.vocab_size:
        raise Unfit(f"{folder}: the embedding has {config.text_config.vocab_size} rows, the tokenizer {len(tokenizer)} tokens")
