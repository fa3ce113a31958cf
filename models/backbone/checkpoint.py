"""Reading and writing checkpoints. The only place that knows key names of files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import Qwen2_5_VLConfig
from transformers.utils import cached_file, logging

from models.backbone.model import Backbone, Head

_GENERATION = "generation_config.json"
_MODEL_FILES = ("config.json", _GENERATION, "vreflection.json", "diagnostics.json")
OLD_NAMES = {
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual))": "model.language_model",
}
"""Key names before transformers 4.52 (the hub's Qwen2.5-VL-7B-Instruct) -> today's. transformers knows them by its own
class names only, so a subclass must bring them."""

FACTS = "vreflection.json"


def load(
    path: Path | str,
    *,
    heads: Mapping[str, Head],
    spare: Collection[str] = (),
    latent_steps: int,
    dtype: torch.dtype,
    attn_implementation: str = "sdpa",
    seed: int = 0,
    **options: Any,
) -> Backbone:
    """The model with `heads`, by our names, from a checkpoint folder or a hub name.

    A head that the files do not hold at all starts fresh under `seed` and is named in `model.fresh_heads`; keys under the
    prefixes `spare` are left out. Any other missing or unexpected key, and any other shape, is an error that names
    it. options: further arguments of `from_pretrained`, such as `revision` or `device_map`.
    """
    config = Qwen2_5_VLConfig.from_pretrained(path, **{k: v for k, v in options.items() if k == "revision"})
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        # Positional arguments reach our constructor alone; named ones would also end up in config or generation_config.
        model, found = Backbone.from_pretrained(
            path,
            dict(heads),
            latent_steps,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            key_mapping=OLD_NAMES,
            ignore_mismatched_sizes=True,  # reported below, by name and with both shapes
            output_loading_info=True,
            **options,
        )
    model.fresh_heads = _check(model, path, heads, spare, found)
    model.generation_text = _generation_text(path, options.get("revision"))
    return model.eval()


def save(
    model: Backbone, path: Path | str, facts: dict[str, Any], state_dict: dict[str, torch.Tensor] | None = None
) -> None:
    """Write config, weights (sharded if large) and vreflection.json (`facts`). Plain transformers opens the language model.

    generation_config.json is the one that the model was loaded with, word for word.
    state_dict: gathered weights, where the model's own are sharded over ranks.
    """
    path = Path(path)
    dtype = str(next(iter(state_dict.values())).dtype if state_dict else model.dtype).removeprefix("torch.")
    with _quiet():
        model.save_pretrained(path, state_dict=state_dict, save_original_format=False)
    if model.generation_text is not None:
        (path / _GENERATION).write_text(model.generation_text)
    written = json.loads((path / "config.json").read_text())
    written["architectures"] = ["Qwen2_5_VLForConditionalGeneration"]
    # The parts still say what the model was loaded as: float32, where a training kept master weights.
    for part in (written, written["text_config"], written["vision_config"]):
        part["dtype"] = dtype
    (path / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    (path / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def head_tensors(path: Path | str, prefix: str) -> dict[str, torch.Tensor]:
    """One head of a checkpoint folder, by parameter name, and nothing else of it; empty where the files hold none."""
    path, prefix = Path(path), f"{prefix}."
    index = path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"] if index.exists() else {}
    shards = {name for key, name in places.items() if key.startswith(prefix)} if places else {"model.safetensors"}
    found = {}
    for shard in sorted(shards):
        with safe_open(path / shard, framework="pt") as file:
            names = file.keys()
            found |= {name.removeprefix(prefix): file.get_tensor(name) for name in names if name.startswith(prefix)}
    return found


def reading_files(path: Path | str) -> list[Path]:
    """Files of a checkpoint that say how it reads texts and pictures: tokenizer, template, processor."""
    return [
        file
        for file in sorted(Path(path).iterdir())
        if file.suffix in (".json", ".txt", ".jinja", ".model")
        and file.name not in _MODEL_FILES
        and ".index." not in file.name
    ]


def facts(path: Path | str) -> dict[str, Any]:
    """What `save` wrote beside the weights; empty for a base checkpoint."""
    file = Path(path) / FACTS
    return json.loads(file.read_text()) if file.exists() else {}


def _generation_text(path: Path | str, revision: str | None) -> str | None:
    """What the checkpoint's own generation_config.json says, word for word."""
    file = cached_file(path, _GENERATION, revision=revision, _raise_exceptions_for_missing_entries=False)
    return Path(file).read_text() if file else None


def holds(folder: Path | str, prefix: str) -> bool:
    """Whether the weight files of a checkpoint folder hold a head under this prefix."""
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            keys = weights.keys()
        if any(key.startswith(f"{prefix}.") for key in keys):
            return True
    return False


def _check(
    model: Backbone, path: Path | str, heads: Mapping[str, Head], spare: Collection[str], found: dict[str, Any]
) -> frozenset[str]:
    """Names of fresh heads, or an error about the first keys that do not fit."""
    missing, unexpected = set(found["missing_keys"]), set(found["unexpected_keys"])
    fresh = set()
    for name, head in heads.items():
        own = {key for key, _ in model.named_parameters() if key.startswith(f"{head.prefix}.")}
        if own <= missing:
            fresh.add(name)
            missing -= own
    unexpected = {key for key in unexpected if not key.startswith(tuple(f"{prefix}." for prefix in spare))}
    wrong = [f"{key} has shape {tuple(held)}, expected {tuple(want)}" for key, held, want in found["mismatched_keys"]]
    wrong += [f"{key} is missing" for key in sorted(missing)] + [f"{key} is unexpected" for key in sorted(unexpected)]
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise ValueError(f"{path}: {'; '.join(wrong[:5])}{more}")
    return frozenset(fresh)


@contextmanager
def _quiet():
    """transformers prints a table of missing keys; ours are reported by `_check`."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
