"""One optimiser micro-batch, as training hands it to the model. Holds tensors and checks that they fit each other."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import BoolTensor, FloatTensor, LongTensor, Tensor

from models.backbone.rows import Flat


@dataclass(eq=False)
class Encoded:
    """Pieces of pictures, for the frozen tower or from it, one after another."""

    embeds: FloatTensor | None = None
    """[N, D]: cached features after the merger."""
    values: FloatTensor | None = None
    """Their patches, instead."""
    grid_thw: LongTensor | None = None
    """[pieces, 3]: (1, height, width) in patches; with `values` only."""

    def __post_init__(self) -> None:
        if (self.embeds is None) == (self.values is None):
            raise ValueError("give embeds or values, not both or neither")


@dataclass(eq=False)
class Batch:
    """R rows of L tokens with I images (T merged vision tokens in all) and B latent segments (one per box).

    Packed: several samples share a row; padded: one sample a row. Image tokens of the flattened batch, images in
    `image_grids` and features in `image_embeds` (or patches in `pixel_values`) stand in the same order.
    """

    input_ids: LongTensor
    """[R, L]"""
    labels: LongTensor
    """[R, L]; -100 is unsupervised. `<|lvr|>` targets stand here; the model masks them unless `ce_on_slots`."""
    position_ids: LongTensor
    """[4, R, L]: the text position, from 0 in every sample, then the three mRoPE rows. Padding at the end of a packed
    row must start again at 0 in the text row, so that it forms a block of its own."""
    attention_mask: BoolTensor | None
    """[R, L] for padded rows; None when packed: the block-diagonal mask then follows from the text positions."""
    image_grids: LongTensor
    """[I, 2]: merged (height, width) of every image, in tokens."""
    segment_row: LongTensor
    """[B]"""
    segment_start: LongTensor
    """[B]: column of the first slot (with no slots: of `<|lvr_end|>`)."""
    segment_slots: LongTensor
    """[B]: slots of each segment, N in all."""
    segment_image: LongTensor
    """[B]: index into `image_grids`."""
    segment_sample: LongTensor
    """[B]: index of the sample in the batch, 0-based."""
    boxes: FloatTensor
    """[B, 4] float64: normalised x0, y0, x1, y1."""
    samples: int
    """Samples in the batch."""
    image_embeds: FloatTensor | None = None
    """[T, D]: cached features after the merger."""
    pixel_values: FloatTensor | None = None
    image_grid_thw: LongTensor | None = None
    """[I, 3]: (1, height, width) in patches; with `pixel_values` only."""
    encoded: dict[str, Encoded] = field(default_factory=dict)
    """What a method encodes beside the pictures, by role: of each segment one piece, in the segments' order."""
    flat: Flat | None = None
    """Derived from `position_ids` and `attention_mask`."""
    slots: int = 0
    """N; counted where the batch is made, on the CPU, so that no pass has to ask the device for it."""

    def __post_init__(self) -> None:
        rows, length = self.input_ids.shape
        segments = len(self.segment_row)
        _expect("labels", self.labels, (rows, length))
        _expect("position_ids", self.position_ids, (4, rows, length))
        if self.attention_mask is not None:
            _expect("attention_mask", self.attention_mask, (rows, length))
        if self.flat is None:
            self.flat = Flat.of(self.position_ids, self.attention_mask)
        for name in ("segment_start", "segment_slots", "segment_image", "segment_sample"):
            _expect(name, getattr(self, name), (segments,))
        _expect("boxes", self.boxes, (segments, 4))
        if self.boxes.dtype != torch.float64:
            raise TypeError(
                f"boxes are {self.boxes.dtype}, expected torch.float64: in float32 a corner on a cell's edge moves by a token"
            )
        if (self.image_embeds is None) == (self.pixel_values is None) and len(self.image_grids):
            raise ValueError("give image_embeds or pixel_values, not both or neither")
        if self.segment_slots.device.type == "cpu":
            self.slots = int(self.segment_slots.sum())

    def __len__(self) -> int:
        """Samples in the batch."""
        return self.samples

    @property
    def packed(self) -> bool:
        return self.attention_mask is None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on `device`."""

        def moved(holder: Batch | Flat | Encoded) -> dict[str, Tensor]:
            return {
                f.name: value.to(device, non_blocking=non_blocking)
                for f in fields(holder)
                if isinstance(value := getattr(holder, f.name), Tensor)
            }

        encoded = {role: replace(one, **moved(one)) for role, one in self.encoded.items()}
        return replace(self, flat=replace(self.flat, **moved(self.flat)), encoded=encoded, **moved(self))


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
