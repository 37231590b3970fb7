"""Inserts batches of `attn.facts` into ClickHouse. Bisects a batch that ClickHouse refuses until it has each bad row,
which becomes a dead letter. Blocking, for one thread.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import compress
from typing import Any, Protocol

import msgspec

from schemas.dead_letters import DeadLetter
from schemas.facts import Fact, Outcome, decode_fact, decode_facts
from schemas.scalars import DAY
from streams.history import metrics
from streams.history.clickhouse.client import ClickHouseError, ClickHouseUnavailable, RowsRefused
from streams.history.clickhouse.columns import columns
from streams.history.deduplicator import Deduplicator, FactBatch, StoredFacts
from streams.runtime.clock import now_us

__all__ = ["InsertPlan", "PendingBatch", "Writer", "facts_of"]

# Errors of one insert that do not name its rows, before the rows are inserted in halves.
MAX_ATTEMPTS_BEFORE_BISECT = 4
# Failed inserts in a row, while halves are inserted, before the errors count as an outage again.
MAX_CONSECUTIVE_FAILURES = 16
_LAST_DAY = 120_530  # days since 1970; the last one that DateTime64 holds: 2299-12-31


class FactSink(StoredFacts, Protocol):
    """Queries and inserts that the writer needs; ActivityRepository documents them."""

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None: ...


class PendingBatch:
    """Facts that were read and are not in ClickHouse yet."""

    def __init__(self) -> None:
        self.count = 0  # records
        self.since = 0.0  # arrival of the first record, monotonic clock
        self.next: dict[int, int] = {}  # partition -> offset after its last record
        self.times: dict[int, float] = {}  # partition -> broker's timestamp of its last record, seconds
        self.entries: dict[int, FactBatch] = {}  # partition -> its facts, in order
        self.letters: list[DeadLetter] = []

    def add(self, partition: int, records: Sequence[Any]) -> None:
        """Adds the next records of a partition, at least one. Decodes them here and not in `plan`: another batch is
        often being inserted meanwhile, which hides the time of decoding."""
        if not self.count:
            self.since = time.monotonic()
        self.count += len(records)
        self.next[partition] = records[-1].offset + 1
        self.times[partition] = records[-1].timestamp / 1000
        self.entries.setdefault(partition, FactBatch()).extend(facts_of(records, self.letters))


@dataclass(slots=True)
class InsertBlock:
    """Rows of one insert. The deduplication token belongs to exactly these rows, so the insert can be retried."""

    partitions: list[int]  # of each entry
    entries: FactBatch
    failures: int = 0
    written_then: int = -1  # of a single row: `InsertPlan.written` when it failed before
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def columns(self) -> list[Sequence[Any]]:
        return columns(self.entries.facts, self.partitions)

    def halves(self) -> list[InsertBlock]:
        """Returns two blocks with new tokens."""
        middle, failures = len(self.entries) // 2, max(0, self.failures - 1)
        return [
            InsertBlock(self.partitions[part], self.entries[part], failures)
            for part in (slice(middle), slice(middle, None))
        ]


@dataclass(slots=True)
class InsertPlan:
    """The inserts of a batch that are still to be made. `letters` are complete once `blocks` is empty."""

    blocks: deque[InsertBlock]
    letters: list[DeadLetter]
    written: int = 0
    consecutive_failures: int = 0


class Writer:
    """Deduplicates and inserts the facts of the partitions that `open` was called with."""

    def __init__(self, store: FactSink, days: float) -> None:
        self._store = store
        self._days = days
        self._deduplicators: dict[int, Deduplicator] = {}

    def open(self, partitions: Collection[int]) -> None:
        """Starts with these partitions and forgets all others. Required again after a plan that was not completed."""
        self._deduplicators = {partition: Deduplicator(self._store, partition, self._days) for partition in partitions}

    def plan(self, batch: PendingBatch) -> InsertPlan:
        """Returns the inserts of a batch: its new facts. After ClickHouseUnavailable, call `open` again."""
        partitions: list[int] = []
        entries = FactBatch()
        for partition, facts in batch.entries.items():
            new = self._deduplicators[partition].filter_new(facts)
            entries.extend(new)
            partitions += [partition] * len(new)
        return InsertPlan(deque(_by_month(partitions, entries)), batch.letters)

    def write(self, plan: InsertPlan) -> None:
        """Makes the inserts of the plan. After ClickHouseUnavailable, call again with the same plan, or call `open`."""
        while plan.blocks:
            block = plan.blocks[0]
            try:
                with metrics.INSERT_SECONDS.time():
                    self._store.insert(block.columns(), block.token)
            except RowsRefused as refused:
                if refused.answered:
                    self._raise_if_stored(block, refused)
                _bisect_refused(plan, str(refused))
            except ClickHouseUnavailable as unavailable:
                block.failures += unavailable.answered
                if block.failures < MAX_ATTEMPTS_BEFORE_BISECT:
                    raise
                self._raise_if_stored(block, unavailable)
                _bisect_failing(plan, str(unavailable))
                if plan.consecutive_failures > MAX_CONSECUTIVE_FAILURES:
                    raise
            else:
                plan.blocks.popleft()
                plan.written += len(block.entries)
                plan.consecutive_failures = 0
                metrics.ROWS.inc(len(block.entries))

    def _raise_if_stored(self, block: InsertBlock, why: ClickHouseError) -> None:
        """Raises ClickHouseUnavailable if a row of the block is in `activity`. Then a materialized view failed, perhaps
        one that the operator added. A retry of the same block may complete it; other blocks would repeat the rows."""
        rows: dict[int, list[Fact]] = {}
        for partition, fact in zip(block.partitions, block.entries.facts, strict=True):
            rows.setdefault(partition, []).append(fact)
        for partition, facts in rows.items():
            stored = self._store.stored_at(partition, facts)
            if any((fact.pos, fact.index, fact.event_id) in stored for fact in facts):
                raise ClickHouseUnavailable(f"rows are in activity, but a view of it failed: {why}") from why


def _by_month(partitions: list[int], entries: FactBatch) -> list[InsertBlock]:
    """Returns one block per month, the partition of `activity`: an insert is atomic only within a partition."""
    days = {fact.at // DAY for fact in entries.facts}
    months = {day: f"{datetime.fromtimestamp(min(max(day, 0), _LAST_DAY) * 86_400, UTC):%Y%m}" for day in days}
    if len(set(months.values())) < 2:
        return [InsertBlock(partitions, entries)] if entries else []
    by_month: dict[str, InsertBlock] = {}
    for partition, fact, record in zip(partitions, entries.facts, entries.records, strict=True):
        block = by_month.setdefault(months[fact.at // DAY], InsertBlock([], FactBatch()))
        block.partitions.append(partition)
        block.entries.facts.append(fact)
        block.entries.records.append(record)
    return list(by_month.values())


def _bisect_refused(plan: InsertPlan, reason: str) -> None:
    """A value of the first block is refused. Replaces the block by its halves; a single row becomes a dead letter."""
    block = plan.blocks.popleft()
    if len(block.entries) > 1:
        plan.blocks.extendleft(reversed(block.halves()))
    else:
        plan.letters.append(_letter(block.entries.records[0], reason))


def _bisect_failing(plan: InsertPlan, reason: str) -> None:
    """A row of the first block may be the cause. Replaces the block by its halves at the end of the queue. A single row
    becomes a dead letter if it fails twice and other rows were inserted in between."""
    plan.consecutive_failures += 1
    block = plan.blocks.popleft()
    if len(block.entries) > 1:
        plan.blocks.extend(block.halves())
    elif 0 <= block.written_then < plan.written:
        plan.letters.append(_letter(block.entries.records[0], reason))
    else:
        block.written_then = plan.written
        plan.blocks.append(block)


def facts_of(records: Sequence[Any], letters: list[DeadLetter]) -> FactBatch:
    """Returns the facts that belong to the history, with their records. Adds unreadable records to `letters`."""
    try:
        facts = decode_facts([record.value or b"" for record in records])
    except (msgspec.DecodeError, UnicodeDecodeError):
        records, facts = _readable(records, letters)
    kept = [type(fact) is Fact and not fact.derived for fact in facts]
    return FactBatch(list(compress(facts, kept)), list(compress(records, kept)))  # type: ignore[arg-type]


def _readable(records: Sequence[Any], letters: list[DeadLetter]) -> tuple[list[Any], list[Fact | Outcome]]:
    """Returns the records that can be decoded, and their contents."""
    readable, decoded = [], []
    for record in records:
        try:
            decoded.append(decode_fact(record.value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            letters.append(_letter(record, f"not a fact: {error}", "fact"))
        else:
            readable.append(record)
    return readable, decoded


def _letter(record: Any, reason: str, cause: str = "insert") -> DeadLetter:
    return DeadLetter.of_record(record, reason, cause, now_us())
