"""From samples to a `Batch`: tokens, labels, positions, latent segments and vision features, packed or padded.

Knows no order of samples and no model; the template's strings live in `models.backbone.template`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from models.backbone import template
from models.backbone.template import Grid, flat_grid, tokens_of
from models.backbone.tokens import IGNORED, SpecialTokens
from models.latent.batch import Batch, Encoded
from models.latent.boxes import count_under
from models.methods.base import Pieces
from models.methods.stage import Slots
from models.training.data import Sample
from models.training.features import FeatureStore
from models.training.packing import first_fit
from models.training.pixels import Pixels


@dataclass
class Cached:
    """Features from a store."""

    store: FeatureStore

    def __call__(self, pictures: Sequence[Any]) -> tuple[list[Tensor], list[Grid], None]:
        return [self.store[one.key] for one in pictures], [self.store.grid(one.key) for one in pictures], None

    def tokens(self, pictures: Sequence[Any]) -> int:
        """Merged tokens of all of them."""
        return sum(tokens_of(self.store.grid(one.key)) for one in pictures)


@dataclass
class Extra:
    """Pieces that are encoded beside the samples' own pictures."""

    pieces: Pieces
    pixels: Pixels


def rough_length(sample: Sample, pixels: Cached, extra: Mapping[str, Extra]) -> int:
    """About how many tokens a sample has, without tokenising it: its pictures', its slots, and a quarter of its characters."""
    slots = sum(one.pixels.tokens(one.pieces.of(sample)) for one in extra.values() if isinstance(one.pixels, Cached))
    return pixels.tokens(sample.images) + slots + sum(len(turn["value"]) for turn in sample.conversations) // 4


@dataclass
class Collated:
    """A batch and what error messages and logs need to know of it."""

    batch: Batch
    ids: list[str]
    """Sample ids, in the order in which the samples came."""
    supervised: int
    """Supervised tokens as the loss counts them (shifted by one; slots count only if `ce_on_slots`)."""
    tokens: int
    """Tokens without padding."""
    replaced: list[dict[str, str]] = field(default_factory=list)
    """{"id", "by", "why"} of samples that could not be read, see `models.training.substitutes`."""


