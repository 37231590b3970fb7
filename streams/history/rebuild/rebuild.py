"""Rebuilds the ClickHouse tables from the facts that Kafka still holds: fills new tables beside the old ones, compares
them, and swaps them in.

The rebuild holds the consumer group of the history, because nothing else may insert meanwhile
(streams.history.rebuild.group_lock). If it is killed before the swap, the old tables remain, and the next rebuild
starts again. The swap is one statement. The next history process resumes as after any start
(streams.history.resume).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

import stamina
from aiokafka import TopicPartition

from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history.clickhouse import client as clients
from streams.history.clickhouse import migrate, retention
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.clickhouse.columns import COLUMNS
from streams.history.clickhouse.repository import SUMS, ActivityRepository
from streams.history.rebuild.group_lock import RebuildError, hold_group
from streams.history.writer import PendingBatch, Writer, facts_of
from streams.kafka.reader import partition_bounds, read_offsets
from streams.runtime.worker_thread import WorkerThread

__all__ = ["Counts", "Older", "Report", "rebuild"]

TABLES = ("activity", *SUMS)
_RETRY = stamina.AsyncRetryingCaller(attempts=9, timeout=None, wait_initial=0.2, wait_max=10.0)  # per batch

# What to do with rows whose facts Kafka does not hold any more.
Older = Literal["refuse", "keep", "drop"]

# Of a tuple: the hash of several arguments is NULL if one of them is, and the row would not count.
_ROWS = "SELECT count(), groupBitXor(cityHash64(tuple({columns}))) FROM {table}"
# Of the hourly tables: the columns that can be summed. The state of a quantile depends on the order of inserts; it is
# not compared.
_SUMS = {
    "activity_hourly": "workspace_id, hour, type, kind, sum(facts), sum(closed), uniqMerge(people_state)",
    "items_hourly": "workspace_id, hour, kind, cluster, sum(facts), sum(opened), sum(closed), sum(open_change)",
}
_SUMMED = """
SELECT sum(tupleElement(row, 5)), groupBitXor(cityHash64(row)) FROM (SELECT ({what}) AS row FROM {table} GROUP BY {key})
"""
_BEFORE = "SELECT count() FROM {table} WHERE log_partition = {{p:UInt16}} AND position < {{first:UInt64}}"
_KEEP = """
INSERT INTO {fresh} ({columns})
SELECT {columns} FROM {table} WHERE log_partition = {{p:UInt16}} AND position < {{first:UInt64}}
"""
_OF_PARTITION = "SELECT log_partition, count() FROM {table} GROUP BY log_partition"


@dataclass(frozen=True, slots=True)
class Counts:
    """Facts in one table, and a checksum that does not depend on their order."""

    facts: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a rebuild. `before`, `after`: the tables. `read`: records read from Kafka. `kept`: rows of facts that
    Kafka does not hold. `refused`: facts that ClickHouse refused, as it had before."""

    before: dict[str, Counts]
    after: dict[str, Counts]
    read: int
    kept: int
    refused: int


async def rebuild(
    settings: Settings, older: Older = "refuse", progress: Callable[[int], None] = lambda _: None, sure: bool = False
) -> Report:
    """Rebuilds the tables and swaps them in. Raises RebuildError, ClickHouseUnavailable, KafkaError, TimeoutError.

    `progress` is called with the number of records of each batch. `sure`: no history process can run, so the group is
    not held.
    """
    async with contextlib.AsyncExitStack() as stack:
        check: Callable[[], None] = lambda: None  # noqa: E731
        if settings.clickhouse and not sure:  # one process owns the directory of chdb anyway
            check = (await stack.enter_async_context(hold_group(settings))).check
        in_thread = WorkerThread("clickhouse")
        stack.callback(in_thread.stop)
        client = await in_thread(clients.connect, settings, clients.MIGRATION_SECONDS)
        stack.push_async_callback(in_thread, client.close)
        return await _Rebuild(settings, client, in_thread, progress, check).run(older)


