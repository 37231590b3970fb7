"""Integrates the positions of items in one list over time, under one policy. Pure.

A `Placement` is a period in which an item was listed. Its position is integrated exactly. Fenwick trees over all keys
hold the number of items ahead of each key, integrated over time. So a change costs O(log keys) and moves no other item.

A list of n items has the positions 1..n at every moment, under any policy. So the sum of all placements' positions over
time does not depend on the policy, nor does their total time in the first k. The tests check both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from sortedcontainers import SortedList

from ops.cli.rank_report.policy import Key, Policy, RankedItem, band_under, due_of, policy_rank_key

__all__ = ["FIRST", "ListChange", "Placement", "placements"]

# Ends of the measured ranges of positions: the first item, the top of the list, one screen.
FIRST = (1, 3, 10)
_MOST = max(FIRST)

# Time in microseconds, item id, and how the item ranks from then on; None: it is not listed. Ordered for each item.
ListChange = tuple[int, str, RankedItem | None]


@dataclass(slots=True)
class Placement:
    """A period in which an item was listed. Times are microseconds; `kind` and `priority` are the last ones.

    `ended` is False if the item was still listed at the end. `position_time`: the position, integrated over time.
    `first`: time within each of FIRST. `seen`: time until the item came into the last of FIRST; None if it never did.
    `last_position`, `last_band`: when the item left. `decided`: the item left because it was decided.
    """

    item: str
    kind: str
    priority: str
    start: int
    end: int = 0
    ended: bool = True
    position_time: int = 0
    first: list[int] = field(default_factory=lambda: [0] * len(FIRST))
    seen: int | None = None
    last_position: int = 0
    last_band: int = 0
    decided: bool = False

    @property
    def length(self) -> int:
        return self.end - self.start


def placements(changes: Iterable[ListChange], policy: Policy, end: int) -> list[Placement]:
    """Returns the placements of one list until `end`, sorted by item and start. Those of length 0 are omitted."""
    moves = _moves(changes, policy, end)
    timeline = _RankTimeline(sorted({key for _, _, key in moves if key is not None}))
    for time, ranked, key in moves:
        left = timeline.move(time, ranked, key)
        if left is not None:
            left.last_band = band_under(ranked, policy, due_of(ranked, policy) <= time)
    return timeline.close(end)


def _moves(changes: Iterable[ListChange], policy: Policy, end: int) -> list[tuple[int, RankedItem, Key | None]]:
    """Returns the changes as rank keys, sorted by time, and one more move when an item becomes overdue."""
    by_item: dict[str, list[ListChange]] = {}
    for change in changes:
        if change[0] <= end:
            by_item.setdefault(change[1], []).append(change)
    moves: list[tuple[int, RankedItem, Key | None]] = []
    for item_changes in by_item.values():
        last: RankedItem | None = None
        for number, (time, _, ranked) in enumerate(item_changes):
            until = item_changes[number + 1][0] if number + 1 < len(item_changes) else end
            if ranked is not None:
                due = due_of(ranked, policy)
                moves.append((time, ranked, policy_rank_key(ranked, policy, due <= time)))
                if time < due < until:
                    moves.append((due, ranked, policy_rank_key(ranked, policy, True)))
            elif last is not None:
                moves.append((time, last, None))
            last = ranked
    moves.sort(key=itemgetter(0))
    return moves


class _RankTimeline:
    """The list at the current time, and integrals over the time before. `keys`: all keys that will occur, sorted."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._index_of = {key: index for index, key in enumerate(keys)}
        self._counts, self._sums = [0] * (len(keys) + 1), [0] * (len(keys) + 1)
        self._listed: SortedList[int] = SortedList()
        # Item -> its placement, the index of its key, and `_ahead` of that index when the item moved there.
        self._open: dict[str, tuple[Placement, int, int]] = {}
        self._by_index: dict[int, Placement] = {}
        self._front: list[int] = []  # indexes of the keys at the first _MOST positions
        self._now = 0
        self._ended: list[Placement] = []

    def move(self, time: int, ranked: RankedItem, key: Key | None) -> Placement | None:
        """Moves an item to another key, or removes it (None). Returns the placement that this ended."""
        self._advance(time)
        opened = self._open.pop(ranked.item, None)
        index = None if key is None else self._index_of[key]
        if opened is not None:
            stay, old_index, old_ahead = opened
            if index == old_index:
                self._open[ranked.item] = opened
                stay.kind, stay.priority = ranked.kind, ranked.priority
                return None
            stay.last_position = self._listed.index(old_index) + 1 if index is None else 0
            self._leave(old_index)
            stay.position_time += self._ahead(old_index) - old_ahead
        else:
            stay = Placement(ranked.item, ranked.kind, ranked.priority, time)
        if index is None:
            self._finish(stay, time)
            return stay
        stay.kind, stay.priority = ranked.kind, ranked.priority
        self._open[ranked.item] = (stay, index, self._ahead(index))
        self._enter(index, stay)
        return None

    def close(self, end: int) -> list[Placement]:
        """Ends the open placements at `end`. Returns all placements."""
        self._advance(end)
        for stay, index, old_ahead in self._open.values():
            stay.position_time += self._ahead(index) - old_ahead
            stay.ended = False
            self._finish(stay, end)
        return sorted(self._ended, key=lambda stay: (stay.item, stay.start))

    def _finish(self, stay: Placement, end: int) -> None:
        stay.end = end
        stay.position_time += stay.length  # a position is the number of items ahead plus 1
        if stay.length:
            self._ended.append(stay)

    def _advance(self, time: int) -> None:
        """Advances to `time`, and adds the time since the last move to the items at the front."""
        passed = time - self._now
        if passed and self._front:
            for rank, index in enumerate(self._front):
                stay = self._by_index[index]
                if stay.seen is None:
                    stay.seen = self._now - stay.start
                for which, first in enumerate(FIRST):
                    if rank < first:
                        stay.first[which] += passed
        self._now = time

    def _enter(self, index: int, stay: Placement) -> None:
        self._listed.add(index)
        self._by_index[index] = stay
        self._add(index, 1, -self._now)
        self._update_front(index)

    def _leave(self, index: int) -> None:
        self._listed.remove(index)
        del self._by_index[index]
        self._add(index, -1, self._now)
        self._update_front(index)

    def _update_front(self, changed: int) -> None:
        """Updates `_front` if the changed index is among the first _MOST."""
        if len(self._front) < _MOST or changed <= self._front[-1]:
            self._front = list(self._listed[:_MOST])

    def _add(self, index: int, count: int, total: int) -> None:
        counts, sums, number, size = self._counts, self._sums, index + 1, len(self._counts)
        while number < size:
            counts[number] += count
            sums[number] += total
            number += number & -number

    def _ahead(self, index: int) -> int:
        """Returns the number of items ahead of this key, integrated over the time since 0."""
        count = total = 0
        number = index
        while number:
            count += self._counts[number]
            total += self._sums[number]
            number &= number - 1
        return count * self._now + total
