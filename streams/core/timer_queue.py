"""`TimerQueue`: the times at which rows are due, as a binary heap with lazy deletion.

An item that opens now is due in hours or days. If it is resolved within a minute, its entry would stay until then.
Removing an entry from the middle of a heap costs a search. So a changed timer only marks its old entry as stale; stale
entries are dropped when they reach the top. When more than half of the heap is stale, the valid entries are moved to a
new heap, a few per call of `compact`, because a partition may have millions of them.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

__all__ = ["TimerQueue"]

_MIN_STALE = 64  # stale entries below which compaction is not worth its cost


class TimerQueue:
    """`time_of` returns the current timer of a key in microseconds, None if it has none. An entry with another time
    than that is stale."""

    def __init__(self, time_of: Callable[[bytes], int | None]) -> None:
        self._time_of = time_of
        self._heap: list[tuple[int, bytes]] = []
        self._compacting: list[tuple[int, bytes]] = []  # the former heap; its valid entries move to `_heap`
        self._stale_count = 0  # stale entries of `_heap`, approximately

    def __len__(self) -> int:
        """Returns the number of entries, stale ones included."""
        return len(self._heap) + len(self._compacting)

    def load(self, entries: list[tuple[int, bytes]]) -> None:
        """Replaces all entries. Takes over the list: the caller must not use it afterwards."""
        heapify(entries)
        self._heap, self._compacting, self._stale_count = entries, [], 0

    def push(self, time: int, key: bytes) -> None:
        """Adds an entry; `time` in microseconds."""
        heappush(self._heap, (time, key))

    def invalidate(self) -> None:
        """Counts one more stale entry: the timer of some row changed or was removed."""
        self._stale_count += 1

    def peek(self) -> tuple[int, bytes] | None:
        """Returns the earliest valid entry, of equal times the one with the lowest key. None if there is none."""
        tops = [heap[0] for heap in (self._heap, self._compacting) if self._drop_stale(heap)]
        return min(tops) if tops else None

    def pop(self) -> tuple[int, bytes] | None:
        """Removes and returns the entry that `peek` returns."""
        entry = self.peek()
        if entry is not None:
            heappop(self._heap if self._heap and self._heap[0] == entry else self._compacting)
        return entry

    def compact(self, max_entries: int) -> None:
        """Moves at most `max_entries` entries to the new heap without the stale ones.

        Starts a compaction if more than half of the heap is stale. Does nothing otherwise.
        """
        if not self._compacting:
            if self._stale_count <= _MIN_STALE or self._stale_count * 2 <= len(self._heap):
                return
            self._heap, self._compacting, self._stale_count = [], self._heap, 0
        for _ in range(min(max_entries, len(self._compacting))):
            time, key = self._compacting.pop()  # a heap without its last element is still a heap
            if self._time_of(key) == time:
                heappush(self._heap, (time, key))

    def _drop_stale(self, heap: list[tuple[int, bytes]]) -> bool:
        """Removes stale entries from the top. Returns False if the heap is empty then."""
        while heap:
            time, key = heap[0]
            if self._time_of(key) == time:
                return True
            heappop(heap)
        return False
