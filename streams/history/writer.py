"""Batches of records of `attn.facts` -> inserts, and dead letters for what can't be one. Blocking, for one thread."""

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

# So often ClickHouse may answer an insert with an error that says nothing of its rows, before they are tried in halves.
MAX_ATTEMPTS_BEFORE_BISECT = 4
_LAST_DAY = 120_530  # of what DateTime64 holds: 2299-12-31, counted from 1970
# So many of those tries may fail in a row before it counts as an outage again.
MAX_CONSECUTIVE_FAILURES = 16


class FactSink(StoredFacts, Protocol):
    """What is asked of ClickHouse (streams.history.clickhouse.repository.Store)."""

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None: ...


class PendingBatch:
    """What came and is not in ClickHouse yet."""

    def __init__(self) -> None:
        self.count = 0  # records
        self.since = 0.0  # when the first came, of the monotonic clock
        self.next: dict[int, int] = {}  # partition -> offset after its last record
        self.times: dict[int, float] = {}  # partition -> the broker's time of its last record, seconds
        self.entries: dict[int, FactBatch] = {}  # partition -> its facts, in order
        self.letters: list[DeadLetter] = []

    def add(self, partition: int, records: Sequence[Any]) -> None:
        """Takes over the next records of a partition, at least one. (Here, not in `plan`: while another batch is being
        inserted, decoding costs no time.)"""
        if not self.count:
            self.since = time.monotonic()
        self.count += len(records)
        self.next[partition] = records[-1].offset + 1
        self.times[partition] = records[-1].timestamp / 1000
        self.entries.setdefault(partition, FactBatch()).extend(facts_of(records, self.letters))


@dataclass(slots=True)
class InsertBlock:
    """Rows of one insert. The token stays with exactly these rows, so that the insert can be sent again as it is."""

    partitions: list[int]  # of each entry
    entries: FactBatch
    failures: int = 0
    written_then: int = -1  # of one row that failed: how many others had got in by then
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def columns(self) -> list[Sequence[Any]]:
        return columns(self.entries.facts, self.partitions)

    def halves(self) -> list[InsertBlock]:
        middle, failures = len(self.entries) // 2, max(0, self.failures - 1)
        return [
            InsertBlock(self.partitions[part], self.entries[part], failures)
            for part in (slice(middle), slice(middle, None))
        ]


@dataclass(slots=True)
class InsertPlan:
    """What is left to do for a batch. `letters` are complete once `chunks` is empty."""

    chunks: deque[InsertBlock]
    letters: list[DeadLetter]
    written: int = 0
    consecutive_failures: int = 0


class Writer:
    """Admits and inserts; for each partition only between `open` and the next `open` of any."""

    def __init__(self, store: FactSink, days: float) -> None:
        self._store = store
        self._days = days
        self._admissions: dict[int, Deduplicator] = {}

    def open(self, partitions: Collection[int]) -> None:
        """Begin with these partitions and forget all others; also after a plan that was not finished."""
        self._admissions = {partition: Deduplicator(self._store, partition, self._days) for partition in partitions}

    def plan(self, batch: PendingBatch) -> InsertPlan:
        """What to insert of a batch. When it raises (Unavailable), nothing is known of it: `open` again."""
        partitions: list[int] = []
        entries = FactBatch()
        for partition, came in batch.entries.items():
            news = self._admissions[partition].filter_new(came)
            entries.extend(news)
            partitions += [partition] * len(news)
        return InsertPlan(deque(_by_month(partitions, entries)), batch.letters)

    def write(self, plan: InsertPlan) -> None:
        """Carry the plan out. Unavailable: call again with the same plan, or `open` again."""
        while plan.chunks:
            chunk = plan.chunks[0]
            try:
                with metrics.INSERT_SECONDS.time():
                    self._store.insert(chunk.columns(), chunk.token)
            except RowsRefused as refused:
                if refused.answered:
                    self._raise_if_stored(chunk, refused)
                _bisect_refused(plan, str(refused))
            except ClickHouseUnavailable as unavailable:
                chunk.failures += unavailable.answered
                if chunk.failures < MAX_ATTEMPTS_BEFORE_BISECT:
                    raise
                self._raise_if_stored(chunk, unavailable)
                _bisect_failing(plan, str(unavailable))
                if plan.consecutive_failures > MAX_CONSECUTIVE_FAILURES:
                    raise
            else:
                plan.chunks.popleft()
                plan.written += len(chunk.entries)
                plan.consecutive_failures = 0
                metrics.ROWS.inc(len(chunk.entries))

    def _raise_if_stored(self, chunk: InsertBlock, why: ClickHouseError) -> None:
        """Only rows that did not get in may be tried otherwise. Unavailable: they are in the table, and something that
        ClickHouse makes of them (a view that somebody added, say) failed; the same chunk may complete that later."""
        rows: dict[int, list[Fact]] = {}
        for partition, fact in zip(chunk.partitions, chunk.entries.facts, strict=True):
            rows.setdefault(partition, []).append(fact)
        for partition, facts in rows.items():
            there = self._store.stored_at(partition, facts)
            if any((fact.pos, fact.index, fact.event_id) in there for fact in facts):
                raise ClickHouseUnavailable(f"rows got into activity, but not into a view of it: {why}") from why