class Collator:
    """Turns samples into a `Collated` batch.

    slots: how many every segment has. extra: by role, what is encoded beside the pictures; where a slot stands for a token of a
    piece, of the first of them. write, end_marker: see `template.build`. slot_targets: whether slots are supervised, for
    counting only. packing "packed": the samples share one row, end to end; "padded": one a row. max_tokens: the longest
    sample allowed. short_rows: pack into rows as long as the longest sample, first-fit. The numbers are the same; for
    attention that cannot be told samples apart (`models.backbone.samples`), where a row costs the square of its length.
    """

    def __init__(
        self,
        tokenizer: Any,
        pixels: Pixels,
        *,
        slots: Slots,
        packing: Literal["packed", "padded"] = "packed",
        max_tokens: int = 16384,
        slot_targets: bool = False,
        end_marker: bool = False,
        short_rows: bool = False,
        extra: Mapping[str, Extra] | None = None,
        write: template.Writer | None = None,
    ) -> None:
        self.tokens = SpecialTokens.of(tokenizer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.encoder = Encoder(tokenizer)
        self.positions = Positions(self.tokens.image, self.tokens.video)
        self.pixels, self.slots, self.extra = pixels, slots, dict(extra or {})
        self.packing, self.max_tokens = packing, max_tokens
        self.slot_targets, self.end_marker, self.short_rows, self.write = slot_targets, end_marker, short_rows, write

    def __call__(self, samples: Sequence[Sample]) -> Collated:
        vision, grids, grid_thw = self.pixels([image for sample in samples for image in sample.images])
        first = _offsets([len(sample.images) for sample in samples])
        first_box = _offsets([len(sample.boxes) for sample in samples])
        owned = {role: [one.pieces.of(sample) for sample in samples] for role, one in self.extra.items()}
        cut = {role: self.extra[role].pixels([p for own in pieces for p in own]) for role, pieces in owned.items()}
        first_piece = {role: _offsets(list(map(len, pieces))) for role, pieces in owned.items()}
        counts = self._slots(samples, grids, first, [(cut[role][1], first_piece[role]) for role in cut])
        built = [
            template.build(
                self.encoder,
                self.tokens,
                sample.conversations,
                grids[first[k] : first[k + 1]],
                sample.boxes,
                latent_steps=counts[first_box[k] : first_box[k + 1]] if isinstance(counts, list) else counts,
                box_images=sample.box_image,
                end_marker=self.end_marker,
                write=self.write,
                name=f"sample {sample.id}",
            )
            for k, sample in enumerate(samples)
        ]
        for sample, one in zip(samples, built):
            if len(one) > self.max_tokens:
                raise ValueError(
                    f"sample {sample.id} has {len(one)} tokens, more than max_tokens {self.max_tokens}; "
                    "raise max_tokens, lower images.max_pixels, or take the sample out"
                )
        packed = self.packing == "packed"
        lengths = [len(one) for one in built]
        every = list(range(len(built)))
        packed_rows = first_fit(lengths, max(lengths)) if self.short_rows else [every]
        rows = packed_rows if packed else [[k] for k in every]
        text = self._rows(built, rows, packed)
        order = [first[k] + i for row in rows for k in row for i in range(len(samples[k].images))]
        none = None if grid_thw is None else torch.zeros(0)
        pictures = torch.cat([vision[i] for i in order]) if order else none
        encoded = {
            role: _encoded(*found, [p for row in rows for k in row for p in range(*first_piece[role][k : k + 2])])
            for role, found in cut.items()
        }
        batch = Batch(
            **text,
            image_grids=torch.tensor([flat_grid(grids[i]) for i in order], dtype=torch.long).reshape(-1, 2),
            samples=len(samples),
            encoded=encoded,
            image_embeds=pictures if grid_thw is None else None,
            pixel_values=None if grid_thw is None else pictures,
            image_grid_thw=None if grid_thw is None else grid_thw[order],
        )
        return Collated(batch, [s.id for s in samples], self._supervised(built), sum(map(len, built)))

    def _rows(self, built: Sequence[template.TokenSequence], rows: list[list[int]], packed: bool) -> dict[str, Any]:
        """Everything of the batch but the vision side."""
        length = max(sum(len(built[k]) for k in row) for row in rows)
        ids = torch.full((len(rows), length), self.pad)
        labels = torch.full((len(rows), length), IGNORED)
        positions = torch.arange(length).expand(4, len(rows), length).clone()
        mask = torch.zeros((len(rows), length), dtype=torch.bool)
        segments: list[tuple[int, ...]] = []
        boxes: list[tuple[float, ...]] = []
        images = 0
        for r, row in enumerate(rows):
            at = 0
            for k in row:
                one = built[k]
                span = slice(at, at + len(one))
                ids[r, span] = torch.tensor(one.input_ids)
                labels[r, span] = torch.tensor(one.labels)
                positions[:, r, span] = self.positions(ids[r, span], one.grids)
                mask[r, span] = True
                segments += [(r, at + start, n, images + image, k) for start, n, image in zip(one.starts, one.slots, one.images)]
                boxes += one.boxes
                images += len(one.grids)
                at += len(one)
            if packed:
                positions[:, r, at:] -= at  # padding is a block of its own
        names = ("segment_row", "segment_start", "segment_slots", "segment_image", "segment_sample")
        columns = torch.tensor(segments, dtype=torch.long).reshape(-1, len(names)).unbind(1)
        return dict(zip(names, columns)) | {
            "input_ids": ids,
            "labels": labels,
            "position_ids": positions,
            "attention_mask": None if packed else mask,
            "boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        }

    def _slots(
        self, samples: Sequence[Sample], grids: list[Grid], first: list[int], pieces: list[tuple[list[Grid], list[int]]]
    ) -> list[int] | int | None:
        """Of every box of all samples, or of all boxes alike; None for the template without segments. first: number of each
        sample's first picture. pieces: by role, their grids and the number of each sample's first."""
        match self.slots.of:
            case "none":
                return None
            case "piece":
                return list(map(tokens_of, pieces[0][0]))
            case "pieces":
                sizes, begin = list(map(tokens_of, pieces[0][0])), pieces[0][1]
                return [sum(sizes[begin[k] : begin[k + 1]]) for k, sample in enumerate(samples) for _ in sample.boxes]
            case "box":
                return [
                    count_under(box, grids[first[k] + image])
                    for k, sample in enumerate(samples)
                    for box, image in zip(sample.boxes, sample.box_image, strict=True)
                ]
        return self.slots.count

    def _supervised(self, built: Sequence[template.TokenSequence]) -> int:
        masked = [0 if self.slot_targets else sum(one.slots) for one in built]
        return sum(sum(label != IGNORED for label in one.labels[1:]) - slots for one, slots in zip(built, masked))


def _encoded(tensors: list[Tensor], grids: list[Grid], grid_thw: Tensor | None, order: list[int]) -> Encoded:
    order = [k for k in order if grids[k] != (0, 0)]
    together = torch.cat([tensors[k] for k in order]) if order else torch.zeros(0)
    return Encoded(embeds=together) if grid_thw is None else Encoded(values=together, grid_thw=grid_thw[order])


def _offsets(counts: Sequence[int]) -> list[int]:
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    return offsets


class Encoder:
    """Looks like a tokenizer to the template. A run of image or video tokens is encoded as one and repeated, and texts are
    remembered."""

    def __init__(self, tokenizer: Any, media: Sequence[str] = ("<|image_pad|>", "<|video_pad|>")) -> None:
        self._run = re.compile("|".join(f"(?:{re.escape(name)})+" for name in media))
        self._names = re.compile("|".join(map(re.escape, media)))
        self._ids = {tokenizer.convert_tokens_to_ids(name) for name in media}
        self._tokenizer = tokenizer
        self._encode = lru_cache(maxsize=1 << 15)(self._encode_once)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_encode"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._encode = lru_cache(maxsize=1 << 15)(self._encode_once)

    def _encode_once(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        runs = [len(self._names.findall(run.group())) for run in self._run.finditer(text)]
        if not runs:
            return {"input_ids": list(self._encode(text))}
        ids: list[int] = []
        for token in self._encode(self._run.sub(lambda run: self._names.match(run.group()).group(), text)):
            ids += [token] * (runs.pop(0) if token in self._ids else 1)
        return {"input_ids": ids}


class Positions:
    """`template.positions`, remembered by where the images stand, their grids and the length."""

    def __init__(self, *media: int, size: int = 256) -> None:
        self._media, self._size = torch.tensor(media), size
        self._known: OrderedDict[tuple, Tensor] = OrderedDict()

    def __call__(self, ids: Tensor, grids: Sequence[Grid]) -> Tensor:
        places = torch.isin(ids, self._media).nonzero()[:, 0]
        starts, at = [], 0
        for grid in grids:
            starts.append(int(places[at]) if at < len(places) else -1)
            at += tokens_of(grid)
        key = (len(ids), len(places), tuple(starts), tuple(map(tuple, grids)))
        if key not in self._known:
            self._known[key] = template.positions(ids, grids, *self._media.tolist())
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        return self._known[key]
