"""Replicas of partitions: random histories with stale batches, torn batches and fences, read at once or bit by bit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.settings import Settings
from schemas.views import FenceRow, PositionRow, encode_row, fence_key, position_key
from streams.consumer.faust_app import create_app
from streams.fold import partition_replica
from streams.fold.partition_replica import PartitionReplica
from streams.fold.row_store import InMemoryRowStore, Rows
from streams.fold.views_table import ViewsTable

PARTITION = 3
POSITION, FENCE = position_key(PARTITION), fence_key(PARTITION)
KEYS = [b"i:ws:%d" % number for number in range(6)]


@dataclass
class Record:
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class History:
    """Records of a partition as workers write them, and what a correct reader of all of them has."""

    records: list[Record] = field(default_factory=list)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    stale: set[bytes] = field(default_factory=set)
    torn: set[bytes] = field(default_factory=set)  # keys that no owner has repaired yet
    position: int = -1

    def append(self, key: bytes | None, value: bytes | None) -> None:
        self.records.append(Record(len(self.records), key, value))

    def batch(self, changes: list[tuple[bytes, bytes | None]], next_offset: int) -> None:
        """A batch of the owner, or of a worker that lost the partition if its position is not ahead."""
        row = PositionRow(next=next_offset)
        changes = [*changes, (POSITION, encode_row(row))]
        for key, value in changes:
            self.append(key, value)
        if row.position > self.position:
            self.position = row.position
            for key, value in changes:
                self.rows.pop(key, None)
                if value is not None:
                    self.rows[key] = value
                self.stale.discard(key)
        else:
            self.stale |= {key for key, _ in changes}

    def tear(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        """A worker dies before the batch with the position. The next owner fences."""
        for key, value in changes:
            self.append(key, value)
        self.torn |= {key for key, _ in changes}
        self.stale |= self.torn
        self.fence()

    def fence(self) -> None:
        self.append(FENCE, encode_row(FenceRow(by="1", epoch=1, at=1)))


VALUES = st.one_of(st.none(), st.binary(min_size=1, max_size=3))
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=4)


KINDS = ("valid", "valid", "stale", "torn", "fence", "other")


@st.composite
def histories(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> History:
    """An owner repairs torn rows before its first batch."""
    history, ahead = History(), 1
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=25)):
        changes = draw(CHANGES)
        if kind == "valid":
            if history.torn:
                history.batch([(key, history.rows.get(key)) for key in sorted(history.torn)], ahead)
                history.torn.clear()
                ahead += 1
            history.batch(changes, ahead)
            ahead += 1
        elif kind == "stale" and history.position >= 0:
            history.batch(changes, draw(st.integers(0, ahead - 1)))
        elif kind == "torn":
            history.tear(changes)
        elif kind == "fence":
            history.fence()
        else:
            history.append(draw(st.sampled_from([None, b"not a row"])), b"x")
    return history


def replica_of(store: InMemoryRowStore | None = None) -> PartitionReplica:
    return PartitionReplica(store if store is not None else InMemoryRowStore(), PARTITION)


@settings(deadline=None)
@given(histories(), st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), max_size=8))
def test_a_replica_that_reads_bit_by_bit_equals_a_correct_reader(history: History, runs: list[tuple[int, int]]) -> None:
    store = InMemoryRowStore()
    replica = replica_of(store)
    for start, end in sorted(runs, key=lambda run: run[1]):
        if start <= replica.next_offset:  # runs overlap: a record that comes twice changes nothing
            replica.read(history.records[start:end])  # type: ignore[arg-type]
    replica.read(history.records)  # type: ignore[arg-type]
    replica.read_fence(len(history.records))
    assert dict(store.rows(PARTITION)) == history.rows
    assert replica.stale_keys == history.stale
    assert replica.next_offset == len(history.records) + 1
    assert store.offset(PARTITION) == len(history.records)
    assert replica.records_read == len(history.records)


@settings(deadline=None)
@given(histories(("valid", "valid", "fence")), st.integers(0, 120))
def test_compaction_of_the_first_records_changes_no_row(history: History, cut: int) -> None:
    """Compaction removes positions but keeps rows before a fence: these rows belong to a later position."""
    newest = {record.key: record.offset for record in history.records}
    left = [record for record in history.records if record.offset >= cut or newest[record.key] == record.offset]
    store = InMemoryRowStore()
    replica = replica_of(store)
    replica.read(left)  # type: ignore[arg-type]
    replica.read_fence(len(history.records))
    assert (dict(store.rows(PARTITION)), replica.stale_keys) == (history.rows, set())


@dataclass
class Writer:
    """Appends to the history, as the fenced producer of the worker that takes the partition over."""

    history: History
    partition: int = PARTITION
    offset: int = -1
    written: list[Rows] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history.fence()
        self.offset = len(self.history.records) - 1

    async def write(self, topic: str, rows: Rows) -> int:
        self.written.append(rows)
        for key, value in rows:
            self.history.append(key, value)
        return len(self.history.records) - 1


class Topic:
    """Reads the history as `read_offsets` does, and counts."""

    def __init__(self, history: History) -> None:
        self.history, self.read = history, 0

    async def __call__(self, tp: TP, start: int, end: int) -> AsyncIterator[Any]:
        for offset in range(start, end, 1000):
            run = self.history.records[offset:min(end, offset + 1000)]
            self.read += len(run)
            yield run


@cache
def app() -> Any:
    return create_app("test", Settings())


def table(topic: Topic) -> ViewsTable:
    return ViewsTable(app(), 8, topic)


def loaded(views: ViewsTable, writer: Writer) -> tuple[dict[bytes, bytes], bool]:
    rows, changed = asyncio.run(views.load(writer))  # type: ignore[arg-type]
    return dict(rows), changed


def visible(history: History) -> dict[bytes, bytes]:
    """What compaction leaves: the newest record of each key."""
    newest = {record.key: record.value for record in history.records if record.key is not None}
    return {key: value for key, value in newest.items() if value is not None and key not in (FENCE, b"not a row")}


@settings(deadline=None)
@given(histories(), st.integers(0, 120))
def test_a_takeover_with_standby_rows_equals_a_full_load(history: History, followed: int) -> None:
    topic = Topic(history)
    with_standby, without = table(topic), table(topic)
    with_standby.replica(PARTITION).read(history.records[:followed])  # type: ignore[arg-type]
    writer = Writer(history)
    end = len(history.records)
    rows, changed = loaded(with_standby, writer)
    assert changed
    assert topic.read == max(0, end - 1 - followed)
    repaired, repair = rows, writer.written
    assert {key: value for key, value in repaired.items() if key != POSITION} == {
        key: value for key, value in history.rows.items() if key != POSITION}
    assert bool(repair) == bool(history.stale)
    assert visible(history) == repaired, "compaction keeps no stale row"
    second = Writer(history)
    assert loaded(without, second)[0] == repaired
    assert second.written == [], "what was repaired is not repaired again"


def test_a_takeover_of_200000_rows_reads_only_the_tail() -> None:
    history = History()
    for number in range(200):
        history.batch([(b"i:ws:%d" % (number * 1000 + row), b"v" * 100) for row in range(1000)], number + 1)
    topic = Topic(history)
    views = table(topic)
    views.replica(PARTITION).read(history.records)  # type: ignore[arg-type]
    for number in range(5):
        history.batch([(b"i:ws:%d" % number, b"new")], 1000 + number)
    rows, changed = loaded(views, Writer(history))
    assert changed
    assert topic.read == 10
    assert len(rows) == 200_001
    assert rows == history.rows


def test_only_rows_of_another_worker_count_as_a_change() -> None:
    history = History()
    history.batch([(KEYS[0], b"1")], 1)
    topic = Topic(history)
    views = table(topic)
    assert loaded(views, Writer(history))[1], "the first load"
    row = encode_row(PositionRow(next=2))
    views.commit(PARTITION, [(KEYS[1], b"2"), (POSITION, row)], asyncio.run(
        Writer(history).write("", [(KEYS[1], b"2"), (POSITION, row)])) - 1)
    history.records.pop(-3)  # the fence of that writer: this worker's own epoch goes on
    for offset, record in enumerate(history.records):
        record.offset = offset
    history.position = PositionRow(next=2).position
    assert not loaded(views, Writer(history))[1]
    history.batch([(KEYS[2], b"3")], 3)
    views.replica(PARTITION).read(history.records)  # type: ignore[arg-type]  # as standby
    assert loaded(views, Writer(history))[1]


def test_a_partition_that_became_shorter_is_read_from_its_beginning() -> None:
    history = History()
    for number in range(5):
        history.batch([(KEYS[number], b"old")], number + 1)
    views = table(Topic(history))
    views.replica(PARTITION).read(history.records)  # type: ignore[arg-type]
    shorter = History()
    shorter.batch([(KEYS[0], b"new")], 1)
    views._read = Topic(shorter)  # type: ignore[assignment]
    rows, changed = loaded(views, Writer(shorter))
    assert (rows, changed) == (shorter.rows, True)


def test_a_replica_that_was_not_current_for_hours_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    history.batch([(KEYS[0], b"1")], 1)
    topic = Topic(history)
    views = table(topic)
    first = views.replica(PARTITION)
    first.read(history.records)  # type: ignore[arg-type]
    now = partition_replica.time.time()
    monkeypatch.setattr(partition_replica, "time", SimpleNamespace(time=lambda: now + 7 * 3600))
    assert first.outdated
    loaded(views, Writer(history))
    assert topic.read == 2


def test_a_cancelled_load_forgets_no_stale_row() -> None:
    history = History()
    history.batch([(KEYS[0], b"1"), (KEYS[1], b"1")], 5)
    history.batch([(KEYS[1], b"stale")], 4)
    history.batch([(KEYS[0], b"2")], 6)
    history.batch([(KEYS[2], b"2")], 7)

    class Cancelled(Topic):
        async def __call__(self, tp: TP, start: int, end: int) -> AsyncIterator[Any]:
            yield self.history.records[start:end - 2]
            raise asyncio.CancelledError

    views = table(Cancelled(history))
    with pytest.raises(asyncio.CancelledError):
        loaded(views, Writer(history))
    views._read = Topic(history)  # type: ignore[assignment]
    writer = Writer(history)
    rows, _ = loaded(views, writer)
    assert rows[KEYS[1]] == b"1"
    assert [key for key, _ in writer.written[0]] == [KEYS[1], POSITION]
    assert visible(history) == rows
