"""The frozen tower's outputs for every training image, or for every piece that is cut out of them, computed once.

    features.json        dtype, width D, image limits (and what is cut out), counts
    index.npz            key (hash of the image's name, with a piece's box), shard, first row, merged height and width
    shard-00000.npy …    [rows, D]; memory-mapped when read

Values are stored in the dtype in which the tower runs, which is the dtype of its stored weights (bfloat16 in the public
checkpoints), so that nothing is rounded: a cached feature is what the live tower gives. bfloat16 rows lie in the
files as uint16, because numpy has no such type.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models import loading
from models.backbone.images import encode_images, load_image_processor, patches_of, stored_dtype
from models.methods.registry import CUTS
from models.methods.stage import Cut
from models.run import Interrupted, Run
from models.schema import Images
from models.training.data import ImageFile, Samples, read_samples
from models.training.substitutes import allowed, too_many

SHARD_BYTES = 1 << 28
Picture = tuple[str, Path | str, Callable[[], Image.Image | None]]
"""Key in the store, name in errors, and what opens it: None for a box without a crop, which has no tokens."""
_CHUNK_IMAGES = 128
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_RAW = {torch.bfloat16: torch.uint16}


class FeatureStore:
    """Features by image key. Rows are copied out of memory-mapped shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        facts = self.folder / "features.json"
        if not facts.is_file():
            raise FileNotFoundError(
                f"{facts}: no such file; compute the features of this data set first (cache_features)"
            )
        self.facts: dict[str, Any] = json.loads(facts.read_text())
        self.dtype = _DTYPES[self.facts["dtype"]]
        index = np.load(self.folder / "index.npz")
        self._keys, self._shard, self._row, self._grid = (index[name] for name in ("key", "shard", "row", "grid"))
        self._shards: dict[int, np.ndarray] = {}

    def check(self, images: Images, cut: tuple[str, Cut] | None = None) -> None:
        """Raise ValueError if the features were computed with other image limits, or of other pieces. cut: role and cut."""
        asked: dict[str, Any] = {"images": images.model_dump()} | dict.fromkeys(CUTS)
        if cut is not None:
            asked[cut[0]] = cut[1].model_dump()
        for what, wanted in asked.items():
            held = self.facts.get(what)
            if held:  # written before a field was added: at its default
                held = (Images if what == "images" else CUTS[what]).model_validate(held).model_dump()
            if held != wanted:
                raise ValueError(f"{self.folder}: features are of {what} {held}, the spec says {wanted}; compute them anew")

    def __len__(self) -> int:
        return len(self._keys)

    def _find(self, key: str) -> int:
        wanted = _hash(key)
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            raise KeyError(f"{self.folder}: no features of image {key!r}; they belong to another data set")
        return place

    def grid(self, key: str) -> tuple[int, int]:
        """Merged (height, width) of an image, in tokens."""
        height, width = self._grid[self._find(key)]
        return int(height), int(width)

    def __getitem__(self, key: str) -> Tensor:
        """[T, D] of one image."""
        place = self._find(key)
        shard, row = int(self._shard[place]), int(self._row[place])
        if shard not in self._shards:
            self._shards[shard] = np.load(self.folder / _shard_name(shard), mmap_mode="r")
        height, width = self._grid[place]
        raw = torch.from_numpy(self._shards[shard][row : row + int(height) * int(width)].copy())
        return raw.view(self.dtype)


