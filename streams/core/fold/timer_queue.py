"""When which row is due: a priority queue whose entries go stale when a row's time changes, and are swept.

An item opened now is due in hours or days; resolved in a minute, it leaves its entry behind for as long. Taking one out
of the middle of a heap costs a search, so stale entries are skipped when they come up, and once they are most of it the
heap is made anew from what still holds: a few entries at each call of `sweep`, for there may be millions.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

__all__ = ["Timers"]

_FEW = 64  # stale entries that nobody minds


class Timers:
    """`now` tells when a key is due as things are; an entry with another time is stale."""

    def __init__(self, now: Callable[[bytes], int | None]) -> None:
        self._now = now
        self._heap: list[tuple[int, bytes]] = []
        self._old: list[tuple[int, bytes]] = []  # being swept: what holds goes over to `_heap`
        self._stale = 0  # of `_heap`, roughly

    def __len__(self) -> int:
        """Entries, stale ones too."""
        return len(self._heap) + len(self._old)

    def fill(self, entries: list[tuple[int, bytes]]) -> None:
        """Begins with these; takes the list over."""
        heapify(entries)
        self._heap, self._old, self._stale = entries, [], 0

    def push(self, time: int, key: bytes) -> None:
        heappush(self._heap, (time, key))

    def leave(self) -> None:
        """A row's time changed or went: its entry is stale."""
        self._stale += 1

    def first(self) -> tuple[int, bytes] | None:
        """The earliest entry that holds; of the same time the lowest key."""
        found = [heap[0] for heap in (self._heap, self._old) if self._tidy(heap)]
        return min(found) if found else None

    def pop(self) -> tuple[int, bytes] | None:
        """Takes out what `first` gives."""
        entry = self.first()
        if entry is not None:
            heappop(self._heap if self._heap and self._heap[0] == entry else self._old)
        return entry

    def sweep(self, most: int) -> None:
        """Looks at so many entries at most, if that is worth it."""
        if not self._old:
            if self._stale <= _FEW or self._stale * 2 <= len(self._heap):
                return
            self._heap, self._old, self._stale = [], self._heap, 0
        for _ in range(min(most, len(self._old))):
            time, key = self._old.pop()  # the last of a heap leaves a heap
            if self._now(key) == time:
                heappush(self._heap, (time, key))

    def _tidy(self, heap: list[tuple[int, bytes]]) -> bool:
        """Drops stale entries at the top. False: there is nothing left."""
        while heap and self._now(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return bool(heap)
