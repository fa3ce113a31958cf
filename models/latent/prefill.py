"""A batch of prompts, read once: the state from which any number of decodings start.

What is fed into latent slots, and how long an answer may be, changes nothing before the first new token. Prompts that begin
alike (a picture, then different questions) can go on from that beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from models.backbone.cache import BLOCK, BufferLayer, right_aligned
from models.backbone.model import Backbone
from models.backbone.products import widened
from models.backbone.template import positions
from models.backbone.tokens import SpecialTokens
from models.latent.prompt import Prompt, grids_of, vision

READ_TOKENS = {"cpu": 2048, "cuda": 16384}
"""About so many tokens of prompts go through the layers at once. On a CPU, what they need then stays in its caches; on a GPU, it takes
two GB at 7B."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first n tokens of a prompt."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    """Of every layer: keys and values [heads, n, d]."""

    def __len__(self) -> int:
        return self.layers[0][0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.layers for part in pair)


@dataclass(eq=False)
class Prefill:
    """r prompts, left-padded to L columns. Decodings share the cache's buffers and write behind the prompts, so two of them
    must not be interleaved."""

    forced: bool
    """Whether `<|lvr_start|>` stands at the end of every prompt."""
    mask: Tensor
    """[r, L] bool"""
    next_position: Tensor
    """[4, r]: (text, t, h, w) of the last column."""
    inputs: Tensor
    """[r, D]: the last input embedding."""
    hidden: Tensor
    """[r, D]: the last hidden state."""
    buffers: list[tuple[Tensor, Tensor]]
    """Of every layer: keys and values [r, heads, >= L, d]."""

    def cache(self, eager: bool = False) -> Cache:
        """A cache that holds the prompts. eager: it is for plain products, each of which would widen all of it on some CPUs."""
        held = (tuple(map(widened, buffers)) if eager else buffers for buffers in self.buffers)
        return Cache(layers=[BufferLayer.over(buffers, self.mask.shape[1]) for buffers in held])

    def rows(self, keep: list[int]) -> Prefill:
        """Some of the prompts, in this order; itself if that is all of them."""
        if keep == list(range(len(self.mask))):
            return self
        at = torch.tensor(keep, device=self.mask.device)
        return replace(
            self,
            mask=self.mask[at],
            next_position=self.next_position[:, at],
            inputs=self.inputs[at],
            hidden=self.hidden[at],
            buffers=[(keys[at], values[at]) for keys, values in self.buffers],
        )

    @classmethod
    def joined(cls, parts: Sequence[Prefill]) -> Prefill:
        """The prompts of all these, which have one kind of start; itself if there is but one."""
        if len(parts) == 1:
            return parts[0]
        widths = [part.mask.shape[1] for part in parts]
        pairs = zip(*(part.buffers for part in parts), strict=True)
        return cls(
            parts[0].forced,
            torch.cat([F.pad(part.mask, (max(widths) - width, 0)) for part, width in zip(parts, widths)]),
            torch.cat([part.next_position for part in parts], 1),
            torch.cat([part.inputs for part in parts]),
            torch.cat([part.hidden for part in parts]),
            [
                tuple(right_aligned([buffer[:, :, :width] for buffer, width in zip(buffers, widths)]) for buffers in zip(*pair))
                for pair in pairs
            ],
        )

    def prefixes(self, device: torch.device | str) -> list[Prefix]:
        """Each prompt as the beginning of others: copies on `device`."""
        columns = self.mask.shape[1]

        def own(buffer: Tensor, row: int) -> Tensor:
            return buffer[row, :, columns - lengths[row] : columns].to(device, copy=True)

        lengths = self.mask.sum(1).tolist()
        return [
            Prefix(tuple((own(keys, row), own(values, row)) for keys, values in self.buffers)) for row in range(len(lengths))
        ]

    def to(self, device: torch.device | str) -> Prefill:
        """The same on `device`; itself if it is there."""
        if self.mask.device == torch.device(device):
            return self
        buffers = [(keys.to(device), values.to(device)) for keys, values in self.buffers]
        moved = {name: getattr(self, name).to(device) for name in ("mask", "next_position", "inputs", "hidden")}
        return replace(self, buffers=buffers, **moved)

    @property
    def nbytes(self) -> int:
        """Of the cache's buffers."""
        return sum(buffer.nbytes for pair in self.buffers for buffer in pair)


