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
from streams.history.clickhouse.columns import (
    MIN_POSITION_JUMP,
    FactPosition,
    digest,
    fact_identity,
    fact_position,
    with_old_ids,
)

__all__ = ["Deduplicator", "FactBatch", "FactRecord", "StoredFacts"]

log = logging.getLogger(__name__)

# A fact and the record it came in.
FactRecord = tuple[Fact, Any]


@dataclass(slots=True)
class FactBatch:
    """Entries, facts and records side by side. (As pairs they would be many objects that the garbage collector looks
    at again and again.)"""

    facts: list[Fact] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[FactRecord]) -> FactBatch:
        found = cls()
        for fact, record in entries:
            found.facts.append(fact)
            found.records.append(record)
        return found

    def __iter__(self) -> Iterator[FactRecord]:
        return zip(self.facts, self.records, strict=True)

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, some: slice) -> FactBatch:
        return FactBatch(self.facts[some], self.records[some])

    def extend(self, others: FactBatch) -> None:
        self.facts += others.facts
        self.records += others.records


_NOWHERE: FactPosition = (-1, -1)


class StoredFacts(Protocol):
    """What is asked of ClickHouse (streams.history.clickhouse.repository.Store)."""

    def max_position(self, partition: int) -> FactPosition | None: ...
    def stored_at(self, partition: int, facts: Collection[Fact]) -> set[tuple[int, int, str]]: ...
    def stored_events(self, partition: int, events: Collection[tuple[str, str]]) -> set[tuple[str, str]]: ...
    def jumps(self, partition: int, days: float) -> list[int]: ...
    def digests(self, partition: int, high: int) -> array[int]: ...


class Deduplicator:
    """Of one partition. To be made anew whenever it is not certain that what was admitted has been inserted.

    `days`: how long after the log fell back an event may be sent again.
    """

    def __init__(self, history: StoredFacts, partition: int, days: float) -> None:
        self._history = history
        self._partition = partition
        last = history.max_position(partition)
        self._last = last if last is not None else _NOWHERE
        self._truncated_digests = [history.digests(partition, high) for high in history.jumps(partition, days)]
        self._truncated_digests_here: set[int] = set()  # the same, of rows admitted by this object

    def filter_new(self, entries: FactBatch) -> FactBatch:
        """Those of the next entries of the partition that are news; they are to be inserted before the next call."""
        if not self._truncated_digests and self._is_contiguous(entries.facts):
            return entries
        news, before = self._by_place(entries)
        if before:
            news += self._not_stored(before, news)
        if self._truncated_digests:
            news = self._new_events(news)
        return FactBatch.of(news)

    def _is_contiguous(self, facts: Sequence[Fact]) -> bool:
        """Whether each fact is beyond the one before, and none far beyond: as nearly always, and told at once."""
        if not facts or fact_position(facts[0]) <= self._last:
            return False
        positions, indexes = [fact.pos for fact in facts], [fact.index for fact in facts]
        since = positions[0] if self._last == _NOWHERE else self._last[0]
        places, following = (zip(positions, indexes, strict=True) for _ in range(2))
        if positions[-1] - since >= MIN_POSITION_JUMP or not all(map(lt, places, islice(following, 1, None))):
            return False
        self._last = fact_position(facts[-1])
        return True

    def _by_place(self, entries: FactBatch) -> tuple[list[FactRecord], list[FactRecord]]:
        """Those beyond the highest place, and those at or before it."""
        news: list[FactRecord] = []
        before: list[FactRecord] = []
        last = self._last
        for entry in entries:
            here = fact_position(entry[0])
            if here > last:
                if here[0] - last[0] >= MIN_POSITION_JUMP and last != _NOWHERE:
                    self._fell_back(last, here, news)
                news.append(entry)
                last = here
            else:
                before.append(entry)
        self._last = last
        return news, before

    def _fell_back(self, last: FactPosition, here: FactPosition, news: Sequence[FactRecord]) -> None:
        log.warning(
            "partition %d: the log fell back after position %d and goes on at %d; events that come again are compared "
            "with what the history has", self._partition, last[0], here[0],
        )
        self._truncated_digests.append(self._history.digests(self._partition, last[0]))
        self._truncated_digests_here.update(digest(fact.ws, fact.event_id) for fact, _ in news)

    def _not_stored(self, before: Sequence[FactRecord], news: Sequence[FactRecord]) -> list[FactRecord]:
        """Of entries at or before the highest place: those whose fact has no row."""
        there = with_old_ids(self._history.stored_at(self._partition, [fact for fact, _ in before]))
        there.update(fact_identity(fact) for fact, _ in news)
        absent = []
        for fact, record in before:
            if (here := fact_identity(fact)) not in there:
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

    def _new_events(self, news: list[FactRecord]) -> list[FactRecord]:
        """Without those whose event has a row from before the log fell back."""
        suspects: list[FactRecord] = []
        fresh: list[FactRecord] = []
        for entry in news:
            fact = entry[0]
            (suspects if self._may_be_truncated(digest(fact.ws, fact.event_id)) else fresh).append(entry)
        return fresh + self._unknown(suspects, {(fact.ws, fact.event_id) for fact, _ in fresh}) if suspects else news

    def _may_be_truncated(self, found: int) -> bool:
        if found in self._truncated_digests_here:
            return True
        for digests in self._truncated_digests:
            index = bisect_left(digests, found)
            if index < len(digests) and digests[index] == found:
                return True
        return False

    def _unknown(self, entries: Sequence[FactRecord], known: set[tuple[str, str]]) -> list[FactRecord]:
        """One entry for each event that has no row and is not among `known`."""
        known |= self._history.stored_events(self._partition, {(fact.ws, fact.event_id) for fact, _ in entries})
        unknown = []
        for fact, record in entries:
            if (event := (fact.ws, fact.event_id)) not in known:
                known.add(event)
                unknown.append((fact, record))
        if again := len(entries) - len(unknown):
            metrics.DUPLICATES.labels("event").inc(again)
            log.warning("partition %d: %d events came again; the history had them", self._partition, again)
        return unknown
