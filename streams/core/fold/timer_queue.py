"""When which row is due: a priority queue whose entries go stale when a row's time changes, and are swept.

An item opened now is due in hours or days; resolved in a minute, it leaves its entry behind for as long. Taking one out
of the middle of a heap costs a search, so stale entries are skipped when they come up, and once they are most of it the
heap is made anew from what still holds: a few entries at each call of `sweep`, for there may be millions.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

__all__ = ["TimerQueue"]

_MIN_STALE = 64  # stale entries that nobody minds


class TimerQueue:
    """`now` tells when a key is due as things are; an entry with another time is stale."""

    def __init__(self, now: Callable[[bytes], int | None]) -> None:
        self._time_of = now
        self._heap: list[tuple[int, bytes]] = []
        self._compacting: list[tuple[int, bytes]] = []  # being swept: what holds goes over to `_heap`
        self._stale_count = 0  # of `_heap`, roughly

    def __len__(self) -> int:
        """Entries, stale ones too."""
        return len(self._heap) + len(self._compacting)

    def load(self, entries: list[tuple[int, bytes]]) -> None:
        """Begins with these; takes the list over."""
        heapify(entries)
        self._heap, self._compacting, self._stale_count = entries, [], 0

    def push(self, time: int, key: bytes) -> None:
        heappush(self._heap, (time, key))

    def invalidate(self) -> None:
        """A row's time changed or went: its entry is stale."""
        self._stale_count += 1

    def peek(self) -> tuple[int, bytes] | None:
        """The earliest entry that holds; of the same time the lowest key."""
        found = [heap[0] for heap in (self._heap, self._compacting) if self._drop_stale(heap)]
        return min(found) if found else None

    def pop(self) -> tuple[int, bytes] | None:
        """Takes out what `first` gives."""
        entry = self.peek()
        if entry is not None:
            heappop(self._heap if self._heap and self._heap[0] == entry else self._compacting)
        return entry

    def compact(self, most: int) -> None:
        """Looks at so many entries at most, if that is worth it."""
        if not self._compacting:
            if self._stale_count <= _MIN_STALE or self._stale_count * 2 <= len(self._heap):
                return
            self._heap, self._compacting, self._stale_count = [], self._heap, 0
        for _ in range(min(most, len(self._compacting))):
            time, key = self._compacting.pop()  # the last of a heap leaves a heap
            if self._time_of(key) == time:
                heappush(self._heap, (time, key))

    def _drop_stale(self, heap: list[tuple[int, bytes]]) -> bool:
        """Drops stale entries at the top. False: there is nothing left."""
        while heap and self._time_of(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return bool(heap)
