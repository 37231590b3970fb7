"""The history made again from the facts Kafka still holds: into fresh tables beside the old ones, compared, swapped in.

Nothing else may write meanwhile, so it holds the writers' group (streams.history.rebuild.group_lock). Killed before the
swap, it
leaves the old tables; the next rebuild begins anew. The swap is one statement; what comes after it finds its place by
itself (streams.history.resume), as after any start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

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
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread

__all__ = ["Counts", "Older", "Report", "rebuild"]

TABLES = ("activity", *SUMS)
_TRIES = 8  # of one batch, while ClickHouse is away

# What to do with rows of facts that Kafka does not hold any more.
Older = Literal["refuse", "keep", "drop"]

_ROWS = "SELECT count(), groupBitXor(cityHash64({columns})) FROM {table}"
# Of sums: what can be added up; how a quantile's state came about is no part of what it says.
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
    """Of one table: facts in it, and a checksum that does not depend on their order."""

    facts: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Report:
    """`refused`: facts that ClickHouse did not take, as it had not before."""

    before: dict[str, Counts]
    after: dict[str, Counts]
    read: int
    kept: int
    refused: int


async def rebuild(
    settings: Settings, older: Older = "refuse", progress: Callable[[int], None] = lambda _: None, sure: bool = False
) -> Report:
    """Make the tables again and swap them in. Cannot; Unavailable: ClickHouse is away; KafkaError, TimeoutError.

    `progress` is told of records read. `sure`: no writer can run.
    """
    async with contextlib.AsyncExitStack() as stack:
        check: Callable[[], None] = lambda: None  # noqa: E731
        if settings.clickhouse and not sure:  # chdb's directory has one owner anyway
            check = (await stack.enter_async_context(hold_group(settings))).check
        in_thread = WorkerThread("clickhouse")
        stack.callback(in_thread.stop)
        client = await in_thread(clients.connect, settings, clients.MIGRATION_SECONDS)
        stack.push_async_callback(in_thread, client.close)
        return await _Rebuild(settings, client, in_thread, progress, check).run(older)


class _Rebuild:
    def __init__(
        self, settings: Settings, client: Any, in_thread: WorkerThread, progress: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        self._settings, self._client, self._in_thread, self._progress = settings, client, in_thread, progress
        self._check_alone = check
        self._old = settings.clickhouse_database
        self._new = f"{self._old}_rebuild"
        self._refused = self._read = self._kept = 0

    async def run(self, older: Older) -> Report:
        ranges = await self._ranges()
        firsts = [await self._first(*each) for each in ranges]
        await self._in_thread(self._begin)
        try:
            for (tp, _, _), first in zip(ranges, firsts, strict=True):
                await self._in_thread(self._older, tp.partition, first, older)
            for each in ranges:
                await self._fill(*each)
            before, after = await self._in_thread(self._compared, older)
            self._check_alone()  # who comes after this waits until we have left
            await self._in_thread(self._swap)
            return Report(before, after, self._read, self._kept, self._refused)
        finally:
            with contextlib.suppress(ClickHouseUnavailable):
                await self._in_thread(self._drop)

    async def _ranges(self) -> list[tuple[TopicPartition, int, int]]:
        """What Kafka holds now of each partition."""
        partitions = [TopicPartition(FACTS, number) for number in range(self._settings.log_partitions)]
        return [(tp, *offsets) for tp, offsets in (await partition_bounds(self._settings, partitions)).items()]

    async def _first(self, tp: TopicPartition, begin: int, end: int) -> int | None:
        """The lowest position of the first facts that are held."""
        async with contextlib.aclosing(read_offsets(self._settings, tp, begin, end)) as runs:
            async for records in runs if begin < end else _nothing():
                if facts := facts_of(records, []):
                    return min(fact.pos for fact in facts.facts)
        return None

    async def _fill(self, tp: TopicPartition, begin: int, end: int) -> None:
        """Write a partition's facts."""
        store = ActivityRepository(self._client, self._new, local=not self._settings.clickhouse)
        writer = Writer(store, self._settings.dedupe_days)
        await self._in_thread(writer.open, [tp.partition])
        batch = PendingBatch()
        async for records in read_offsets(self._settings, tp, begin, end) if begin < end else _nothing():
            batch.add(tp.partition, records)
            self._read += len(records)
            if batch.count >= self._settings.history_batch_rows:
                await self._write(writer, batch)
                batch = PendingBatch()
        if batch.count:
            await self._write(writer, batch)

    async def _write(self, writer: Writer, batch: PendingBatch) -> None:
        plan, backoff = await self._in_thread(writer.plan, batch), Backoff()
        while True:
            try:
                await self._in_thread(writer.write, plan)
                break
            except ClickHouseUnavailable:
                if backoff.tries >= _TRIES:
                    raise
                await asyncio.sleep(backoff.next())
        self._refused += len(plan.letters)
        self._progress(batch.count)
        self._check_alone()

    # --- in the thread ---

    def _begin(self) -> None:
        with clients.translate_errors():
            if migrate.pending(self._client, self._old):
                raise migrate.MigrationError(f"database {self._old} is not as this attn wants it: `attn migrate` first")
            ActivityRepository(self._client, self._old, local=not self._settings.clickhouse).wait_for_running_inserts()
            self._drop()  # of one that was killed
            migrate.apply(self._client, self._new, self._settings.clickhouse_cluster)
            for statement in retention.retention_statements(self._client, self._new, self._settings):
                self._client.command(statement)

    def _drop(self) -> None:
        with clients.translate_errors():
            sql = "DROP DATABASE IF EXISTS {database} {on_cluster} SYNC"
            self._client.command(migrate.fill(sql, self._new, self._settings.clickhouse_cluster))

    def _older(self, partition: int, first: int | None, older: Older) -> None:
        """Rows of facts before those held: of all, where none is held."""
        table, fresh = f"`{self._old}`.activity", f"`{self._new}`.activity"
        given = {"p": partition, "first": 2**64 - 1 if first is None else first}
        with clients.translate_errors():
            (rows,), = self._client.query(_BEFORE.format(table=table), parameters=given).result_rows
        if rows and older == "refuse":
            raise RebuildError(
                f"partition {partition}: {rows:,} rows are of facts that Kafka does not hold any more; "
                "--missing-facts keep copies them as they are, --missing-facts drop leaves them out"
            )
        if rows and older == "keep":
            sql = _KEEP.format(fresh=fresh, table=table, columns=", ".join(COLUMNS))
            with clients.translate_errors():
                self._client.command(sql, parameters=given, settings={"max_partitions_per_insert_block": 0})
            self._kept += rows

    def _compared(self, older: Older) -> tuple[dict[str, Counts], dict[str, Counts]]:
        """Counts before and after. Cannot: the new tables won't do."""
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
        """Cannot: the new tables disagree with each other, or have fewer facts of a partition than the old ones."""
        if after["activity_hourly"].facts != after["activity"].facts:
            raise RebuildError(f"the new sums have {after['activity_hourly'].facts:,} facts, their table "
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
                raise RebuildError(f"partition {partition} has {count:,} rows, the facts held make "
                             f"{fresh.get(partition, 0):,}; nothing was changed (--missing-facts drop accepts that)")

    def _counts(self, database: str) -> dict[str, Counts]:
        found = {"activity": _ROWS.format(table=f"`{database}`.activity", columns=", ".join(COLUMNS))}
        for table, what in _SUMS.items():
            key = ", ".join(what.split(", ")[:4])
            found[table] = _SUMMED.format(what=what, key=key, table=f"`{database}`.{table}")
        return {table: Counts(*self._client.query(sql).result_rows[0]) for table, sql in found.items()}


async def _nothing() -> AsyncIterator[list[Any]]:
    no: tuple[list[Any], ...] = ()
    for records in no:
        yield records
