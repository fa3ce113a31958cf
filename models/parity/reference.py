"""A folder of reference tensors: what it holds and which of it a check has read, and the tiny model that it is about."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from models import loading
from models.backbone.images import load_image_processor, patches_of
from models.backbone.model import Backbone
from models.backbone.template import positions
from models.backbone.tokens import SpecialTokens
from models.config import Images
from models.latent.prompt import Prompt

OUTPUT, GRADIENT = 1e-5, 1e-4
STRIDE = 16
"""Reduced data keep every 16th row of a gradient; their names end in `[::16]`."""
MANIFEST = "manifest.json"
HEAD_WIDTH = 32
"""Of the tiny language models: twice the sum of mrope_section."""

TINY = Qwen2_5_VLConfig(
    text_config={
        "vocab_size": 320, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None,
        "rms_norm_eps": 1e-6,  # as in Qwen2.5-VL's published config; the class's own default, 1e-5, is off by 1e-3
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
    },
    vision_config={
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
        "fullatt_block_indexes": [1], "out_hidden_size": 128,
    },
    image_token_id=300, video_token_id=301, vision_start_token_id=302, vision_end_token_id=303,
)  # fmt: skip
"""The tiny Qwen2.5-VL of all three formats."""


class Unknown(ValueError):
    """The folder is not what it should be; the message is one line and says what is missing."""


@dataclass(frozen=True)
class Check:
    """One compared thing. difference: maximum relative difference, or the number of unequal items if tolerance is 0."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # NaN fails


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Maximum difference over the largest value of `theirs`; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    scale = theirs.abs().max()
    return ((ours - theirs).abs().max() / (scale if scale > 0 else 1)).item()


def unequal(ours: Tensor, theirs: Tensor) -> int:
    """Number of differing items; all of them where the shapes differ."""
    return int((ours != theirs).sum()) if ours.shape == theirs.shape else max(ours.numel(), theirs.numel(), 1)


