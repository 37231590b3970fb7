"""Every fact is in the history exactly once: crashes between any two steps, repeats, brokers that lost records.

The writer, its deduplicator and its resume are the real code; ClickHouse, the topic and the fold are models.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law

from schemas.facts import Fact, Outcome, decode_fact, encode_fact
from streams.core.fold.fold import POSITION_JUMP as FOLD_JUMP
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.clickhouse.columns import COLUMNS, MIN_POSITION_JUMP, FactPosition, digest
from streams.history.resume import Offsets, resume
from streams.history.writer import InsertPlan, PendingBatch, Writer, facts_of

R = TypeVar("R")
HOUR = 3600 * 1_000_000
PARTITIONS = (0, 1)
FAULTS = ("", *(
    f"{how} {when}" for how in ("crash", "blip", "stall") for when in ("before", "halfway", "in between", "after")
))


class Crash(Exception):
    """Stands for SIGKILL of the history process."""


class Table:
    """Model of `activity` and `activity_hourly`: an insert writes the rows, then ClickHouse updates the hourly sums."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.hourly: Counter[tuple[str, int]] = Counter()
        self.fault = ""
        self._parts: set[tuple[str, int]] = set()  # inserted parts: (deduplication token, number of the part)
        self._sums: set[str] = set()

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*data, strict=True)]
        self._fail("before")
        self._part(rows[::2], (token, 0))
        self._fail("halfway")
        self._part(rows[1::2], (token, 1))
        self._fail("in between")
        if token not in self._sums:
            self._sums.add(token)
            self.hourly.update((row["workspace_id"], row["occurred_at"] // HOUR) for row in rows)
        self._fail("after")

    def _part(self, rows: list[dict[str, Any]], part: tuple[str, int]) -> None:
        if part not in self._parts:
            self._parts.add(part)
            self.rows += rows

    def _fail(self, step: str) -> None:
        how, _, when = self.fault.partition(" ")
        if when == step:
            if how != "stall":
                self.fault = ""
            raise Crash if how == "crash" else ClickHouseUnavailable(self.fault)

    def of(self, partition: int) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["log_partition"] == partition]

    def max_position(self, partition: int) -> FactPosition | None:
        return max(((row["position"], row["fact_index"]) for row in self.of(partition)), default=None)

    def stored_at(self, partition: int, facts: Collection[Fact]) -> set[tuple[int, int, str]]:
        positions = {fact.pos for fact in facts}
        return {
            (row["position"], row["fact_index"], row["event_id"])
            for row in self.of(partition) if row["position"] in positions
        }

    def stored_events(self, partition: int, events: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        return {(row["workspace_id"], row["event_id"]) for row in self.of(partition)} & set(events)

    def jumps(self, partition: int, days: float) -> list[int]:
        positions = sorted({row["position"] for row in self.of(partition)})
        return [low for low, high in itertools.pairwise(positions) if high - low >= MIN_POSITION_JUMP]

    def digests(self, partition: int, high: int) -> array[int]:
        return array("I", sorted({
            digest(row["workspace_id"], row["event_id"]) for row in self.of(partition) if row["position"] <= high
        }))

    def repair_hourly_tables(self) -> None:
        self.hourly = self.sums()

    def sums(self) -> Counter[tuple[str, int]]:
        return Counter((row["workspace_id"], row["occurred_at"] // HOUR) for row in self.rows)


class Record(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    value: bytes
    key: bytes = b""
    timestamp: int = 0
    headers: tuple[()] = ()


@dataclass
class Log:
    """One partition of `attn.facts` and the fold that writes it."""

    partition: int
    values: list[bytes] = field(default_factory=list)
    known: list[Fact] = field(default_factory=list)  # facts that the fold wrote and still knows, in order
    forgotten: list[Fact] = field(default_factory=list)  # facts that the fold wrote before its log lost their entries
    position: int = 0
    count: int = 0
    committed: list[int] = field(default_factory=list)

    def write_facts(self, kinds: Sequence[str]) -> None:
        for index, kind in enumerate(kinds):
            self.count += 1
            if kind == "outcome":
                self.values.append(encode_fact(Outcome(
                    ws="w", pos=self.position, index=index, command="c", edge="e", user="u", status=200,
                    body=msgspec.Raw(b"{}"),
                )))
                continue
            fact = Fact(
                ws=f"w{self.partition}", pos=self.position, index=index, event_id=f"/s e{self.count}",
                time=self.count * HOUR // 3, type="run.failed", subject="r", derived=kind == "derived",
            )
            self.known.append(fact)
            self.values.append(encode_fact(fact))
        self.position += 1

    def repeat(self, count: int) -> None:
        """The worker was killed after it wrote facts and before it wrote rows: it writes these facts again."""
        self.values += [encode_fact(fact) for fact in self.known[-count:]]

    def fall_back(self, cut: int, forget: int, commits: int) -> None:
        """The broker lost the ends of the topic, of the log and the view, and of the group's offsets."""
        if cut:
            del self.values[-cut:]
        if forget:
            self.forgotten += self.known[-forget:]
            del self.known[-forget:]
        if commits:
            del self.committed[-commits:]
        self.position += FOLD_JUMP

    def send_again(self, count: int) -> None:
        """Sources send lost events again, so the fold writes their facts again."""
        for _ in range(min(count, len(self.forgotten))):
            fact = msgspec.structs.replace(self.forgotten.pop(), pos=self.position, index=0)
            self.position += 1
            self.known.append(fact)
            self.values.append(encode_fact(fact))


class Process:
    """One history process, from its start to its crash."""

    def __init__(self, table: Table, logs: Sequence[Log]) -> None:
        self._table, self._logs = table, logs
        self._writer = Writer(table, 30)
        self._begin()

    def _begin(self) -> None:
        self._table.repair_hourly_tables()
        self._writer.open(PARTITIONS)
        self._next = {log.partition: self._start(log) for log in self._logs}

    def _start(self, log: Log) -> int:
        async def read(low: int, high: int) -> list[tuple[int, Fact]]:
            return [(record.offset, fact) for fact, record in facts_of(records(log, low, high), [])]

        async def present(facts: Sequence[Fact]) -> list[bool]:
            stored = self._table.stored_at(log.partition, facts)
            return [(fact.pos, fact.index, fact.event_id) in stored for fact in facts]

        committed = log.committed[-1] if log.committed else None
        return now(resume(Offsets(0, len(log.values), committed), read, present))[0]

    def turn(self, size: int, fault: str) -> bool:
        """Writes one batch. Returns False if the topic has no further record."""
        batch = PendingBatch()
        for log in self._logs:
            if fetched := records(log, self._next[log.partition], self._next[log.partition] + size):
                batch.add(log.partition, fetched)
        if not batch.count:
            return False
        plan = self._writer.plan(batch)
        self._table.fault = fault
        if self._write(plan):
            self._table.fault = ""
            self._next.update(batch.next)
            for partition, offset in batch.next.items():
                self._logs[partition].committed.append(offset)
        else:
            self._table.fault = ""
            self._begin()
        return True

    def _write(self, plan: InsertPlan) -> bool:
        for _ in range(3):
            try:
                self._writer.write(plan)
                return True
            except ClickHouseUnavailable:
                pass
        return False


def records(log: Log, low: int, high: int) -> list[Record]:
    return [Record("attn.facts", log.partition, low + n, value) for n, value in enumerate(log.values[low:high])]


def now(work: Coroutine[Any, Any, R]) -> R:
    """Returns the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the coroutine waits")


small = st.integers(0, 6)
partition = st.sampled_from(PARTITIONS)
kind = st.sampled_from(("fact", "fact", "fact", "outcome", "derived"))
actions = st.one_of(
    st.tuples(st.just("tell"), partition, st.lists(kind, max_size=4)),
    st.tuples(st.just("repeat"), partition, st.integers(1, 6)),
    st.tuples(st.just("fall back"), partition, small, small, st.integers(0, 2)),
    st.tuples(st.just("again"), partition, st.integers(1, 3)),
    st.tuples(st.just("turn"), st.integers(1, 7), st.sampled_from(FAULTS)),
    st.tuples(st.just("turn"), st.integers(1, 100), st.just("")),
    st.tuples(st.just("restart")),
)


@law(400)
@given(st.lists(actions, max_size=40))
def test_every_fact_is_stored_once_after_any_faults(script: list[tuple[Any, ...]]) -> None:
    table, logs = Table(), [Log(number) for number in PARTITIONS]
    process: Process | None = None
    for action, *how in script:
        if action == "tell":
            logs[how[0]].write_facts(how[1])
        elif action == "repeat":
            logs[how[0]].repeat(how[1])
        elif action == "fall back":
            logs[how[0]].fall_back(*how[1:])
            process = None  # a restart of the broker restarts the history as well
        elif action == "again":
            logs[how[0]].send_again(how[1])
        elif action == "restart":
            process = None
        else:
            process = process or Process(table, logs)
            try:
                process.turn(*how)
            except Crash:
                process = None
        if action == "turn" and process is not None:
            assert table.hourly == table.sums()
    process = Process(table, logs)
    while process.turn(5, ""):
        pass
    check(table, logs)


def check(table: Table, logs: Sequence[Log]) -> None:
    events = Counter((row["workspace_id"], row["event_id"]) for row in table.rows)
    assert not [event for event, count in events.items() if count > 1]
    held = {
        (fact.ws, fact.event_id) for log in logs for value in log.values
        if isinstance(fact := decode_fact(value), Fact) and not fact.derived
    }
    assert held <= set(events)
    assert len(events) <= sum(log.count for log in logs)
    assert table.hourly == table.sums()


def test_a_repeat_within_one_batch_counts_once() -> None:
    table, logs = Table(), [Log(number) for number in PARTITIONS]
    logs[0].write_facts(["fact"] * 3)
    logs[0].repeat(3)
    assert Process(table, logs).turn(100, "")
    assert sorted(row["event_id"] for row in table.rows) == ["/s e1", "/s e2", "/s e3"]


def test_events_that_come_again_after_the_log_fell_back_count_once() -> None:
    table, logs = Table(), [Log(number) for number in PARTITIONS]
    logs[0].write_facts(["fact"] * 3)
    process = Process(table, logs)
    process.turn(100, "")
    logs[0].fall_back(cut=2, forget=2, commits=0)
    logs[0].write_facts(["fact"])
    Process(table, logs).turn(100, "")
    logs[0].send_again(2)
    Process(table, logs).turn(100, "")
    assert sorted(row["event_id"] for row in table.rows) == ["/s e1", "/s e2", "/s e3", "/s e4"]


def test_equal_positions_are_compared_by_event_id() -> None:
    """The broker was emptied, so new facts have the positions of old ones."""
    table, logs = Table(), [Log(number) for number in PARTITIONS]
    logs[0].write_facts(["fact"] * 3)
    Process(table, logs).turn(100, "")
    emptied = [Log(0, count=2), Log(1)]
    emptied[0].write_facts(["fact"] * 3)
    process = Process(table, emptied)
    process.turn(100, "")
    assert sorted(row["event_id"] for row in table.rows) == ["/s e1", "/s e2", "/s e3", "/s e4", "/s e5"]


def test_facts_lost_by_clickhouse_are_read_again() -> None:
    table, logs = Table(), [Log(number) for number in PARTITIONS]
    for _ in range(200):
        logs[0].write_facts(["fact"])
    process = Process(table, logs)
    while process.turn(30, ""):
        pass
    table.rows = [row for row in table.rows if row["position"] <= 20]
    process = Process(table, logs)
    while process.turn(30, ""):
        pass
    assert sorted(row["position"] for row in table.rows) == list(range(200))
    assert table.hourly == table.sums()


def test_the_fold_jumps_by_twice_the_smallest_gap_that_counts_as_a_truncation() -> None:
    assert FOLD_JUMP == 2 * MIN_POSITION_JUMP
    sql = resources.files("streams.history.clickhouse").joinpath("migrations", "0001_activity.sql").read_text()
    assert f"intDiv(position, {MIN_POSITION_JUMP})" in sql