def cache_features(
    run: Run, *, checkpoint: Path, data: Path, images: Images, cut: tuple[str, Cut] | None = None
) -> dict[str, Any]:
    """Compute and store the features of every distinct image of `data` in run.out; returns counts and images/s.

    cut: role and cut of the pieces to encode instead (keys as `Piece.key`). The tower runs in its stored dtype on run.device.
    Also writes the data set's rejected.jsonl and reading.json.
    """
    torch.set_num_threads(run.threads)
    samples = read_samples(Path(data), report=run.out, orientation=images.orientation)
    if cut is None:
        processor = load_image_processor(checkpoint, images)
        pictures = [(file.key, file.path, file.open) for file in distinct_images(samples)]
    else:
        pieces = cut[1].pieces()
        processor = pieces.processor(checkpoint, images)
        distinct = {piece.key: piece for number in range(len(samples)) for piece in pieces.of(samples[number])}
        pictures = [(key, key, partial(pieces.open, piece, processor)) for key, piece in distinct.items()]
    dtype = stored_dtype(checkpoint)
    model = loading.load(checkpoint, heads=(), latent_steps=0, dtype=dtype).to(run.device)
    merge = model.model.visual.spatial_merge_size
    writer = _Writer(run.out, dtype)
    began, done = time.perf_counter(), 0
    absent: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=max(1, run.threads)) as pool:
        for chunk in _chunks(pictures, _CHUNK_IMAGES):
            if run.should_stop():
                raise Interrupted(f"stopped after {done} of {len(pictures)} images")
            opened = list(pool.map(_opened, chunk))
            absent |= {picture[0]: str(why) for picture, why in zip(chunk, opened) if isinstance(why, Exception)}
            if len(absent) > allowed(len(pictures)):
                raise too_many(len(absent), len(pictures), list(absent.values())[-1])
            for picture in (own for own, shown in zip(chunk, opened) if shown is None):
                writer.add(picture[0], torch.zeros(0, model.config.text_config.hidden_size), (0, 0))
            pairs = [(own, shown) for own, shown in zip(chunk, opened) if isinstance(shown, Image.Image)]
            if not pairs:
                continue
            patches, grids = patches_of(processor, [shown for _, shown in pairs])
            encoded = encode_images(model, patches, grids)
            for ((key, name, _), _), grid, tokens in zip(pairs, grids.tolist(), encoded, strict=True):
                if not torch.isfinite(tokens).all():
                    raise ValueError(
                        f"{name}: the vision tower's output is not finite; the checkpoint or the image is broken"
                    )
                writer.add(key, tokens.cpu(), (grid[1] // merge, grid[2] // merge))
            done += len(chunk)
            run.log(done, len(pictures), images_per_second=done / (time.perf_counter() - began))
    width = model.config.text_config.hidden_size
    facts = {
        "dtype": str(dtype).removeprefix("torch."),
        "width": width,
        "images": images.model_dump(),
        **({} if cut is None else {cut[0]: cut[1].model_dump()}),
        **writer.close(),
        **({"absent": absent} if absent else {}),
    }
    (run.out / "features.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts | {"seconds": round(time.perf_counter() - began, 3), "rejected": samples.summary.rejected}


def _opened(picture: Picture) -> Image.Image | Exception | None:
    """What cannot be read has no features; its samples are replaced in training."""
    try:
        return picture[2]()
    except (ValueError, OSError) as error:
        return error


def distinct_images(samples: Samples) -> list[ImageFile]:
    """Every image of the data set once, in the order of first use."""
    seen: dict[str, ImageFile] = {}
    for number in range(len(samples)):
        for file in samples[number].images:
            seen.setdefault(file.key, file)
    return list(seen.values())


class _Writer:
    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self.keys: list[int] = []
        self.places: list[tuple[int, int, int, int]] = []
        self.rows: list[Tensor] = []
        self.names: dict[int, str] = {}
        self.shard = self.tokens = self.total = self.size = 0

    def add(self, key: str, tokens: Tensor, grid: tuple[int, int]) -> None:
        if len(tokens) != grid[0] * grid[1]:
            raise ValueError(f"image {key!r}: {len(tokens)} features for a grid of {grid[0]} x {grid[1]}")
        number = _hash(key)
        if self.names.setdefault(number, key) != key:
            raise ValueError(f"images {key!r} and {self.names[number]!r} share a hash; rename one of them")
        self.keys.append(number)
        self.places.append((self.shard, self.tokens, *grid))
        self.rows.append(tokens)
        self.tokens += len(tokens)
        self.total += len(tokens)
        self.size += tokens.numel() * tokens.element_size()
        if self.size >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            raw = torch.cat(self.rows).to(self.dtype).view(_RAW.get(self.dtype, self.dtype))
            np.save(self.folder / _shard_name(self.shard), raw.numpy())
            self.rows, self.tokens, self.size, self.shard = [], 0, 0, self.shard + 1

    def close(self) -> dict[str, int]:
        self._flush()
        order = np.argsort(np.array(self.keys, dtype=np.uint64))
        places = np.array(self.places, dtype=np.int64)[order]
        np.savez(
            self.folder / "index.npz",
            key=np.array(self.keys, dtype=np.uint64)[order],
            shard=places[:, 0],
            row=places[:, 1],
            grid=places[:, 2:],
        )
        return {"count": len(self.keys), "tokens": self.total, "shards": self.shard}


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.npy"


def _chunks(items: list[Picture], size: int) -> Iterator[list[Picture]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
