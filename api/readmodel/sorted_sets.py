"""Sorted sets of byte keys by name, and copy-on-write overlays of them. Pure.

`SortedSets` is a table of named sets. `SortedSetsOverlay` is the same table with changes of its own; the table below
stays as it is. A set of up to 2,000 keys is a plain list, a larger one a `SortedList`, which stays fast at a million.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from sys import intern
from typing import NoReturn, TypeAlias

from sortedcontainers import SortedList

__all__ = ["AnySortedSet", "MissingSets", "Name", "SortedKeys", "SortedSets", "SortedSetsOverlay", "merge_sorted"]

Name = tuple[str, ...]

# Up to this number a plain list is as fast as a SortedList and has a tenth of its size. Most sets belong to one user.
_MAX_LIST_KEYS = 2000


class SortedKeys:
    """A sorted set of bytes."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        ordered = sorted(keys)
        self._keys: list[bytes] | SortedList = ordered if len(ordered) <= _MAX_LIST_KEYS else SortedList(ordered)

    def add(self, key: bytes) -> None:
        """Adds a key that the set does not hold."""
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
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            del keys[index]

    def __contains__(self, key: bytes) -> bool:
        keys = self._keys
        if not isinstance(keys, list):
            return key in keys
        index = bisect_left(keys, key)
        return index < len(keys) and keys[index] == key

    def __len__(self) -> int:
        return len(self._keys)

    def count_above(self, key: bytes) -> int:
        """Returns the number of keys that are greater than `key`."""
        keys = self._keys
        return len(keys) - (bisect_right(keys, key) if isinstance(keys, list) else keys.bisect_right(key))

    def ascending(self, after: bytes = b"", until: bytes | None = None) -> Iterator[bytes]:
        """Yields the keys with after < key < until."""
        keys = self._keys
        if not isinstance(keys, list):
            yield from keys.irange(after, until, (False, False))
            return
        for index in range(bisect_right(keys, after), len(keys) if until is None else bisect_left(keys, until)):
            yield keys[index]

    def descending(self, before: bytes | None = None) -> Iterator[bytes]:
        """Yields the keys in descending order; with `before`, those that are less."""
        keys = self._keys
        if before is None:
            return reversed(keys)
        if not isinstance(keys, list):
            return iter(keys.irange(None, before, (True, False), reverse=True))
        return (keys[index] for index in range(bisect_left(keys, before) - 1, -1, -1))

    def difference_after(self, subset: SortedKeys, after: bytes) -> Iterator[bytes]:
        """Yields the keys greater than `after` that are not in `subset`, all of whose keys are in this set.

        Uses a galloping search: a run of excluded keys costs a number of steps that is logarithmic in its length.
        The search is correct because `subset` is a subset: if the keys at the same distance ahead are equal in both
        sequences, then all keys between are equal too.
        """
        left, right = self._keys, subset._keys
        left_index = len(left) - self.count_above(after)
        right_index = len(right) - subset.count_above(after)
        while left_index < len(left):
            run_length = _common_run_length(left, left_index, right, right_index)
            if run_length:
                left_index += run_length
                right_index += run_length
            else:
                yield left[left_index]
                left_index += 1


def _common_run_length(
    left: list[bytes] | SortedList, left_index: int, right: list[bytes] | SortedList, right_index: int
) -> int:
    """Returns how many keys from these indexes on are equal in both sequences, by galloping search.

    The step doubles until the keys differ. Binary search then locates the end of the run between the last two steps.
    """
    limit = min(len(left) - left_index, len(right) - right_index)
    equal_length = 0  # the first `equal_length` keys are equal
    probe = 1  # length that is checked next
    while probe <= limit and left[left_index + probe - 1] == right[right_index + probe - 1]:
        equal_length = probe
        probe = 2 * probe
    different_length = min(probe, limit + 1)
    while different_length - equal_length > 1:
        middle = (equal_length + different_length) // 2
        if left[left_index + middle - 1] == right[right_index + middle - 1]:
            equal_length = middle
        else:
            different_length = middle
    return equal_length


class _SetOverlay:
    """A set of keys: `base` without the removed keys and with the added ones. `base` stays as it is."""

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
        removed = sum(other > key for other in self._removed)
        return self._base.count_above(key) + self._added.count_above(key) - removed

    def ascending(self, after: bytes = b"", until: bytes | None = None) -> Iterator[bytes]:
        kept = (key for key in self._base.ascending(after, until) if key not in self._removed)
        return heapq.merge(kept, self._added.ascending(after, until))

    def descending(self, before: bytes | None = None) -> Iterator[bytes]:
        kept = (key for key in self._base.descending(before) if key not in self._removed)
        return heapq.merge(kept, self._added.descending(before), reverse=True)


AnySortedSet: TypeAlias = SortedKeys | _SetOverlay


def _interned(name: Name) -> Name:
    """Returns the name with interned strings. Each decoded row has strings of its own for its kind, state and user, and
    an edge keeps the names of a hundred thousand sets."""
    return tuple(map(intern, name))


class SortedSets:
    """Sorted sets by name. The table holds no empty set."""

    def __init__(self) -> None:
        self._sets: dict[Name, SortedKeys] = {}

    def get(self, name: Name) -> SortedKeys | None:
        return self._sets.get(name)

    def add(self, name: Name, key: bytes) -> None:
        keys = self._sets.get(name)
        if keys is None:
            keys = self._sets[_interned(name)] = SortedKeys()
        keys.add(key)

    def discard(self, name: Name, key: bytes) -> None:
        keys = self._sets.get(name)
        if keys is not None:
            keys.discard(key)
            if not len(keys):
                del self._sets[name]

    def fill(self, name: Name, keys: Iterable[bytes]) -> None:
        """Sets all keys of a set at once: one sort, instead of one insertion for each of a million keys."""
        self._sets[_interned(name)] = SortedKeys(keys)


class MissingSets(SortedSets):
    """Table of a workspace without indexes. Every use raises RuntimeError, because an empty table would look like an
    empty inbox."""

    def get(self, name: Name) -> NoReturn:
        raise RuntimeError(f"index {name[0]!r} of a workspace that has no indexes: request it with Edge.workspace")

    def add(self, name: Name, key: bytes) -> NoReturn:
        self.get(name)

    def discard(self, name: Name, key: bytes) -> NoReturn:
        self.get(name)

    def fill(self, name: Name, keys: Iterable[bytes]) -> NoReturn:
        self.get(name)


class SortedSetsOverlay:
    """The table `base` with changes of its own. `base` stays as it is."""

    def __init__(self, base: SortedSets) -> None:
        self._base = base
        self._overlays: dict[Name, _SetOverlay] = {}

    def get(self, name: Name) -> AnySortedSet | None:
        overlay = self._overlays.get(name)
        if overlay is None:
            return self._base.get(name)
        return overlay if len(overlay) else None

    def _overlay(self, name: Name) -> _SetOverlay:
        overlay = self._overlays.get(name)
        if overlay is None:
            overlay = self._overlays[name] = _SetOverlay(self._base.get(name) or SortedKeys())
        return overlay

    def add(self, name: Name, key: bytes) -> None:
        self._overlay(name).add(key)

    def discard(self, name: Name, key: bytes) -> None:
        self._overlay(name).discard(key)


def merge_sorted(sources: Iterable[Iterator[bytes]], descending: bool = False) -> Iterator[bytes]:
    """Yields the union of sorted sequences in order, each key once."""
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
