"""The known formats, and which of them a folder has."""

from __future__ import annotations

from pathlib import Path

from models.parity.lvr import LvrReference
from models.parity.reference import Files, Reference, Unknown
from models.parity.visreflect import VisReflectReference
from models.parity.vreflection import VReflectionReference

FORMATS: tuple[type[Reference], ...] = (VReflectionReference, LvrReference, VisReflectReference)


def open_reference(folder: Path | str) -> Reference:
    """The reference that `folder` holds. Raises Unknown, in one line, where it is none of `FORMATS`."""
    files = Files.read(Path(folder))
    for kind in FORMATS:
        if kind.recognises(files):
            return kind(files)
    known = "; ".join(f"{kind.title} ({kind.described})" for kind in FORMATS)
    raise Unknown(f"{folder}: holds reference tensors of no known format; there are {known}")
