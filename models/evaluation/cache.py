"""A cache in main memory: features of pictures, and decoded pictures."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class BoundedCache:
    """Keeps the most recently used values, which have `nbytes`, up to a number of bytes; the newest is always kept."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.bytes = 0
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def __contains__(self, key: Any) -> bool:
        return key in self._kept

    def get(self, key: Any) -> Any:
        """The value, now the most recently used. KeyError if absent."""
        self._kept.move_to_end(key)
        return self._kept[key]

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much fits without dropping anything."""
        return self.bytes + size_bytes <= self.capacity_bytes

    def put(self, key: Any, value: Any) -> None:
        """Keeps a value; drops the least recently used ones."""
        if key in self._kept:
            self.bytes -= self._kept.pop(key).nbytes
        self._kept[key] = value
        self.bytes += value.nbytes
        while self.bytes > self.capacity_bytes and len(self._kept) > 1:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes
