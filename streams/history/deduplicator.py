"""Deduplicates facts before they are inserted, which makes plain `count()` in ClickHouse exact (CONTRACT §6).

Facts of a partition have increasing positions: a fact above the highest stored position is new, at the cost of one
comparison. Two rare cases need a query:

- A fact at or below the highest stored position is a redelivery, unless an earlier insert was cut short. The worker or
  this process was killed between a write and its commit. The repository returns which of these positions are stored.
- After a log truncation (the broker lost acknowledged records) the fold continues at a much higher position. It may
  emit events again that it has forgotten. Then event ids are compared too.
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

# A fact and the Kafka record that held it.
FactRecord = tuple[Fact, Any]


@dataclass(slots=True)
class FactBatch:
    """Facts and their records as two lists. A list of pairs would have many more objects for the garbage collector to
    visit."""

    facts: list[Fact] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, pairs: Iterable[FactRecord]) -> FactBatch:
        batch = cls()
        for fact, record in pairs:
            batch.facts.append(fact)
            batch.records.append(record)
        return batch

    def __iter__(self) -> Iterator[FactRecord]:
        return zip(self.facts, self.records, strict=True)

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, part: slice) -> FactBatch:
        return FactBatch(self.facts[part], self.records[part])

    def extend(self, other: FactBatch) -> None:
        self.facts += other.facts
        self.records += other.records


_BEFORE_ALL: FactPosition = (-1, -1)


class StoredFacts(Protocol):
    """Queries that the deduplicator needs; ActivityRepository documents them."""

    def max_position(self, partition: int) -> FactPosition | None: ...
    def stored_at(self, partition: int, facts: Collection[Fact]) -> set[tuple[int, int, str]]: ...
    def stored_events(self, partition: int, events: Collection[tuple[str, str]]) -> set[tuple[str, str]]: ...
    def jumps(self, partition: int, days: float) -> list[int]: ...
    def digests(self, partition: int, high: int) -> array[int]: ...


class Deduplicator:
    """Deduplicates the facts of one partition. Must be created again when the outcome of an insert is unknown.

    `days`: for how many days after a log truncation an event may be emitted again.
    """

    def __init__(self, stored: StoredFacts, partition: int, days: float) -> None:
        self._stored = stored
        self._partition = partition
        highest = stored.max_position(partition)
        self._last = highest if highest is not None else _BEFORE_ALL
        # Digests of events that the fold may emit again, of each truncation; and those of rows passed by this object.
        self._truncated_digests = [stored.digests(partition, high) for high in stored.jumps(partition, days)]
        self._truncated_digests_here: set[int] = set()

    def filter_new(self, batch: FactBatch) -> FactBatch:
        """Returns the new ones of the partition's next facts. They must be inserted before the next call.

        Raises ClickHouseUnavailable.
        """
        if not self._truncated_digests and self._is_contiguous(batch.facts):
            return batch
        above, below = self._split(batch)
        if below:
            above += self._not_stored(below, above)
        if self._truncated_digests:
            above = self._new_events(above)
        return FactBatch.of(above)

    def _is_contiguous(self, facts: Sequence[Fact]) -> bool:
        """Fast path, nearly always taken: whether positions increase from the last one, and without a jump."""
        if not facts or fact_position(facts[0]) <= self._last:
            return False
        positions, indexes = [fact.pos for fact in facts], [fact.index for fact in facts]
        start = positions[0] if self._last == _BEFORE_ALL else self._last[0]
        each, following = (zip(positions, indexes, strict=True) for _ in range(2))
        if positions[-1] - start >= MIN_POSITION_JUMP or not all(map(lt, each, islice(following, 1, None))):
            return False
        self._last = fact_position(facts[-1])
        return True

    def _split(self, batch: FactBatch) -> tuple[list[FactRecord], list[FactRecord]]:
        """Returns the facts above the highest position so far, and those at or below it."""
        above: list[FactRecord] = []
        below: list[FactRecord] = []
        last = self._last
        for pair in batch:
            position = fact_position(pair[0])
            if position > last:
                if position[0] - last[0] >= MIN_POSITION_JUMP and last != _BEFORE_ALL:
                    self._record_truncation(last, position, above)
                above.append(pair)
                last = position
            else:
                below.append(pair)
        self._last = last
        return above, below

    def _record_truncation(self, last: FactPosition, position: FactPosition, above: Sequence[FactRecord]) -> None:
        log.warning(
            "log truncated: partition %d continues at position %d after %d; events that are emitted again are compared "
            "with the stored ones", self._partition, position[0], last[0],
        )
        self._truncated_digests.append(self._stored.digests(self._partition, last[0]))
        self._truncated_digests_here.update(digest(fact.ws, fact.event_id) for fact, _ in above)

    def _not_stored(self, below: Sequence[FactRecord], above: Sequence[FactRecord]) -> list[FactRecord]:
        """Returns the facts of `below` that have no row."""
        stored = with_old_ids(self._stored.stored_at(self._partition, [fact for fact, _ in below]))
        stored.update(fact_identity(fact) for fact, _ in above)
        missing = []
        for fact, record in below:
            if (identity := fact_identity(fact)) not in stored:
                stored.add(identity)
                missing.append((fact, record))
        metrics.DUPLICATES.labels("place").inc(len(below) - len(missing))
        if not missing:
            return missing
        if len({(position, index) for position, index, _ in stored}) < len(stored):
            log.warning(
                "partition %d: other facts are stored at these positions (was the broker emptied?); facts are inserted "
                "if ClickHouse does not have their events", self._partition,
            )
        return self._unknown(missing, {(fact.ws, fact.event_id) for fact, _ in above})

    def _new_events(self, pairs: list[FactRecord]) -> list[FactRecord]:
        """Drops facts whose event has a row from before a log truncation."""
        suspects: list[FactRecord] = []
        fresh: list[FactRecord] = []
        for pair in pairs:
            fact = pair[0]
            (suspects if self._may_be_truncated(digest(fact.ws, fact.event_id)) else fresh).append(pair)
        if not suspects:
            return pairs
        return fresh + self._unknown(suspects, {(fact.ws, fact.event_id) for fact, _ in fresh})

    def _may_be_truncated(self, event: int) -> bool:
        """Whether the fold may emit the event of this digest again. A collision costs a query."""
        if event in self._truncated_digests_here:
            return True
        for digests in self._truncated_digests:
            index = bisect_left(digests, event)
            if index < len(digests) and digests[index] == event:
                return True
        return False

    def _unknown(self, pairs: Sequence[FactRecord], known: set[tuple[str, str]]) -> list[FactRecord]:
        """Returns one fact of each event that has no row and is not in `known`."""
        known |= self._stored.stored_events(self._partition, {(fact.ws, fact.event_id) for fact, _ in pairs})
        unknown = []
        for fact, record in pairs:
            if (event := (fact.ws, fact.event_id)) not in known:
                known.add(event)
                unknown.append((fact, record))
        if repeated := len(pairs) - len(unknown):
            metrics.DUPLICATES.labels("event").inc(repeated)
            log.warning("partition %d: %d events were emitted again and are stored already", self._partition, repeated)
        return unknown
