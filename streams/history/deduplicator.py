"""Which facts are news: not in ClickHouse yet. With this, plain counts there are exact (CONTRACT §6).

The facts of a partition have increasing places. So a fact beyond the highest place in ClickHouse is news, at the cost
of one comparison. Two things break that, both rare:

- A fact at or before it is a repeat (the worker or this process was killed between writing and saying so), unless an
  insert was cut short. Then ClickHouse is asked for exactly these places.
- The log fell back (its broker lost what it had acknowledged): the fold goes on at a place far ahead, and accepts
  anew, at other places, events of which it has forgotten that it told. Then events are compared as well.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import lt
from typing import Any, Protocol

from schemas.facts import Fact
from streams.history import metrics
from streams.history.clickhouse.columns import Place, as_old, at, digest, place

__all__ = ["JUMP", "Admission", "Entries", "Entry", "History"]

log = logging.getLogger(__name__)

# A fold whose log fell back goes on this much further at least (streams.core.fold.fold.JUMP is twice
# this); no other gap
# between the positions of two facts comes near. Also the size of a stretch in table `activity`.
JUMP = 1 << 23

# A fact and the record it came in.
Entry = tuple[Fact, Any]


@dataclass(slots=True)
class Entries:
    """Entries, facts and records side by side. (As pairs they would be many objects that the garbage collector looks
    at again and again.)"""

    facts: list[Fact] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        found = cls()
        for fact, record in entries:
            found.facts.append(fact)
            found.records.append(record)
        return found

    def __iter__(self) -> Iterator[Entry]:
        return zip(self.facts, self.records, strict=True)

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, some: slice) -> Entries:
        return Entries(self.facts[some], self.records[some])

    def extend(self, others: Entries) -> None:
        self.facts += others.facts
        self.records += others.records


_NOWHERE: Place = (-1, -1)


class History(Protocol):
    """What is asked of ClickHouse (streams.history.clickhouse.repository.Store)."""

    def last(self, partition: int) -> Place | None: ...
    def events(self, partition: int, facts: Collection[Fact]) -> set[tuple[int, int, str]]: ...
    def known(self, partition: int, events: Collection[tuple[str, str]]) -> set[tuple[str, str]]: ...
    def jumps(self, partition: int, days: float) -> list[int]: ...
    def digests(self, partition: int, high: int) -> array[int]: ...


class Admission:
    """Of one partition. To be made anew whenever it is not certain that what was admitted has been inserted.

    `days`: how long after the log fell back an event may be sent again.
    """

    def __init__(self, history: History, partition: int, days: float) -> None:
        self._history = history
        self._partition = partition
        last = history.last(partition)
        self._last = last if last is not None else _NOWHERE
        self._forgotten = [history.digests(partition, high) for high in history.jumps(partition, days)]
        self._forgotten_here: set[int] = set()  # the same, of rows admitted by this object

    def admit(self, entries: Entries) -> Entries:
        """Those of the next entries of the partition that are news; they are to be inserted before the next call."""
        if not self._forgotten and self._goes_on(entries.facts):
            return entries
        news, before = self._by_place(entries)
        if before:
            news += self._absent(before, news)
        if self._forgotten:
            news = self._new_events(news)
        return Entries.of(news)

    def _goes_on(self, facts: Sequence[Fact]) -> bool:
        """Whether each fact is beyond the one before, and none far beyond: as nearly always, and told at once."""
        if not facts or place(facts[0]) <= self._last:
            return False
        positions, indexes = [fact.pos for fact in facts], [fact.index for fact in facts]
        since = positions[0] if self._last == _NOWHERE else self._last[0]
        places, following = (zip(positions, indexes, strict=True) for _ in range(2))
        if positions[-1] - since >= JUMP or not all(map(lt, places, islice(following, 1, None))):
            return False
        self._last = place(facts[-1])
        return True

    def _by_place(self, entries: Entries) -> tuple[list[Entry], list[Entry]]:
        """Those beyond the highest place, and those at or before it."""
        news: list[Entry] = []
        before: list[Entry] = []
        last = self._last
        for entry in entries:
            here = place(entry[0])
            if here > last:
                if here[0] - last[0] >= JUMP and last != _NOWHERE:
                    self._fell_back(last, here, news)
                news.append(entry)
                last = here
            else:
                before.append(entry)
        self._last = last
        return news, before

    def _fell_back(self, last: Place, here: Place, news: Sequence[Entry]) -> None:
        log.warning(
            "partition %d: the log fell back after position %d and goes on at %d; events that come again are compared "
            "with what the history has", self._partition, last[0], here[0],
        )
        self._forgotten.append(self._history.digests(self._partition, last[0]))
        self._forgotten_here.update(digest(fact.ws, fact.event_id) for fact, _ in news)

    def _absent(self, before: Sequence[Entry], news: Sequence[Entry]) -> list[Entry]:
        """Of entries at or before the highest place: those whose fact has no row."""
        there = as_old(self._history.events(self._partition, [fact for fact, _ in before]))
        there.update(at(fact) for fact, _ in news)
        absent = []
        for fact, record in before:
            if (here := at(fact)) not in there:
                there.add(here)
                absent.append((fact, record))
        metrics.DUPLICATES.labels("place").inc(len(before) - len(absent))
        if not absent:
            return absent
        taken = {(position, index) for position, index, _ in there}
        if len(taken) < len(there):
            log.warning(
                "partition %d: facts at positions that others had before (was the broker emptied?); taken in where "
                "the history does not have their events", self._partition,
            )
        return self._unknown(absent, {(fact.ws, fact.event_id) for fact, _ in news})

    def _new_events(self, news: list[Entry]) -> list[Entry]:
        """Without those whose event has a row from before the log fell back."""
        suspects: list[Entry] = []
        fresh: list[Entry] = []
        for entry in news:
            fact = entry[0]
            (suspects if self._may_be_forgotten(digest(fact.ws, fact.event_id)) else fresh).append(entry)
        return fresh + self._unknown(suspects, {(fact.ws, fact.event_id) for fact, _ in fresh}) if suspects else news

    def _may_be_forgotten(self, found: int) -> bool:
        if found in self._forgotten_here:
            return True
        for digests in self._forgotten:
            index = bisect_left(digests, found)
            if index < len(digests) and digests[index] == found:
                return True
        return False

    def _unknown(self, entries: Sequence[Entry], known: set[tuple[str, str]]) -> list[Entry]:
        """One entry for each event that has no row and is not among `known`."""
        known |= self._history.known(self._partition, {(fact.ws, fact.event_id) for fact, _ in entries})
        unknown = []
        for fact, record in entries:
            if (event := (fact.ws, fact.event_id)) not in known:
                known.add(event)
                unknown.append((fact, record))
        if again := len(entries) - len(unknown):
            metrics.DUPLICATES.labels("event").inc(again)
            log.warning("partition %d: %d events came again; the history had them", self._partition, again)
        return unknown
