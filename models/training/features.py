"""The frozen tower's outputs for every training image and clip, or for every piece that is cut out of them, computed once.

    features.json        dtype, width D, image limits (how clips are sampled, what is cut out), counts
    index.npz            key (hash of the name, with a piece's box), shard, first row, merged height and width; where there are
                         clips, also steps (0 of a picture) and seconds a step, and the height is that of all steps together
    shard-00000.npy …    [rows, D]; memory-mapped when read

Values are stored in the dtype in which the tower runs, which is the dtype of its stored weights (bfloat16 in the public
checkpoints), so that nothing is rounded: a cached feature is what the live tower gives. bfloat16 rows lie in the
files as uint16, because numpy has no such type.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from models import loading
from models.backbone.images import encode_images, load_image_processor, stored_dtype
from models.backbone.template import ClipGrid, Grid, flat_grid, tokens_of
from models.methods.registry import CUTS
from models.methods.stage import Cut
from models.run import Interrupted, Run
from models.schema import Clips, Images
from models.training.data import Samples, read_samples
from models.training.parse import ClipFile
from models.training.pixels import Live, Opened
from models.training.substitutes import FAILURES, allowed, no_substitute, too_many

SHARD_BYTES = 1 << 28
_CHUNK_IMAGES = 128
"""Opened at once; where there are clips, one file for each thread."""
T = TypeVar("T")
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
        self._clips = (index["steps"], index["seconds"]) if "steps" in index else None
        self._shards: dict[int, np.ndarray] = {}

    def check(self, images: Images, cut: tuple[str, Cut] | None = None, clips: Clips | None = None) -> None:
        """Raise ValueError if the features were computed with other image limits, of clips sampled otherwise, or of other pieces.
        cut: role and cut. clips: as of `cache_features`."""
        asked: dict[str, Any] = {"images": images, "clips": clips} | ({cut[0]: cut[1]} if cut is not None else {})
        for what, schema in ({"images": Images, "clips": Clips} | CUTS).items():
            wanted, held = asked.get(what) and asked[what].model_dump(), self.facts.get(what)
            if held:  # written before a field was added: at its default
                held = schema.model_validate(held).model_dump()
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

    def grid(self, key: str) -> Grid:
        """Merged grid of an image or clip, in tokens."""
        place = self._find(key)
        height, width = self._grid[place].tolist()
        if self._clips is None or not (steps := int(self._clips[0][place])):
            return height, width
        return ClipGrid(steps, height // steps, width, float(self._clips[1][place]))

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
    run: Run, *, checkpoint: Path, data: Path, images: Images, cut: tuple[str, Cut] | None = None, clips: Clips | None = None
) -> dict[str, Any]:
    """Compute and store the features of every distinct image and clip of `data` in run.out; returns counts and seconds.

    cut: role and cut of the pieces to encode instead (keys as `Piece.key`). clips: how clips are sampled; None for a data set of
    pictures. The tower runs in its stored dtype on run.device.
    Also writes the data set's rejected.jsonl and reading.json. Raises DataError where more images than training would replace cannot
    be read, or a clip, which has no substitute.
    """
    torch.set_num_threads(run.threads)
    samples = read_samples(Path(data), report=run.out, orientation=images.orientation, clips=clips)
    pieces = None if cut is None else cut[1].pieces()
    live = Live(load_image_processor(checkpoint, images) if pieces is None else pieces.processor(checkpoint, images), pieces)
    dtype = stored_dtype(checkpoint)
    model = loading.load(checkpoint, heads=(), latent_steps=0, dtype=dtype).to(run.device)
    width = model.config.text_config.hidden_size
    writer = _Writer(run.out, dtype)
    began, done = time.perf_counter(), 0
    absent: dict[str, str] = {}
    threads = max(1, run.threads)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        wanted = _distinct(samples, live, pool)
        of_clips = any(isinstance(one.what, ClipFile) for one in wanted)
        things = "clips" if of_clips else "images"
        for chunk in _chunks(wanted, threads if of_clips else _CHUNK_IMAGES):
            if run.should_stop():
                raise Interrupted(f"stopped after {done} of {len(wanted)} {things}")
            runs = [list(run) for _, run in groupby(chunk, key=lambda one: one.file)]  # frames of one clip are decoded together
            opened = [what for run in pool.map(lambda run: [_opened(live, one) for one in run], runs) for what in run]
            for one, why in zip(chunk, opened):
                if isinstance(why, Exception):
                    if one.clip_of:
                        raise no_substitute(one.clip_of, str(why))
                    absent[one.key] = str(why)
            if len(absent) > allowed(len(wanted)):
                raise too_many(len(absent), len(wanted), list(absent.values())[-1])
            shown = [(own, what) for own, what in zip(chunk, opened) if not isinstance(what, Exception)]
            patches, grids, grid_thw = live.patches([what for _, what in shown])
            there = [at for at, grid in enumerate(grids) if tokens_of(grid)]
            found = dict(zip(there, encode_images(model, [patches[at] for at in there], grid_thw[there]), strict=True))
            for at, ((one, _), grid) in enumerate(zip(shown, grids, strict=True)):
                tokens = found[at] if at in found else torch.zeros(0, width)  # of a box without a piece
                if not torch.isfinite(tokens).all():
                    raise ValueError(
                        f"{one.name}: the vision tower's output is not finite; the checkpoint or the image is broken"
                    )
                writer.add(one.key, tokens.cpu(), grid)
            done += len(chunk)
            run.log(done, len(wanted), **{f"{things}_per_second": done / (time.perf_counter() - began)})
    facts = {
        "dtype": str(dtype).removeprefix("torch."),
        "width": width,
        "images": images.model_dump(),
        **({} if clips is None else {"clips": clips.model_dump()}),
        **({} if cut is None else {cut[0]: cut[1].model_dump()}),
        **writer.close(),
        **({"absent": absent} if absent else {}),
    }
    (run.out / "features.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts | {"seconds": round(time.perf_counter() - began, 3), "rejected": samples.summary.rejected}


@dataclass(frozen=True)
class _Wanted:
    """An image, clip or piece to be encoded."""

    what: Any
    clip_of: str
    """The sample that shows it, where that is about a clip; "" where it is about pictures."""

    @property
    def key(self) -> str:
        """In the store."""
        return self.what.key

    @property
    def file(self) -> Any:
        """That it lies in."""
        return getattr(self.what, "file", self.what)

    @property
    def name(self) -> str:
        """In errors."""
        return str(getattr(self.what, "path", self.key))


def _distinct(samples: Samples, live: Live, pool: ThreadPoolExecutor) -> list[_Wanted]:
    """Every image and clip of the data set once, or every piece, in the order of first use."""

    def shown(number: int) -> list[_Wanted]:
        sample = samples[number]
        try:
            found = sample.images if live.pieces is None else live.pieces.of(sample)
        except FAILURES as why:
            if not sample.spans:
                raise
            raise no_substitute(sample.id, str(why)) from None  # which frames of a clip are wanted is known once it can be read
        return [_Wanted(one, sample.id if sample.spans else "") for one in found]

    seen: dict[str, _Wanted] = {}
    for chunk in _chunks(range(len(samples)), 1024):
        for one in (one for found in pool.map(shown, chunk) for one in found):
            seen.setdefault(one.key, one)
    return list(seen.values())


def _opened(live: Live, one: _Wanted) -> Opened | Exception:
    """An image that cannot be read has no features; its samples are replaced in training."""
    try:
        return live.open(one.what)
    except (ValueError, OSError) as error:
        return error


class _Writer:
    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self.keys: list[int] = []
        self.places: list[tuple[int, int, int, int]] = []
        self.clips: list[tuple[int, float]] = []
        """Steps of each grid, 0 of a picture, and seconds a step."""
        self.rows: list[Tensor] = []
        self.names: dict[int, str] = {}
        self.shard = self.tokens = self.total = self.size = 0

    def add(self, key: str, tokens: Tensor, grid: Grid) -> None:
        height, width = flat_grid(grid)
        if len(tokens) != height * width:
            raise ValueError(f"image {key!r}: {len(tokens)} features for a grid of {height} x {width}")
        number = _hash(key)
        if self.names.setdefault(number, key) != key:
            raise ValueError(f"images {key!r} and {self.names[number]!r} share a hash; rename one of them")
        self.keys.append(number)
        self.places.append((self.shard, self.tokens, height, width))
        self.clips.append((grid.steps, grid.seconds) if isinstance(grid, ClipGrid) else (0, 0.0))
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
        places = np.array(self.places, dtype=np.int64).reshape(-1, 4)[order]
        clips = np.array(self.clips, dtype=np.float64).reshape(-1, 2)[order]
        np.savez(
            self.folder / "index.npz",
            key=np.array(self.keys, dtype=np.uint64)[order],
            shard=places[:, 0],
            row=places[:, 1],
            grid=places[:, 2:],
            **({"steps": clips[:, 0].astype(np.int64), "seconds": clips[:, 1]} if clips.any() else {}),
        )
        return {"count": len(self.keys), "tokens": self.total, "shards": self.shard}


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.npy"


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
