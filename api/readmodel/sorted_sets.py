"""Sorted sets of byte keys: small, fast at a million keys, and with an overlay that can look as they did before.

`Lists` is a table of named sets; `OverlayLists` is the same table with changes on top that leave it as it is.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from sortedcontainers import SortedList

__all__ = ["Name", "SortedKeys", "SortedSets", "SortedSetsOverlay", "merge_sorted"]

Name = tuple[str, ...]

# Up to here a plain list is as fast as a SortedList and a tenth of its size; most sets are one person's.
_MAX_LIST_KEYS = 2000


class SortedKeys:
    """A sorted set of bytes."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        found = sorted(keys)
        self._keys: list[bytes] | SortedList = found if len(found) <= _MAX_LIST_KEYS else SortedList(found)

    def add(self, key: bytes) -> None:
        keys = self._keys
        if not isinstance(keys, list):
            keys.add(key)
            return
        insort(keys, key)
        if len(keys) > _MAX_LIST_KEYS:
            self._keys = SortedList(keys)

    def discard(self, key: bytes) -> None:
        keys = self._keys
        if not isinstance(keys, list):
            keys.discard(key)
            return
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            del keys[at]

    def __contains__(self, key: bytes) -> bool:
        keys = self._keys
        if not isinstance(keys, list):
            return key in keys
        at = bisect_left(keys, key)
        return at < len(keys) and keys[at] == key

    def __len__(self) -> int:
        return len(self._keys)

    def count_above(self, key: bytes) -> int:
        """How many are greater."""
        keys = self._keys
        return len(keys) - (bisect_right(keys, key) if isinstance(keys, list) else keys.bisect_right(key))

    def ascending(self, after: bytes = b"", until: bytes | None = None) -> Iterator[bytes]:
        """Those with after < key < until."""
        keys = self._keys
        if not isinstance(keys, list):
            yield from keys.irange(after, until, (False, False))
            return
        for at in range(bisect_right(keys, after), len(keys) if until is None else bisect_left(keys, until)):
            yield keys[at]

    def descending(self) -> Iterator[bytes]:
        return reversed(self._keys)

    def difference_after(self, some: SortedKeys, after: bytes) -> Iterator[bytes]:
        """Those greater than `after` that are not in `some`, all of which are here too. However many of these follow
        each other, they are passed over in a few steps: nothing lies between two that are as far apart in both."""
        mine, theirs = self._keys, some._keys
        at, its = (len(keys) - found.count_above(after) for keys, found in ((mine, self), (theirs, some)))
        while at < len(mine):
            passed = _common_run_length(mine, at, theirs, its)
            if not passed:
                yield mine[at]
            at, its = at + (passed or 1), its + passed


def _common_run_length(mine: list[bytes] | SortedList, at: int, theirs: list[bytes] | SortedList, its: int) -> int:
    """How many keys from here on are the same."""
    most = min(len(mine) - at, len(theirs) - its)
    low, high = 0, 1  # as far as they are known to be the same, and where to look next
    while high <= most and mine[at + high - 1] == theirs[its + high - 1]:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if mine[at + middle - 1] == theirs[its + middle - 1] else (low, middle)
    return low


class _SetOverlay:
    """A set of keys as `base` less `gone` plus `added`; `base` stays as it is."""

    __slots__ = ("_added", "_base", "_removed")

    def __init__(self, base: SortedKeys) -> None:
        self._base = base
        self._added = SortedKeys()
        self._removed: set[bytes] = set()

    def add(self, key: bytes) -> None:
        if key in self._removed:
            self._removed.discard(key)
        else:
            self._added.add(key)

    def discard(self, key: bytes) -> None:
        if key in self._added:
            self._added.discard(key)
        elif key in self._base:
            self._removed.add(key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._added or (key not in self._removed and key in self._base)

    def __len__(self) -> int:
        return len(self._base) + len(self._added) - len(self._removed)

    def count_above(self, key: bytes) -> int:
        return self._base.count_above(key) + self._added.count_above(key) - sum(other > key for other in self._removed)

    def ascending(self, after: bytes = b"", until: bytes | None = None) -> Iterator[bytes]:
        kept = (key for key in self._base.ascending(after, until) if key not in self._removed)
        return heapq.merge(kept, self._added.ascending(after, until))

    def descending(self) -> Iterator[bytes]:
        kept = (key for key in self._base.descending() if key not in self._removed)
        return heapq.merge(kept, self._added.descending(), reverse=True)


class SortedSets:
    """Sorted sets by name. An empty one is not there."""

    def __init__(self) -> None:
        self._lists: dict[Name, SortedKeys] = {}

    def get(self, name: Name) -> SortedKeys | None:
        return self._lists.get(name)

    def add(self, name: Name, key: bytes) -> None:
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = SortedKeys()
        found.add(key)

    def discard(self, name: Name, key: bytes) -> None:
        found = self._lists.get(name)
        if found is not None:
            found.discard(key)
            if not len(found):
                del self._lists[name]

    def fill(self, name: Name, keys: Iterable[bytes]) -> None:
        """Sets a whole list at once, which is what loading a million rows can afford."""
        self._lists[name] = SortedKeys(keys)


class SortedSetsOverlay:
    """Like `base`, with changes of its own."""

    def __init__(self, base: SortedSets) -> None:
        self._base = base
        self._over: dict[Name, _SetOverlay] = {}

    def get(self, name: Name) -> _SetOverlay | SortedKeys | None:
        found = self._over.get(name)
        if found is None:
            return self._base.get(name)
        return found if len(found) else None

    def _own(self, name: Name) -> _SetOverlay:
        found = self._over.get(name)
        if found is None:
            found = self._over[name] = _SetOverlay(self._base.get(name) or SortedKeys())
        return found

    def add(self, name: Name, key: bytes) -> None:
        self._own(name).add(key)

    def discard(self, name: Name, key: bytes) -> None:
        self._own(name).discard(key)


def merge_sorted(sources: Iterable[Iterator[bytes]], descending: bool = False) -> Iterator[bytes]:
    """The union of sorted runs, each key once."""
    runs = list(sources)
    if len(runs) <= 1:
        return runs[0] if runs else iter(())
    return _distinct(heapq.merge(*runs, reverse=descending))


def _distinct(keys: Iterator[bytes]) -> Iterator[bytes]:
    last = None
    for key in keys:
        if key != last:
            yield key
            last = key