def _following(place: Tensor) -> Tensor:
    """[4, 1]: the position after those of a prompt [4, L]."""
    return torch.stack([place[0, -1:] + 1, *(3 * [place[1:].max()[None] + 1])])


def read(
    model: Backbone, prompts: list[Prompt], forced: bool, tokens: SpecialTokens, begun: Sequence[Prefix | None] = ()
) -> Prefill:
    """Run the prompts, left-padded, with `<|lvr_start|>` behind each if its start is forced.

    begun: of each prompt the tokens that it begins with, if they were read before; then only the last columns are run, as many
    as the prompt needs that has most left.
    """
    prompt_ids = [prompt.input_ids.cpu() for prompt in prompts]
    merge = model.model.visual.spatial_merge_size
    placed = [positions(i, grids_of(p, merge), tokens.image, tokens.video) for i, p in zip(prompt_ids, prompts)]
    if forced:
        start = torch.tensor([tokens.lvr_start])
        prompt_ids = [torch.cat([ids, start]) for ids in prompt_ids]
        placed = [torch.cat([place, _following(place)], 1) for place in placed]
    lengths = [len(ids) for ids in prompt_ids]
    longest = max(lengths)
    shape = (len(prompt_ids), longest)
    input_ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    place = torch.zeros(4, *shape, dtype=torch.long)
    for at, (ids, own) in enumerate(zip(prompt_ids, placed)):
        input_ids[at, longest - len(ids) :] = ids
        mask[at, longest - len(ids) :] = True
        place[:, at, longest - len(ids) :] = own
    mask = mask.to(model.device)
    next_position = torch.stack([place[0, :, -1], *(3 * [place[1:].amax((0, 2))])]).to(model.device)
    begun = begun or [None] * len(prompts)
    like = next((prefix for prefix in begun if prefix is not None), None)
    left = max(n - min(len(prefix or ()), n - 1) for n, prefix in zip(lengths, begun, strict=True))
    with torch.inference_mode():
        features, _ = vision(model, prompts)
        embeds, place = model.embed(input_ids.to(model.device), features), place.to(model.device)
        at_once = max(1, READ_TOKENS[model.device.type] // left)
        hidden, read_layers = [], []
        for part in torch.arange(len(prompts)).split(at_once):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            cache = _cache(model, begun[rows], lengths[rows], longest, longest - left, like)
            hidden.append(last_states(model, embeds[rows, -left:], mask[rows], place[:, rows, -left:], cache).clone())
            read_layers.append([layer.buffers for layer in cache.layers])
        buffers = [tuple(map(torch.cat, zip(*parts))) for parts in zip(*read_layers)]
    return Prefill(forced, mask, next_position, embeds[:, -1].clone(), torch.cat(hidden), buffers)


def _cache(
    model: Backbone, begun: Sequence[Prefix | None], lengths: Sequence[int], longest: int, used: int, like: Prefix | None
) -> Cache:
    """A cache whose first `used` columns are the beginnings of prompts of these lengths, left-padded to `longest`. like: any
    prefix, if any column is used."""
    number = len(model.model.language_model.layers)
    if not used:
        return Cache(layers=[BufferLayer() for _ in range(number)])

    def filled(layer: int, part: int) -> Tensor:
        heads, _, width = like.layers[layer][part].shape
        buffer = torch.zeros(len(begun), heads, longest + BLOCK, width, dtype=like.layers[layer][part].dtype, device=model.device)
        for row, (prefix, length) in enumerate(zip(begun, lengths)):
            if prefix is not None and (known := length - (longest - used)) > 0:
                buffer[row, :, used - known : used] = prefix.layers[layer][part][:, :known].to(model.device)
        return buffer

    return Cache(layers=[BufferLayer.over((filled(layer, 0), filled(layer, 1)), used) for layer in range(number)])


def last_states(model: Backbone, embeds: Tensor, mask: Tensor, place: Tensor, cache: Cache) -> Tensor:
    """The last hidden states [r, D] after these inputs [r, n, D]."""
    return model.model.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True
    ).last_hidden_state[:, -1]