def _by_month(partitions: list[int], entries: FactBatch) -> list[InsertBlock]:
    """The inserts: rows of one partition of `activity` each, since an insert over several is not whole or absent."""
    days = {fact.at // DAY for fact in entries.facts}
    months = {day: f"{datetime.fromtimestamp(min(max(day, 0), _LAST_DAY) * 86_400, UTC):%Y%m}" for day in days}
    if len(set(months.values())) < 2:
        return [InsertBlock(partitions, entries)] if entries else []
    found: dict[str, InsertBlock] = {}
    for partition, fact, record in zip(partitions, entries.facts, entries.records, strict=True):
        chunk = found.setdefault(months[fact.at // DAY], InsertBlock([], FactBatch()))
        chunk.partitions.append(partition)
        chunk.entries.facts.append(fact)
        chunk.entries.records.append(record)
    return list(found.values())


def _bisect_refused(plan: InsertPlan, reason: str) -> None:
    """A value of the first chunk is to blame: find its row."""
    chunk = plan.chunks.popleft()
    if len(chunk.entries) > 1:
        plan.chunks.extendleft(reversed(chunk.halves()))
    else:
        plan.letters.append(_letter(chunk.entries.records[0], reason))


def _bisect_failing(plan: InsertPlan, reason: str) -> None:
    """Perhaps a row of the first chunk is to blame. It is if others get in after it failed alone and it fails again."""
    plan.consecutive_failures += 1
    chunk = plan.chunks.popleft()
    if len(chunk.entries) > 1:
        plan.chunks.extend(chunk.halves())
    elif 0 <= chunk.written_then < plan.written:
        plan.letters.append(_letter(chunk.entries.records[0], reason))
    else:
        chunk.written_then = plan.written
        plan.chunks.append(chunk)


def facts_of(records: Sequence[Any], letters: list[DeadLetter]) -> FactBatch:
    """The facts that belong into the history; what can't be read goes to `letters`."""
    try:
        facts = decode_facts([record.value or b"" for record in records])
    except (msgspec.DecodeError, UnicodeDecodeError):
        records, facts = _readable(records, letters)
    kept = [type(fact) is Fact and not fact.derived for fact in facts]
    return FactBatch(list(compress(facts, kept)), list(compress(records, kept)))  # type: ignore[arg-type]


def _readable(records: Sequence[Any], letters: list[DeadLetter]) -> tuple[list[Any], list[Fact | Outcome]]:
    """Those records that are as they should be, and what they hold."""
    readable, found = [], []
    for record in records:
        try:
            found.append(decode_fact(record.value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            letters.append(_letter(record, f"not a fact: {error}", "fact"))
        else:
            readable.append(record)
    return readable, found


def _letter(record: Any, reason: str, cause: str = "insert") -> DeadLetter:
    return DeadLetter.of_record(record, reason, cause, now_us())
