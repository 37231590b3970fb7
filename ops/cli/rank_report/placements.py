"""Where items stood in a list while they waited in it: the past of one list under one policy. Pure.

Each stretch of time in which an item was listed is a `Placement`. Its place is integrated over time, exactly, without
moving everybody whenever somebody comes or goes: the number of items ahead of a key, summed over time, is kept in a
Fenwick tree over all keys there ever are. So an event costs log(keys), however long the list is.

Whatever the policy, the places of a list of n are 1..n at every moment; so all stays together have the same sum of
places, and the same time in the first k. The tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from sortedcontainers import SortedList

from ops.cli.rank_report.policy import Key, Policy, RankedItem, due_of, policy_rank_key

__all__ = ["FIRST", "ListChange", "Placement", "placements"]

# Time within so many first places is measured: the one at hand, those at a glance, a screenful.
FIRST = (1, 3, 10)
_MOST = max(FIRST)

# From this time on, in microseconds, the item is shown like this; None: it is not in the list. By item, in order.
ListChange = tuple[int, str, RankedItem | None]


@dataclass(slots=True)
class Placement:
    """Times in microseconds; `places` is place times time. `seen`: how long it took to come into the last of FIRST,
    None if it never did. `ended` False: it was still listed at the end. Kind and priority are the last ones."""

    item: str
    kind: str
    priority: str
    start: int
    end: int = 0
    ended: bool = True
    places: int = 0
    first: list[int] = field(default_factory=lambda: [0] * len(FIRST))
    seen: int | None = None

    @property
    def length(self) -> int:
        return self.end - self.start


def placements(changes: Iterable[ListChange], policy: Policy, end: int) -> list[Placement]:
    """The stays of one list until `end`, by item and start. Those of no length are left out."""
    moves = _moves(changes, policy, end)
    line = _RankTimeline(sorted({key for _, _, key in moves if key is not None}))
    for time, one, key in moves:
        line.move(time, one, key)
    return line.close(end)


def _moves(changes: Iterable[ListChange], policy: Policy, end: int) -> list[tuple[int, RankedItem, Key | None]]:
    """The same as keys, by time: an item also moves when it becomes overdue."""
    by_item: dict[str, list[ListChange]] = {}
    for change in changes:
        if change[0] <= end:
            by_item.setdefault(change[1], []).append(change)
    found: list[tuple[int, RankedItem, Key | None]] = []
    for mine in by_item.values():
        last: RankedItem | None = None
        for number, (time, _, one) in enumerate(mine):
            until = mine[number + 1][0] if number + 1 < len(mine) else end
            if one is not None:
                due = due_of(one, policy)
                found.append((time, one, policy_rank_key(one, policy, due <= time)))
                if time < due < until:
                    found.append((due, one, policy_rank_key(one, policy, True)))
            elif last is not None:
                found.append((time, last, None))
            last = one
    found.sort(key=itemgetter(0))
    return found


class _RankTimeline:
    """The list at one moment, and the sums since the first one. `keys`: all there will be, sorted."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._place = {key: place for place, key in enumerate(keys)}
        self._counts, self._sums = [0] * (len(keys) + 1), [0] * (len(keys) + 1)
        self._listed: SortedList[int] = SortedList()
        # Item -> its placement, place of its key, items ahead x time when it got that place.
        self._open: dict[str, tuple[Placement, int, int]] = {}
        self._by_place: dict[int, Placement] = {}
        self._front: list[int] = []  # places of the keys of the first _MOST
        self._now = 0
        self._done: list[Placement] = []

    def move(self, time: int, one: RankedItem, key: Key | None) -> None:
        self._forward(time)
        known = self._open.pop(one.item, None)
        place = None if key is None else self._place[key]
        if known is not None:
            stay, before, ahead = known
            if place == before:
                self._open[one.item] = known
                stay.kind, stay.priority = one.kind, one.priority
                return
            self._leave(before)
            stay.places += self._ahead(before) - ahead
        else:
            stay = Placement(one.item, one.kind, one.priority, time)
        if place is None:
            self._finish(stay, time)
            return
        stay.kind, stay.priority = one.kind, one.priority
        self._open[one.item] = (stay, place, self._ahead(place))
        self._enter(place, stay)

    def close(self, end: int) -> list[Placement]:
        self._forward(end)
        for stay, place, ahead in self._open.values():
            stay.places += self._ahead(place) - ahead
            stay.ended = False
            self._finish(stay, end)
        return sorted(self._done, key=lambda stay: (stay.item, stay.start))

    def _finish(self, stay: Placement, end: int) -> None:
        stay.end = end
        stay.places += stay.length  # its own place: one more than the items ahead
        if stay.length:
            self._done.append(stay)

    def _forward(self, time: int) -> None:
        """The first ones stood there until now."""
        passed = time - self._now
        if passed and self._front:
            for number, place in enumerate(self._front):
                stay = self._by_place[place]
                if stay.seen is None:
                    stay.seen = self._now - stay.start
                for which, first in enumerate(FIRST):
                    if number < first:
                        stay.first[which] += passed
        self._now = time

    def _enter(self, place: int, stay: Placement) -> None:
        self._listed.add(place)
        self._by_place[place] = stay
        self._add(place, 1, -self._now)
        self._look(place)

    def _leave(self, place: int) -> None:
        self._listed.remove(place)
        del self._by_place[place]
        self._add(place, -1, self._now)
        self._look(place)

    def _look(self, changed: int) -> None:
        if len(self._front) < _MOST or changed <= self._front[-1]:
            self._front = list(self._listed[:_MOST])

    def _add(self, place: int, count: int, total: int) -> None:
        counts, sums, number, size = self._counts, self._sums, place + 1, len(self._counts)
        while number < size:
            counts[number] += count
            sums[number] += total
            number += number & -number

    def _ahead(self, place: int) -> int:
        """Items ahead of this key, times time, since the beginning."""
        count = total = 0
        number = place
        while number:
            count += self._counts[number]
            total += self._sums[number]
            number &= number - 1
        return count * self._now + total
