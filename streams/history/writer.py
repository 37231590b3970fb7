"""Batches of records of `attn.facts` -> inserts, and dead letters for what can't be one. Blocking, for one thread."""

from __future__ import annotations

import math
import time
import uuid
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from schemas.deadletters import DeadLetter
from schemas.facts import Fact, decode_fact
from streams.history import metrics
from streams.history.admission import Admission, Entry, History
from streams.history.client import Failed, Refused, Unavailable
from streams.history.columns import columns

__all__ = ["Batch", "Plan", "Writer", "facts_of"]

# So often ClickHouse may answer an insert with an error that says nothing of its rows, before they are tried in halves.
_STUBBORN = 4
# So many of those tries may fail in a row before it counts as an outage again.
_MISSES = 16


class Store(History, Protocol):
    """What is asked of ClickHouse (streams.history.store.Store)."""

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None: ...


class Batch:
    """What came and is not in ClickHouse yet."""

    def __init__(self) -> None:
        self.count = 0  # records
        self.since = 0.0  # when the first came, of the monotonic clock
        self.oldest = math.inf  # time of the oldest, seconds since the epoch
        self.next: dict[int, int] = {}  # partition -> offset after its last record
        self.entries: dict[int, list[Entry]] = {}  # partition -> its facts, in order
        self.letters: list[DeadLetter] = []

    def add(self, partition: int, records: Sequence[Any]) -> None:
        """Takes over the next records of a partition, at least one. (Here, not in `plan`: while another batch is being
        inserted, decoding costs no time.)"""
        if not self.count:
            self.since = time.monotonic()
        self.count += len(records)
        self.oldest = min(self.oldest, records[0].timestamp / 1000)
        self.next[partition] = records[-1].offset + 1
        self.entries.setdefault(partition, []).extend(facts_of(records, self.letters))


@dataclass(slots=True)
class Chunk:
    """Rows of one insert. The token stays with exactly these rows, so that the insert can be sent again as it is."""

    rows: list[tuple[int, Entry]]  # partition, entry
    failures: int = 0
    written_then: int = -1  # of one row that failed: how many others had got in by then
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def columns(self) -> list[Sequence[Any]]:
        return columns([entry[0] for _, entry in self.rows], [partition for partition, _ in self.rows])

    def halves(self) -> list[Chunk]:
        middle = len(self.rows) // 2
        return [Chunk(rows, max(0, self.failures - 1)) for rows in (self.rows[:middle], self.rows[middle:])]


@dataclass(slots=True)
class Plan:
    """What is left to do for a batch. `letters` are complete once `chunks` is empty."""

    chunks: deque[Chunk]
    letters: list[DeadLetter]
    written: int = 0
    misses: int = 0


class Writer:
    """Admits and inserts; for each partition only between `open` and the next `open` of any."""

    def __init__(self, store: Store, days: float) -> None:
        self._store = store
        self._days = days
        self._admissions: dict[int, Admission] = {}

    def open(self, partitions: Collection[int]) -> None:
        """Begin with these partitions and forget all others; also after a plan that was not finished."""
        self._admissions = {partition: Admission(self._store, partition, self._days) for partition in partitions}

    def plan(self, batch: Batch) -> Plan:
        """What to insert of a batch. When it raises (Unavailable), nothing is known of it: `open` again."""
        rows: list[tuple[int, Entry]] = []
        for partition, entries in batch.entries.items():
            rows += [(partition, entry) for entry in self._admissions[partition].admit(entries)]
        return Plan(deque([Chunk(rows)] if rows else []), batch.letters)

    def write(self, plan: Plan) -> None:
        """Carry the plan out. Unavailable: call again with the same plan, or `open` again."""
        while plan.chunks:
            chunk = plan.chunks[0]
            try:
                with metrics.INSERT_SECONDS.time():
                    self._store.insert(chunk.columns(), chunk.token)
            except Refused as refused:
                if refused.answered:
                    self._check_absent(chunk, refused)
                _divide(plan, str(refused))
            except Unavailable as unavailable:
                chunk.failures += unavailable.answered
                if chunk.failures < _STUBBORN:
                    raise
                self._check_absent(chunk, unavailable)
                _suspect(plan, str(unavailable))
                if plan.misses > _MISSES:
                    raise
            else:
                plan.chunks.popleft()
                plan.written += len(chunk.rows)
                plan.misses = 0
                metrics.ROWS.inc(len(chunk.rows))


    def _check_absent(self, chunk: Chunk, why: Failed) -> None:
        """Only rows that did not get in may be tried otherwise. Unavailable: they are in the table, and something that
        ClickHouse makes of them (a view that somebody added, say) failed; the same chunk may complete that later."""
        rows: dict[int, list[Fact]] = {}
        for partition, (fact, _) in chunk.rows:
            rows.setdefault(partition, []).append(fact)
        for partition, facts in rows.items():
            there = self._store.events(partition, facts)
            if any((fact.pos, fact.index, fact.event_id) in there for fact in facts):
                raise Unavailable(f"rows got into activity, but not into a view of it: {why}") from why


def _divide(plan: Plan, reason: str) -> None:
    """A value of the first chunk is to blame: find its row."""
    chunk = plan.chunks.popleft()
    if len(chunk.rows) > 1:
        plan.chunks.extendleft(reversed(chunk.halves()))
    else:
        plan.letters.append(_letter(chunk.rows[0][1][1], reason))


def _suspect(plan: Plan, reason: str) -> None:
    """Perhaps a row of the first chunk is to blame. It is if others get in after it failed alone and it fails again."""
    plan.misses += 1
    chunk = plan.chunks.popleft()
    if len(chunk.rows) > 1:
        plan.chunks.extend(chunk.halves())
    elif 0 <= chunk.written_then < plan.written:
        plan.letters.append(_letter(chunk.rows[0][1][1], reason))
    else:
        chunk.written_then = plan.written
        plan.chunks.append(chunk)


def facts_of(records: Sequence[Any], letters: list[DeadLetter]) -> list[Entry]:
    """The facts that belong into the history; what can't be read goes to `letters`."""
    entries = []
    for record in records:
        try:
            fact = decode_fact(record.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            letters.append(_letter(record, f"not a fact: {error}"))
            continue
        if type(fact) is Fact and not fact.derived:
            entries.append((fact, record))
    return entries


def _letter(record: Any, reason: str) -> DeadLetter:
    return DeadLetter(
        topic=record.topic, partition=record.partition, offset=record.offset, reason=reason, at=int(time.time() * 1e6),
        key=record.key, value=record.value, headers=[(name, value or b"") for name, value in record.headers],
    )
