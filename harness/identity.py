"""What makes two jobs the same job: the sha256 of a canonical JSON text.

Knows nothing about kinds or payloads. Numbers are canonical by value: 1, 1.0 and 1e0 are one number, because a YAML
author does not mean a difference by them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

_TEXT = {str}
_AS_IT_IS = {type(None), bool, int, str}
"""Exact types, asked first: a set is quicker than isinstance, and a large table digests hundreds of thousands of values."""


def canonical(value: Any) -> Any:
    """The value with mappings sorted, tuples as lists and integral floats as integers.

    Raises TypeError for anything JSON has no word for, and ValueError for NaN and infinities: neither may enter a key.
    """
    if type(value) in _AS_IT_IS or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be part of an identity")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        if not {type(name) for name in value} <= _TEXT and not all(isinstance(name, str) for name in value):
            raise TypeError(f"identity needs text keys, got {sorted(map(repr, value))}")
        return {n: found if type(found := value[n]) in _AS_IT_IS else canonical(found) for n in sorted(value)}
    if isinstance(value, Sequence):
        return [canonical(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be part of an identity")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def text(value: Any) -> str:
    """`value`'s canonical JSON."""
    return value.text if type(value) is Shared else _ENCODER.encode(canonical(value))


def digest(value: Any) -> str:
    """64 hexadecimal digits of the sha256 of `value`'s canonical JSON."""
    return digest_of(text(value))


def digest_of(text: str) -> str:
    """The same of a canonical JSON that is written already, in whole or from the texts of its parts."""
    return hashlib.sha256(text.encode()).hexdigest()


class Shared(dict[str, Any]):
    """A mapping that many jobs share and nobody changes: its canonical JSON is written once."""

    @cached_property
    def text(self) -> str:
        return text(dict(self))
