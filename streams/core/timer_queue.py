"""`TimerQueue`: the times at which rows are due, in buckets of 72 minutes with lazy deletion.

An entry of a later bucket is only the key of its row, 8 bytes, because the row itself holds its time. A tuple of time
and key would cost 112 bytes. The earliest bucket becomes a binary heap of (time, key) when it is read.

An item that opens now is due in hours or days. If it is resolved within a minute, its entry would stay until then.
Removing an entry from the middle of a heap costs a search. Therefore a changed timer only marks its old entry as stale;
stale entries are dropped when their bucket is read. When more than half of the entries are stale, the valid entries are
moved to new buckets, a few per call of `compact`, because a partition may have millions of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush

__all__ = ["TimerQueue"]

_MIN_STALE = 64  # stale entries below which compaction is not worth its cost
# A bucket has 2**32 µs, 72 minutes: 30 days are 600 buckets, so that a bucket of a partition has many entries.
_BUCKET_BITS = 32

_Entry = tuple[int, bytes]
_TimeOf = Callable[[bytes], int | None]


class _Buckets:
    """Entries by bucket. A bucket is a list of keys, or a heap of (time, key) once it was the earliest one."""

    def __init__(self, time_of: _TimeOf) -> None:
        self._time_of = time_of
        self._keys: dict[int, list[bytes]] = {}
        self._heaps: dict[int, list[_Entry]] = {}
        self._order: list[int] = []  # heap of the numbers of all buckets, and of some that are empty
        self._size = 0
        self._distinct: int | None = None  # the bucket of `_keys` without repeated keys, because `pop_any` has begun it

    def __len__(self) -> int:
        return self._size

    def push(self, time: int, key: bytes) -> None:
        number = time >> _BUCKET_BITS
        self._size += 1
        heap = self._heaps.get(number)
        if heap is not None:
            heappush(heap, (time, key))
            return
        keys = self._keys.get(number)
        if keys is not None:
            keys.append(key)
            return
        self._keys[number] = [key]
        heappush(self._order, number)

    def peek(self) -> _Entry | None:
        """Returns the earliest valid entry. Drops the stale entries before it."""
        while self._order:
            number = self._order[0]
            heap = self._heaps.get(number)
            if heap is None:
                heap = self._heaps[number] = self._open(number)
            while heap:
                time, key = heap[0]
                if self._time_of(key) == time:
                    return time, key
                heappop(heap)
                self._size -= 1
            del self._heaps[number]
            heappop(self._order)
        return None

    def _open(self, number: int) -> list[_Entry]:
        """Returns the valid entries of a bucket of keys as a heap, and removes the bucket."""
        entries = []
        keys = self._keys.pop(number, [])
        for key in set(keys):
            time = self._time_of(key)
            if time is not None and time >> _BUCKET_BITS == number:
                entries.append((time, key))
        self._size -= len(keys) - len(entries)
        heapify(entries)
        return entries

    def pop(self) -> None:
        """Removes the entry that `peek` has just returned."""
        heappop(self._heaps[self._order[0]])
        self._size -= 1

    def pop_any(self) -> Iterator[_Entry | None]:
        """Removes one entry a step, in any order. Yields it if it is valid, else None."""
        while self._keys:
            number, keys = next(reversed(self._keys.items()))
            if self._distinct != number:
                repeated = len(keys)
                keys[:] = set(keys)
                self._size -= repeated - len(keys)
                self._distinct = number
            while keys:
                key = keys.pop()
                self._size -= 1
                time = self._time_of(key)
                yield (time, key) if time is not None and time >> _BUCKET_BITS == number else None
                if self._keys.get(number) is not keys:
                    break  # `peek` has made it a heap
            if self._keys.get(number) is keys:
                del self._keys[number]
        while self._heaps:
            number, heap = next(reversed(self._heaps.items()))
            while heap:
                time, key = heap.pop()  # a heap without its last element is still a heap
                self._size -= 1
                yield (time, key) if self._time_of(key) == time else None
            if self._heaps.get(number) is heap:
                del self._heaps[number]


class TimerQueue:
    """`time_of` returns the current timer of a key in microseconds, None if it has none. An entry with another time
    than that is stale."""

    def __init__(self, time_of: _TimeOf) -> None:
        self._time_of = time_of
        self._entries = _Buckets(time_of)
        self._compacting: _Buckets | None = None  # the former entries; the valid ones move to `_entries`
        self._taken: Iterator[_Entry | None] = iter(())
        self._stale_count = 0  # stale entries of `_entries`, approximately

    def __len__(self) -> int:
        """Returns the number of entries, stale ones included."""
        return len(self._entries) + (len(self._compacting) if self._compacting is not None else 0)

    def load(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Replaces all entries."""
        self._entries, self._compacting, self._stale_count = _Buckets(self._time_of), None, 0
        for time, key in entries:
            self.push(time, key)

    def push(self, time: int, key: bytes) -> None:
        """Adds an entry; `time` in microseconds."""
        self._entries.push(time, key)

    def invalidate(self) -> None:
        """Counts one more stale entry: the timer of some row changed or was removed."""
        self._stale_count += 1

    def peek(self) -> tuple[int, bytes] | None:
        """Returns the earliest valid entry, of equal times the one with the lowest key. None if there is none."""
        first = self._entries.peek()
        other = self._compacting.peek() if self._compacting is not None else None
        if first is None or other is None:
            return first or other
        return min(first, other)

    def pop(self) -> tuple[int, bytes] | None:
        """Removes and returns the entry that `peek` returns."""
        entry = self.peek()
        if entry is not None:
            if self._entries.peek() == entry:
                self._entries.pop()
            else:
                assert self._compacting is not None
                self._compacting.pop()
        return entry

    def compact(self, max_entries: int) -> None:
        """Moves at most `max_entries` entries to the new buckets without the stale ones.

        Starts a compaction if more than half of the entries are stale. Does nothing otherwise.
        """
        if self._compacting is None:
            if self._stale_count <= _MIN_STALE or self._stale_count * 2 <= len(self._entries):
                return
            self._entries, self._compacting = _Buckets(self._time_of), self._entries
            self._taken, self._stale_count = self._compacting.pop_any(), 0
        for _ in range(max_entries):
            try:
                entry = next(self._taken)
            except StopIteration:
                self._compacting = None
                return
            if entry is not None:
                self.push(*entry)
