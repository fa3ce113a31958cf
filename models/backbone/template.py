"""From a conversation to token ids, labels, slots and positions, in the release's chat template.

Usable by training (`build`) and evaluation (`prompt`). Knows the template's strings; takes the number of tokens of every
picture and clip from its merged grid; never sees pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.backbone.tokens import IGNORED, SpecialTokens

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
IMAGE = "<image>"
VIDEO = "<video>"
LATENT = "<lvr>"
TOKENS_PER_SECOND = 2
"""What mRoPE's temporal row advances by in a second of a clip, in every published Qwen2.5-VL."""


class ClipGrid(NamedTuple):
    """Merged grid of a clip."""

    steps: int
    """Pairs of frames."""
    height: int
    width: int
    seconds: float
    """From one pair of frames to the next."""

    @property
    def stacked(self) -> tuple[int, int]:
        """(height, width) of its frames laid one below another, which is the order of its tokens."""
        return self.steps * self.height, self.width


Grid = tuple[int, int] | ClipGrid
"""Merged (height, width) of an image, in tokens; or a clip's."""


_MEDIA = f"{IMAGE}|{VIDEO}"


def tokens_of(grid: Grid) -> int:
    """Merged tokens of a picture or clip."""
    height, width = flat_grid(grid)
    return height * width


def flat_grid(grid: Grid) -> tuple[int, int]:
    """(height, width) of a picture, or of a clip's frames one below another."""
    return grid.stacked if isinstance(grid, ClipGrid) else (int(grid[0]), int(grid[1]))


@dataclass(frozen=True)
class TokenSequence:
    """One training sequence. Segment k is box k: `slots[k]` slots from `starts[k]` on, looking at image `images[k]`."""

    input_ids: list[int]
    labels: list[int]
    """As input_ids where supervised (answers, with their `<|im_end|>` and newline), -100 elsewhere."""
    grids: list[Grid]
    boxes: list[tuple[float, ...]]
    starts: list[int]
    images: list[int]
    slots: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def check_box(box: list[float] | tuple[float, ...], name: str) -> None:
    """Raise ValueError, starting with `name`, unless x0 < x1 and y0 < y1 and the box meets the image [0, 1] x [0, 1].

    (The release silently takes token 0 for such a box.)
    """
    if len(box) != 4:
        raise ValueError(f"{name}: a box has 4 numbers x0, y0, x1, y1, got {list(box)}")
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):  # also catches NaN
        raise ValueError(f"{name}: box {list(box)} is empty or inverted; it must have x0 < x1 and y0 < y1")
    if x1 <= 0 or y1 <= 0 or x0 >= 1 or y0 >= 1:
        raise ValueError(f"{name}: box {list(box)} lies outside the image; coordinates are normalised to 0..1")


def user_text(value: str, grids: Sequence[Grid]) -> str:
    """A question's content: every `<image>` or `<video>` (and the newline after it) becomes its vision tokens."""
    named = re.findall(_MEDIA, value)
    if len(named) != len(grids):
        raise ValueError(f"{len(named)} {IMAGE} placeholders for {len(grids)} images in {value!r}")
    parts = re.split(f"(?:{_MEDIA})\n?", value)
    text = parts[0]
    for name, grid, rest in zip(named, grids, parts[1:]):
        if (name == VIDEO) != isinstance(grid, ClipGrid):
            raise ValueError(f"{name} stands for {'a clip' if isinstance(grid, ClipGrid) else 'a picture'} in {value!r}")
        pad = "<|video_pad|>" if name == VIDEO else "<|image_pad|>"
        text += "<|vision_start|>" + pad * tokens_of(grid) + "<|vision_end|>" + rest
    return text


def latent_text(latent_steps: int, end_marker: bool = False) -> str:
    """One latent segment: the markers and S slots. end_marker: with `<|lvr_latent_end|>` behind them."""
    return "<|lvr_start|>" + "<|lvr|>" * latent_steps + "<|lvr_latent_end|>" * end_marker + "<|lvr_end|>"


def assistant_text(value: str, latent_steps: int | Sequence[int] | None, end_marker: bool = False) -> str:
    """An answer's content: every `<lvr>` becomes a segment; text before the first is dropped, as in the release.

    latent_steps: slots of every segment, or of each. None: the template without latent segments (vanilla SFT); the newline or blank after a placeholder goes too.
    """
    _first, *rest = value.split(LATENT)
    if not rest:
        return value
    if latent_steps is None:
        return "".join(part.removeprefix("\n") if part.startswith("\n") else part.removeprefix(" ") for part in rest)
    counts = [latent_steps] * len(rest) if isinstance(latent_steps, int) else latent_steps
    return "".join(latent_text(count, end_marker) + part for count, part in zip(counts, rest, strict=True))


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def prompt_text(question: str, grids: Sequence[Grid]) -> str:
    """What the model is given before it answers: system, user (with `<image>` placeholders), the assistant's header."""
    return SYSTEM + turn("user", user_text(question, grids)) + ASSISTANT


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def prompt(tokenizer, question: str, grids: Sequence[Grid]) -> list[int]:
    """Token ids of `prompt_text`."""
    return encode(tokenizer, prompt_text(question, grids))