class Noted(dict):
    """A dict that knows which of its items were read."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        super().__init__(held)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        raise Unknown(f'the folder is not complete: there is no "{name}" beside {", ".join(list(self)[:3]) or "nothing"}')

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def unread(self) -> Iterator[str]:
        """Names of what was not read, "outer.inner" for dicts in it."""
        for name, value in self.items():
            if isinstance(value, Noted) and value:
                yield from (f"{name}.{inner}" for inner in value.unread())
            elif name not in self.read:
                yield name


@dataclass(eq=False)
class Files:
    """All that a folder holds."""

    folder: Path
    manifest: Noted
    tensors: dict[str, Noted]
    """File name without suffix -> its tensors."""
    others: list[str]
    """Files that hold neither."""

    @classmethod
    def read(cls, folder: Path) -> Files:
        """Raises Unknown where there is no folder, no manifest, or a file cannot be read."""
        if not folder.is_dir():
            raise Unknown(f"{folder}: no such folder")
        tensors, others = {}, []
        for file in sorted(folder.iterdir()):
            if file.suffix == ".safetensors":
                try:
                    tensors[file.stem] = Noted(load_file(file))
                except (SafetensorError, OSError) as why:
                    raise Unknown(f"{file}: not a readable safetensors file ({why})") from None
            elif file.name != MANIFEST:
                others.append(file.name)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(), object_hook=Noted)
        except FileNotFoundError:
            raise Unknown(f"{folder}: no {MANIFEST}, so it holds reference tensors of no known format") from None
        except ValueError as why:
            raise Unknown(f"{folder / MANIFEST}: not readable as JSON ({why})") from None
        if not isinstance(manifest, Noted):
            raise Unknown(f"{folder / MANIFEST}: holds a {type(manifest).__name__}, expected an object")
        return cls(folder, manifest, tensors, others)

    def part(self, pattern: str) -> Noted | None:
        """The file that holds a tensor whose name matches `pattern`; None if there is none."""
        return next((held for held in self.tensors.values() if any(fnmatchcase(name, pattern) for name in held)), None)


class Reference:
    """One format: its files by what they hold, and its checks."""

    title: ClassVar[str]
    described: ClassVar[str]
    """What its folders hold, for a message."""
    parts: ClassVar[dict[str, str]]
    """Name of a part -> pattern of a tensor that only its file holds. A part that is absent is not checked."""
    described_by: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Name of a part -> the manifest's entries that are about it."""
    weights: ClassVar[tuple[str, ...]]
    """Parts that hold weights of the model as `w.NAME`."""
    heads: ClassVar[frozenset[str]] = frozenset()
    reasons: ClassVar[dict[str, str]] = {}
    """Pattern of "file: name" -> why no check reads it."""
    left_out: ClassVar[tuple[str, ...]] = ()
    """Patterns of what the tests' subset of a folder does without."""

    def __init__(self, files: Files) -> None:
        self.files, self.manifest = files, files.manifest
        self.steps = 1
        self.set_aside: dict[str, str] = {}
        """Cases inside a list of the manifest that no check reads -> why."""

    @classmethod
    def recognises(cls, files: Files) -> bool:
        raise NotImplementedError

    def comparisons(self, attention: str) -> Iterator[Check]:
        raise NotImplementedError

    @cached_property
    def tokens(self) -> SpecialTokens:
        raise NotImplementedError

    def checks(self, attention: str = "eager") -> Iterator[Check]:
        """Every check that the folder allows; the last one is that nothing in it was passed over without a reason."""
        yield from self.comparisons(attention)
        unknown = sorted(name for name, why in self.unread().items() if not why)
        yield Check(f"nothing passed over{': ' * bool(unknown)}{', '.join(unknown)}", len(unknown), 0)

    def part(self, name: str) -> Noted:
        """The tensors of a part; empty if the folder has none."""
        held = self.files.part(self.parts[name])
        return Noted({}) if held is None else held

    def unread(self) -> dict[str, str]:
        """"file: name" -> why it is not compared, of all that no check has read; "" where there is no reason."""
        found = {f"file: {name}": "holds no reference numbers" for name in self.files.others}
        for file, held in {"manifest": self.manifest, **self.files.tensors}.items():
            for name in held.unread():
                full = f"{file}: {name}"
                found[full] = next((why for pattern, why in self.reasons.items() if fnmatchcase(full, pattern)), "")
                if file == "manifest" and not found[full]:
                    found[full] = self._about_what_is_absent(name)
        return found | self.set_aside

    def _about_what_is_absent(self, entry: str) -> str:
        """Why an entry of the manifest is not compared, if it is about a part that the folder does not hold."""
        top = entry.split(".", 1)[0]
        about = [part for part, entries in self.described_by.items() if top in entries and not self.part(part)]
        return f"the folder holds no tensors {self.parts[about[0]]}" if about else ""

    def leaves_out(self, name: str) -> bool:
        """Whether the tests' subset does without "file: name"."""
        return any(fnmatchcase(name, pattern) for pattern in self.left_out)

    def model(self, attention: str, extra: Mapping[str, Tensor] | None = None, heads: Iterable[str] | None = None) -> Backbone:
        """The tiny model with the folder's weights, and `extra` ones, through a checkpoint folder as any other."""
        held = {name[2:]: part[name] for part in map(self.part, self.weights) for name in part if name.startswith("w.")}
        with tempfile.TemporaryDirectory() as folder:
            sized(held).save_pretrained(folder)
            save_file(held | dict(extra or {}), Path(folder) / "model.safetensors", metadata={"format": "pt"})
            try:
                return loading.load(
                    folder, heads=frozenset(self.heads if heads is None else heads), latent_steps=self.steps, dtype=torch.float32,
                    attn_implementation=attention,
                )  # fmt: skip
            except ValueError as why:
                raise Unknown(f"{self.files.folder}: its weights are not the tiny model's: {str(why).removeprefix(f'{folder}: ')}") from None

    def rows(self, held: Mapping[str, Tensor]) -> dict[str, Any]:
        """Ids, labels, positions, mask and grids of right-padded rows of pictures, as fields of a `Batch`."""
        ids, mask, grids = held["in.input_ids"], held["in.attention_mask"].bool(), held["in.image_grid_thw"][:, 1:] // 2
        first, counts = self.images_of(ids, mask)
        place = torch.zeros(4, *ids.shape, dtype=torch.long)
        for row, own in enumerate(mask):
            real = int(own.sum())
            place[:, row, :real] = positions(ids[row, :real], grids[first[row] : first[row] + counts[row]], self.tokens.image)
        return {
            "input_ids": ids, "labels": held["in.labels"], "position_ids": place, "attention_mask": mask, "image_grids": grids,
            "samples": len(ids),
        }  # fmt: skip

    def images_of(self, ids: Tensor, mask: Tensor) -> tuple[list[int], list[int]]:
        """(first picture, number of pictures) of every row."""
        counts = ((ids == self.tokens.vision_start) & mask).sum(1)
        return (counts.cumsum(0) - counts).tolist(), counts.tolist()

    def segments(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Where the latent segments of the rows are, as fields of a `Batch`; each looks at its row's first picture."""
        row, column = (ids == self.tokens.lvr_start).nonzero(as_tuple=True)
        image = torch.tensor(self.images_of(ids, mask)[0])[row]
        after = (ids[row] != self.tokens.lvr) & (torch.arange(ids.shape[1]) > column[:, None])
        slots = after.int().argmax(1) - column - 1
        return {"segment_row": row, "segment_start": column + 1, "segment_slots": slots, "segment_image": image, "segment_sample": row}


def sized(weights: Mapping[str, Tensor]) -> Qwen2_5_VLConfig:
    """`TINY`, with the sizes that the weights have."""
    text, vision = "model.language_model", "model.visual"

    def size(name: str, axis: int = 0) -> int:
        if name not in weights:
            raise Unknown(f"the weights lack {name}")
        return weights[name].shape[axis]

    def layers(prefix: str) -> int:
        return len({name.split(".")[prefix.count(".") + 1] for name in weights if name.startswith(f"{prefix}.")})

    config = Qwen2_5_VLConfig.from_dict(TINY.to_dict())
    for name, value in {
        "vocab_size": size(f"{text}.embed_tokens.weight"),
        "hidden_size": size(f"{text}.embed_tokens.weight", 1),
        "intermediate_size": size(f"{text}.layers.0.mlp.gate_proj.weight"),
        "num_hidden_layers": layers(f"{text}.layers"),
        "num_attention_heads": size(f"{text}.layers.0.self_attn.q_proj.weight") // HEAD_WIDTH,
        "num_key_value_heads": size(f"{text}.layers.0.self_attn.k_proj.weight") // HEAD_WIDTH,
    }.items():
        setattr(config.text_config, name, value)
    for name, value in {
        "depth": layers(f"{vision}.blocks"),
        "hidden_size": size(f"{vision}.blocks.0.norm1.weight"),
        "intermediate_size": size(f"{vision}.blocks.0.mlp.gate_proj.weight"),
        "out_hidden_size": size(f"{text}.embed_tokens.weight", 1),
    }.items():
        setattr(config.vision_config, name, value)
    return config


def prompt_about(picture: int, ids: Tensor, seen: Mapping[str, Tensor], grid_thw: Tensor) -> Prompt:
    """Token ids as a prompt about one of a batch's pictures. seen: the batch's vision fields, pixels or features."""
    if "pixel_values" in seen:
        pixels = seen["pixel_values"].split(grid_thw.prod(1).tolist())[picture]
        return Prompt(ids, pixel_values=pixels, image_grid_thw=grid_thw[picture : picture + 1])
    features = seen["image_embeds"].split((grid_thw.prod(1) // 4).tolist())[picture]
    return Prompt(ids, image_embeds=features, image_grids=grid_thw[picture : picture + 1, 1:] // 2)


def pixels_of(pictures: list[Image.Image], least: int, most: int) -> Tensor:
    """Patches [N, 1176] of pictures, resized to between so many pixels by this project's processor."""
    return torch.cat(patches_of(processor_of(least, most), pictures)[0])


def processor_of(least: int, most: int) -> Any:
    """This project's image processor of the published sizes, for between so many pixels."""
    with tempfile.TemporaryDirectory() as folder:
        facts = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(facts))
        return load_image_processor(folder, Images(min_pixels=least, max_pixels=most, processor="pil"))
