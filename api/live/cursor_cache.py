"""Cache of values that are valid at one cursor, bounded by number and bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["CursorCache"]

Name = TypeVar("Name")
Value = TypeVar("Value")


class CursorCache(Generic[Name, Value]):
    """Keeps the newest values: at most `max_values` and `max_bytes`, one value for each name."""

    def __init__(self, max_values: int, max_bytes: int) -> None:
        self._max_values, self._max_bytes = max_values, max_bytes
        self._entries: OrderedDict[Name, tuple[int, Value, int]] = OrderedDict()  # cursor, value, bytes

    def __contains__(self, key: tuple[Name, int]) -> bool:
        return key[0] in self._entries and self._entries[key[0]][0] == key[1]

    @property
    def size(self) -> int:
        return sum(size for _, _, size in self._entries.values())

    def get(self, name: Name, cursor: int) -> Value | None:
        return self._entries[name][1] if (name, cursor) in self else None

    def put(self, name: Name, cursor: int, value: Value, size: int) -> None:
        """Keeps the value. Does not keep a value of more than half of `max_bytes`."""
        self._entries.pop(name, None)
        if size <= self._max_bytes // 2:
            self._entries[name] = cursor, value, size
        while len(self._entries) > self._max_values or self.size > self._max_bytes:
            self._entries.popitem(last=False)