class _Rebuild:
    """One rebuild, from database `_old` into database `_new`."""

    def __init__(
        self, settings: Settings, client: Any, in_thread: WorkerThread, progress: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        self._settings, self._client, self._in_thread, self._progress = settings, client, in_thread, progress
        self._check_lock = check
        self._old = settings.clickhouse_database
        self._new = f"{self._old}_rebuild"
        self._refused = self._read = self._kept = 0

    async def run(self, older: Older) -> Report:
        ranges = await self._ranges()
        first_positions = [await self._first_position(*range_) for range_ in ranges]
        await self._in_thread(self._create_tables)
        try:
            for (tp, _, _), first in zip(ranges, first_positions, strict=True):
                await self._in_thread(self._handle_older, tp.partition, first, older)
            for range_ in ranges:
                await self._fill(*range_)
            before, after = await self._in_thread(self._compare, older)
            self._check_lock()  # a history process that starts later waits until the group is released
            await self._in_thread(self._swap)
            return Report(before, after, self._read, self._kept, self._refused)
        finally:
            with contextlib.suppress(ClickHouseUnavailable):
                await self._in_thread(self._drop)

    async def _ranges(self) -> list[tuple[TopicPartition, int, int]]:
        """Returns the first and end offset of each partition."""
        partitions = [TopicPartition(FACTS, number) for number in range(self._settings.log_partitions)]
        return [(tp, *offsets) for tp, offsets in (await partition_bounds(self._settings, partitions)).items()]

    async def _first_position(self, tp: TopicPartition, begin: int, end: int) -> int | None:
        """Returns the lowest position in the first record batch that has facts, None if Kafka holds none."""
        async with contextlib.aclosing(read_offsets(self._settings, tp, begin, end)) as runs:
            async for records in runs if begin < end else _no_records():
                if facts := facts_of(records, []):
                    return min(fact.pos for fact in facts.facts)
        return None

    async def _fill(self, tp: TopicPartition, begin: int, end: int) -> None:
        """Inserts the facts of a partition into the new tables."""
        repository = ActivityRepository(self._client, self._new, local=not self._settings.clickhouse)
        writer = Writer(repository, self._settings.dedupe_days)
        await self._in_thread(writer.open, [tp.partition])
        batch = PendingBatch()
        async for records in read_offsets(self._settings, tp, begin, end) if begin < end else _no_records():
            batch.add(tp.partition, records)
            self._read += len(records)
            if batch.count >= self._settings.history_batch_rows:
                await self._write(writer, batch)
                batch = PendingBatch()
        if batch.count:
            await self._write(writer, batch)

    async def _write(self, writer: Writer, batch: PendingBatch) -> None:
        plan = await self._in_thread(writer.plan, batch)
        await _RETRY(ClickHouseUnavailable, lambda: self._in_thread(writer.write, plan))
        self._refused += len(plan.letters)
        self._progress(batch.count)
        self._check_lock()

    # --- in the thread ---

    def _create_tables(self) -> None:
        with clients.translate_errors():
            if migrate.pending(self._client, self._old):
                raise migrate.MigrationError(f"database {self._old} has pending migrations: run `attn migrate` first")
            ActivityRepository(self._client, self._old, local=not self._settings.clickhouse).wait_for_running_inserts()
            self._drop()  # left by a rebuild that was killed
            migrate.apply(self._client, self._new, self._settings.clickhouse_cluster)
            for statement in retention.retention_statements(self._client, self._new, self._settings):
                self._client.command(statement)

    def _drop(self) -> None:
        with clients.translate_errors():
            sql = "DROP DATABASE IF EXISTS {database} {on_cluster} SYNC"
            self._client.command(migrate.fill(sql, self._new, self._settings.clickhouse_cluster))

    def _handle_older(self, partition: int, first: int | None, older: Older) -> None:
        """Keeps, drops, or refuses the rows of facts that Kafka does not hold: all rows before position `first`, or all
        rows if it is None."""
        table, fresh = f"`{self._old}`.activity", f"`{self._new}`.activity"
        given = {"p": partition, "first": 2**64 - 1 if first is None else first}
        with clients.translate_errors():
            (rows,), = self._client.query(_BEFORE.format(table=table), parameters=given).result_rows
        if rows and older == "refuse":
            raise RebuildError(
                f"partition {partition}: {rows:,} rows are of facts that Kafka does not hold any more; "
                "--missing-facts keep copies them unchanged, --missing-facts drop loses them"
            )
        if rows and older == "keep":
            sql = _KEEP.format(fresh=fresh, table=table, columns=", ".join(COLUMNS))
            with clients.translate_errors():
                self._client.command(sql, parameters=given, settings={"max_partitions_per_insert_block": 0})
            self._kept += rows

    def _compare(self, older: Older) -> tuple[dict[str, Counts], dict[str, Counts]]:
        """Returns the counts of the old and the new tables. Raises what `_check` raises."""
        with clients.translate_errors():
            before, after = self._counts(self._old), self._counts(self._new)
        self._check(older, after)
        return before, after

    def _swap(self) -> None:
        with clients.translate_errors():
            pairs = ", ".join(f"`{self._old}`.{table} AND `{self._new}`.{table}" for table in TABLES)
            cluster = self._settings.clickhouse_cluster
            self._client.command(migrate.fill(f"EXCHANGE TABLES {pairs} {{on_cluster}}", self._old, cluster))

    def _check(self, older: Older, after: dict[str, Counts]) -> None:
        """Raises RebuildError if the new tables contradict each other, or have fewer facts of a partition than the old
        ones."""
        if after["activity_hourly"].facts != after["activity"].facts:
            raise RebuildError(
                f"the new hourly table has {after['activity_hourly'].facts:,} facts, activity has "
                f"{after['activity'].facts:,}; nothing was changed")
        if older == "drop":
            return
        with clients.translate_errors():
            rows, fresh = (
                dict(self._client.query(_OF_PARTITION.format(table=f"`{database}`.activity")).result_rows)
                for database in (self._old, self._new)
            )
        for partition, count in sorted(rows.items()):
            if fresh.get(partition, 0) < count:
                raise RebuildError(
                    f"partition {partition} has {count:,} rows, the new table has {fresh.get(partition, 0):,}; "
                    "nothing was changed; --missing-facts drop accepts fewer rows")

    def _counts(self, database: str) -> dict[str, Counts]:
        queries = {"activity": _ROWS.format(table=f"`{database}`.activity", columns=", ".join(COLUMNS))}
        for table, what in _SUMS.items():
            key = ", ".join(what.split(", ")[:4])
            queries[table] = _SUMMED.format(what=what, key=key, table=f"`{database}`.{table}")
        return {table: Counts(*self._client.query(sql).result_rows[0]) for table, sql in queries.items()}


async def _no_records() -> AsyncIterator[list[Any]]:
    empty: tuple[list[Any], ...] = ()
    for records in empty:
        yield records
