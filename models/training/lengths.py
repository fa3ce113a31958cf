"""How many tokens a sample has, from what the index knows: exactly only where a bound does not settle it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from models.backbone import template
from models.backbone.clips import grid_of_clip, is_clip
from models.backbone.images import grid_of
from models.backbone.pictures import Unreadable
from models.backbone.template import ClipGrid, tokens_of
from models.backbone.tokens import SpecialTokens
from models.schema import Orientation

if TYPE_CHECKING:
    from models.training.data import Samples

ANSWER_TAGS = ("<answer>", "</answer>")
_AROUND = 64
"""More tokens than the template puts around the texts of two turns and one image."""


def literal_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches the texts of tokens that mean something else than their characters: special ones, and added ones in angle
    brackets (`<tool_call>`, `<|fim_prefix|>`). Not the answer's own tags, which a tokenizer may hold as words."""
    added = tokenizer.added_tokens_decoder.values()
    texts = {str(t) for t in added if t.special or (re.fullmatch(r"<\S+>", str(t)) and str(t) not in ANSWER_TAGS)}
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))


def picture_tokens(sizes: np.ndarray, processor: Any, orientation: Orientation) -> np.ndarray:
    """[P] int64: merged tokens of pictures [P, 3] (width, height, EXIF orientation)."""

    @lru_cache(maxsize=1 << 16)
    def tokens(width: int, height: int) -> int:
        down, across = grid_of(processor, width, height)
        return down * across

    turns = orientation == "upright"
    return np.array([tokens(h, w) if turns and tag > 4 else tokens(w, h) for w, h, tag in sizes.tolist()], dtype=np.int64)


def rough_lengths(samples: Samples, processor: Any) -> list[int] | None:
    """[samples]: about how many tokens each has, its pictures' and a quarter of its bytes of text. None where nobody has looked into
    the pictures yet."""
    if samples.columns.sizes is None or not len(samples):
        return None
    return [int(n) for n in _pictures(samples, processor, _clip_grids(samples, processor)) + samples.columns.text // 4]


def _clip_grids(samples: Samples, processor: Any) -> dict[int, ClipGrid]:
    """Number among the data set's pictures -> grid, of those that are clips and can be read."""
    columns, found = samples.columns, {}
    for number, (width, height, tag) in enumerate(columns.sizes.tolist()):
        path = columns.path(number)
        if tag and not is_clip(path):  # an earlier index says 1 of clips, and knew them by their names
            continue
        try:
            found[number] = ClipGrid(*grid_of_clip(processor, path, (width, height), samples.clips), 1.0)
        except Unreadable:  # its rows have been rejected already
            continue
    return found


def _pictures(samples: Samples, processor: Any, clips: Mapping[int, ClipGrid]) -> np.ndarray:
    """[samples]: merged tokens of each one's pictures and clips. clips: of `_clip_grids`, which opens every clip."""
    columns = samples.columns
    each = picture_tokens(columns.sizes, processor, samples.orientation)
    for number, grid in clips.items():
        each[number] = tokens_of(grid)
    row: np.ndarray = np.repeat(np.arange(len(samples)), np.diff(columns.ref_end, prepend=0))
    return np.bincount(row, weights=each[columns.refs], minlength=len(samples))


def over_long(
    samples: Samples, tokenizer: Any, processor: Any, *, latent_steps: int | None, max_tokens: int, slots: int = 0
) -> dict[int, int]:
    """Number -> tokens of the samples with more than max_tokens.

    latent_steps: as for `template.build`. slots: of a segment, for the bound alone. Samples whose text has fewer bytes
    than there is room for tokens are not tokenised.
    """
    columns = samples.columns
    if columns.sizes is None or not len(samples):
        return {}
    clips = _clip_grids(samples, processor)
    pictures, counts = _pictures(samples, processor, clips), np.diff(columns.ref_end, prepend=0)
    boxes = np.diff(columns.box_end, prepend=0)
    bound = pictures + columns.text + boxes * (slots + 2) + _AROUND * (counts + 1)
    tokens, found = SpecialTokens.of(tokenizer), {}
    for number in (bound > max_tokens).nonzero()[0].tolist():
        sample = samples[number]
        turned, grids = samples.orientation == "upright", []
        for k in columns.numbers(number):
            w, h, tag = columns.sizes[k].tolist()
            grids.append(clips.get(k) or grid_of(processor, *((h, w) if turned and tag > 4 else (w, h))))
        built = template.build(
            tokenizer, tokens, sample.conversations, grids, sample.boxes, latent_steps=latent_steps,
            box_images=sample.box_image, name=f"sample {sample.id}",
        )  # fmt: skip
        if len(built) > max_tokens:
            found[number] = len(built)
    return found