Writer = Callable[[str, Sequence[int]], str]
"""(an answer's text, slots of its segments) -> the assistant's turn."""


def build(
    tokenizer,
    tokens: SpecialTokens,
    conversations: Sequence[dict[str, str]],
    grids: Sequence[Grid],
    boxes: Sequence[Sequence[float]],
    *,
    latent_steps: int | Sequence[int] | None,
    box_images: Sequence[int] | None = None,
    end_marker: bool = False,
    write: Writer | None = None,
    name: str = "sample",
) -> TokenSequence:
    """A LLaVA-style conversation ([{"from": "human" | "gpt", "value": …}, …]) as one training sequence.

    latent_steps: slots of every segment, or of each box's; None drops the latent segments (SFT). box_images: image of every box, None = the first.
    write: writes answers instead of `assistant_text`. The first answer is given the slots of all boxes, later ones none; a box
    without slots has no segment, and placeholders need not match the boxes.
    `name` stands in every error.
    """
    ids, labels, starts, used, begun = encode(tokenizer, SYSTEM), [], [], 0, 0
    listed = None if latent_steps is None or isinstance(latent_steps, int) else list(latent_steps)
    if listed is not None and len(listed) != len(boxes):
        raise ValueError(f"{name}: {len(listed)} numbers of slots for {len(boxes)} boxes")
    labels += [IGNORED] * len(ids)
    for message in conversations:
        role, value = message["from"], message["value"]
        if role == "human":
            wanted = len(re.findall(_MEDIA, value))
            text = turn("user", user_text(value, grids[used : used + wanted])) + ASSISTANT
            used += wanted
            new = encode(tokenizer, text)
            labels += [IGNORED] * len(new)
        elif role == "gpt":
            segments = value.count(LATENT) if write is None else len(listed) - begun
            if listed is not None and begun + segments > len(listed):
                raise ValueError(f"{name}: more {LATENT} placeholders than its {len(boxes)} boxes")
            steps = latent_steps if listed is None else listed[begun : begun + segments]
            begun += segments
            text = assistant_text(value, steps, end_marker) if write is None else write(value, steps)
            new = encode(tokenizer, text + "<|im_end|>\n")
            starts += [len(ids) + at + 1 for at, token in enumerate(new) if token == tokens.lvr_start]
            labels += new
        else:
            raise ValueError(f"{name}: a message is from {role!r}; there are 'human' and 'gpt'")
        ids += new
    if used != len(grids):
        raise ValueError(f"{name}: {used} {IMAGE} placeholders for {len(grids)} images")
    images = [0] * len(boxes) if box_images is None else list(box_images)
    if latent_steps is None:
        boxes, images = [], []
    if write is not None:
        kept = [at for at, slots in enumerate(listed) if slots]
        boxes, images, listed = [boxes[at] for at in kept], [images[at] for at in kept], [listed[at] for at in kept]
    if len(starts) != len(boxes) or len(images) != len(boxes):
        raise ValueError(f"{name}: {len(starts)} {LATENT} placeholders, {len(boxes)} boxes, {len(images)} box images")
    for at, (box, image) in enumerate(zip(boxes, images)):
        check_box(box, f"{name}, box {at}")
        if not 0 <= image < len(grids):
            raise ValueError(f"{name}, box {at}: image {image} of {len(grids)}")
    slots = [latent_steps] * len(starts) if isinstance(latent_steps, int) else listed or []
    return TokenSequence(ids, labels, [g if isinstance(g, ClipGrid) else tuple(g) for g in grids], [tuple(b) for b in boxes], starts, images, slots)


def positions(input_ids: Tensor, grids: Sequence[Grid] | Tensor, *media: int) -> Tensor:
    """[4, L]: the text position and the three mRoPE rows of one sample [L], as Qwen2.5-VL's `get_rope_index` has them.

    grids: of its pictures and clips in order, or [I, 2] of pictures. media: ids of the image and video tokens. Text advances
    all three rows by one; an image spans its grid and advances by the longer side; a clip spans its seconds too.
    """
    length = len(input_ids)
    text = torch.arange(length)
    sizes = [grid if isinstance(grid, ClipGrid) else tuple(map(int, grid)) for grid in grids]
    shown = torch.isin(input_ids, torch.tensor(media))
    counts = [tokens_of(grid) for grid in sizes]
    if int(shown.sum()) != sum(counts):
        raise ValueError(f"{int(shown.sum())} image tokens, but the grids {[list(s) for s in sizes]} have {sum(counts)}")
    mrope = text.repeat(3, 1)
    at = shown.nonzero()[:, 0]
    begin = 0
    for grid, count in zip(sizes, counts):
        first = int(at[begin])
        height, width = grid[1:3] if isinstance(grid, ClipGrid) else grid
        cell = torch.arange(count)
        frame = cell // (height * width)
        seconds = grid.seconds if isinstance(grid, ClipGrid) else 0.0
        spread = torch.stack([(frame * (seconds * TOKENS_PER_SECOND)).long(), cell // width % height, cell % width])
        mrope[:, first : first + count] = int(mrope[0, first]) + spread
        mrope[:, first + count :] -= count - int(spread.max()) - 1
        begin += count
    return torch.cat([text[None], mrope])
