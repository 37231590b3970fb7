"""A small cache of what is true at one cursor, bounded by number and bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["CursorCache"]

Name = TypeVar("Name")
Value = TypeVar("Value")


class CursorCache(Generic[Name, Value]):
    """At most `most` values and `room` bytes, the newest ones; one for each name."""

    def __init__(self, most: int, room: int) -> None:
        self._most, self._room = most, room
        self._held: OrderedDict[Name, tuple[int, Value, int]] = OrderedDict()  # cursor, value, bytes

    def __contains__(self, what: tuple[Name, int]) -> bool:
        return what[0] in self._held and self._held[what[0]][0] == what[1]

    @property
    def size(self) -> int:
        return sum(size for _, _, size in self._held.values())

    def get(self, name: Name, cursor: int) -> Value | None:
        return self._held[name][1] if (name, cursor) in self else None

    def put(self, name: Name, cursor: int, value: Value, size: int) -> None:
        """Keeps the value unless it has more than half of the room."""
        self._held.pop(name, None)
        if size <= self._room // 2:
            self._held[name] = cursor, value, size
        while len(self._held) > self._most or self.size > self._room:
            self._held.popitem(last=False)
