"""The evidence of a clip: which frames of its temporal spans fill the slots, each encoded as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from models.methods.visreflect.crops import load_crop_processor
from models.methods.visreflect.spec import ClueFrames, Crops
from models.schema import Images

if TYPE_CHECKING:
    from models.backbone.clips import ClipFacts, Span
    from models.training.data import Sample
    from models.training.parse import ClipFile


def clue_frames(spans: Sequence[Span], facts: ClipFacts, most: int) -> list[int]:
    """Numbers of at most `most` frames of a clip. Each span has a share of them by its length, one at least, evenly spaced from
    its first frame to its last; of too many, an even choice remains (release). Without spans, the first frame. Lengths and
    spaces are counted in frames, as in the release, or in seconds where the facts hold the frames' own times."""
    if facts.times is None:
        place, ends = round, [(facts.number(min(span)), facts.number(max(span))) for span in spans]
    else:
        place, ends = facts.number, [tuple(min(max(at, 0.0), facts.seconds) for at in sorted(span)) for span in spans]
    total = sum(high - low for low, high in ends) or 1
    found = sorted({place(at) for low, high in ends for at in _even(low, high, max(1, round(most * (high - low) / total)))})
    if len(found) > most:
        found = [found[round(at)] for at in _even(0, len(found) - 1, most)]
    return found or [0]


def _even(low: float, high: float, count: int) -> list[float]:
    return [low] if count == 1 else [low + (high - low) * step / (count - 1) for step in range(count)]


@dataclass(frozen=True)
class Clue:
    """One clue frame of one clip."""

    file: ClipFile
    number: int
    among: tuple[int, ...] = field(default=(), compare=False)
    """All clue frames of the sample."""

    @property
    def key(self) -> str:
        """The same on every machine."""
        return f"{self.file.key}@{self.number}"


@dataclass(frozen=True)
class CluePieces:
    """Clue frames of this number and size, as `models.methods.base.Pieces`: all of a sample's fill its one segment."""

    clues: ClueFrames

    def of(self, sample: Sample) -> list[Clue]:
        if not sample.spans:
            return []
        file = sample.images[0]
        numbers = tuple(clue_frames(sample.spans, file.facts, self.clues.most))
        return [Clue(file, number, numbers) for number in numbers]

    def processor(self, checkpoint: Path | str, images: Images) -> Any:
        limits = Crops(min_tokens=self.clues.min_tokens, max_tokens=self.clues.max_tokens)
        return load_crop_processor(checkpoint, images, limits)

    def open(self, piece: Clue, processor: Any) -> Image.Image:
        return piece.file.frame(piece.number, piece.among)

    def cut(self, picture: Image.Image, box: Sequence[float], processor: Any) -> Image.Image:
        """A box of a frame says nothing here: the whole frame is the evidence."""
        return picture
