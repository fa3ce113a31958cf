"""Pictures that were decoded before: size, mode and hash are known, and pixels are decoded again only for whoever needs them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from models.evaluation.vision import content_hash, rgb


@dataclass(eq=False)
class Facts:
    """What is kept of a picture once it was decoded. content: its `content_hash`, once somebody asked for it. changed: by how, of
    pictures made from it."""

    size: tuple[int, int]
    mode: str
    content: str | None = None
    changed: dict[Hashable, Facts] = field(default_factory=dict)


class KnownPicture(Image.Image):
    """A picture without its pixels, which `decode` gives when they are asked for. Pillow's functions ask by themselves."""

    def __init__(self, facts: Facts, decode: Callable[[], Image.Image]) -> None:
        super().__init__()
        self._mode, self._size = facts.mode, facts.size
        self.readonly = 1  # Pillow copies before it changes pixels, which others may hold too
        self.facts = facts
        self._decode = decode

    @classmethod
    def of(cls, picture: Image.Image) -> KnownPicture:
        """One that is decoded."""
        known = cls(Facts(picture.size, picture.mode), lambda: picture)
        known.load()
        return known

    def changed(self, how: Hashable, change: Callable[[Image.Image], Image.Image]) -> KnownPicture:
        """What `change`, a pure function that `how` names, makes of it. Not called where it is known what it makes."""
        if how in self.facts.changed:
            return KnownPicture(self.facts.changed[how], lambda: change(self))
        made = KnownPicture.of(change(self))
        self.facts.changed[how] = made.facts
        return made

    @property
    def im(self) -> Any:
        if self._im is None:
            picture = self._decode()
            picture.load()
            if (picture.size, picture.mode) != (self.size, self.mode):
                raise RuntimeError(f"a picture of {self.size}, {self.mode}, came out as {picture.size}, {picture.mode} when it was decoded again")
            self._im, self.palette, self.info = picture.im, picture.palette, picture.info
        return self._im

    @im.setter
    def im(self, im: Any) -> None:
        self._im = im

    def load(self) -> Any:
        self.im  # noqa: B018 - decodes
        return super().load()


def content_of(picture: Image.Image) -> str:
    """A picture's content hash; computed only where it is not known."""
    if not isinstance(picture, KnownPicture):
        return content_hash(rgb(picture))
    if picture.facts.content is None:
        picture.facts.content = content_hash(rgb(picture))
    return picture.facts.content


def changed(picture: Image.Image, how: Hashable, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """`KnownPicture.changed` of any picture."""
    return picture.changed(how, change) if isinstance(picture, KnownPicture) else change(picture)
