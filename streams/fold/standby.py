"""Keeps the rows of partitions that other workers own, so that a takeover reads only the newest records.

A plain consumer without a group follows attn.views into the replicas of `ViewsTable`. It never writes, and it decides
nothing: the next owner of a partition fences it and reads up to the fence, as without standby rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from schemas.settings import Settings
from schemas.topics import VIEWS
from streams.consumer.chunks import Records
from streams.fold.partition_replica import PartitionReplica
from streams.fold.views_table import ViewsTable
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.producer import REQUEST_SECONDS
from streams.runtime import metrics
from streams.runtime.backoff import Backoff

__all__ = ["ROW_OVERHEAD", "StandbyReader"]

log = logging.getLogger(__name__)

ROW_OVERHEAD = 180  # bytes of memory of a stored row beside its key and its value
_POLL_MS = 500
_MAX_RECORDS = 500  # the event loop is blocked for about 1 ms
_PAUSE_SECONDS = 0.005  # after full polls, so that the fold of the worker's own partitions comes first
_CHECK_SECONDS = 0.2
_GROWTH = 1.05  # memory is measured again when the number of rows has grown by 5 %


class StandbyReader:
    """Follows the partitions that this worker does not own, within a limit of memory.

    `loaded()`: whether the worker has loaded its own partitions; they come first.
    """

    def __init__(self, settings: Settings, views: ViewsTable, loaded: Callable[[], bool]) -> None:
        self._settings = settings
        self._views = views
        self._loaded = loaded
        self._limit = 0 if settings.incarnation else settings.standby_megabytes << 20  # embedded: one worker
        self._followed: set[int] = set()
        self._replicas: dict[int, PartitionReplica] = {}  # of the partitions that the consumer reads
        self._changed = asyncio.Event()
        self._measured_rows: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._reported = False

    @property
    def followed(self) -> frozenset[int]:
        """The partitions whose rows this worker keeps beside its own."""
        return frozenset(self._followed)

    def set_owned(self, owned: set[int]) -> None:
        """Sets the partitions of this worker, before they are loaded. The others become standby; the rows of this
        worker's former partitions are kept for that."""
        every = set(range(self._settings.log_partitions)) if self._limit else set()
        self._followed = every - owned
        self._views.retain(owned | self._followed)
        self._replicas.clear()
        self._measured_rows.clear()
        self._bytes.clear()
        self._reported = False
        self._changed.set()

    async def run(self) -> None:
        """Follows until it is cancelled. A broker that does not answer delays only the standby rows."""
        backoff = Backoff()
        while True:
            await self._until_wanted()
            try:
                async with self._consumer() as consumer:
                    await self._follow(consumer, backoff)
            except (KafkaError, OSError, TimeoutError) as error:
                log.debug("standby rows: %r", error)
                await asyncio.sleep(backoff.next())

    async def _until_wanted(self) -> None:
        while not (self._followed and self._loaded()):
            self._changed.clear()
            if self._followed:
                await asyncio.sleep(_CHECK_SECONDS)
            else:
                await self._changed.wait()

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **client_arguments(self._settings), client_id=f"attn-standby-{self._settings.instance}",
            enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=_POLL_MS,
            request_timeout_ms=REQUEST_SECONDS * 1000,
        )
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await consumer.start()
            yield consumer
        finally:
            await close_client(consumer)

    async def _follow(self, consumer: AIOKafkaConsumer, backoff: Backoff) -> None:
        """Reads until the partitions change."""
        self._changed.clear()
        partitions = [TopicPartition(VIEWS, number) for number in sorted(self._followed)]
        begins = await consumer.beginning_offsets(partitions)
        if self._changed.is_set():
            return
        consumer.assign(partitions)
        for tp in partitions:
            replica = self._replicas[tp.partition] = self._views.replica(tp.partition)
            consumer.seek(tp, max(replica.next_offset, begins[tp]))
        while not self._changed.is_set():
            try:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            except OffsetOutOfRangeError as error:
                for tp in error.args[0]:
                    self._forget(tp.partition, "its topic became shorter")
                return
            backoff.reset()
            for tp, records in fetched.items():
                self._read(tp.partition, records)
            self._note_current(consumer)
            if sum(map(len, fetched.values())) >= _MAX_RECORDS:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _read(self, partition: int, records: Records) -> None:
        replica = self._replicas.get(partition)
        if replica is None:  # assigned to this worker while the fetch was under way, or dropped
            return
        if replica.outdated:
            self._forget(partition, "they were not current for hours")
            return
        try:
            replica.read(records)
        except (ValueError, AssertionError) as error:
            self._forget(partition, f"a row cannot be read: {error}", again=False)
            return
        self._limit_memory(partition)

    def _forget(self, partition: int, reason: str, again: bool = True) -> None:
        """Drops the standby rows of a partition. `again`: reads them from the beginning; else not before the next
        assignment."""
        if self._replicas.pop(partition, None) is None:
            return
        log.warning("%s/%d: standby rows dropped: %s", VIEWS, partition, reason)
        self._views.drop(partition)
        self._bytes.pop(partition, None)
        self._measured_rows.pop(partition, None)
        if not again:
            self._followed.discard(partition)
        self._changed.set()

    def _limit_memory(self, partition: int) -> None:
        """Stops following the partition if the standby rows take more memory than allowed."""
        rows = self._views.store.rows(partition)
        if len(rows) <= self._measured_rows.get(partition, 0) * _GROWTH:
            return
        self._measured_rows[partition] = len(rows)
        self._bytes[partition] = sum(len(key) + len(value) for key, value in rows.items()) + len(rows) * ROW_OVERHEAD
        if (used := sum(self._bytes.values())) > self._limit:
            self._forget(partition, f"all standby rows take {used >> 20} MiB, ATTN_STANDBY_MEGABYTES is "
                                    f"{self._limit >> 20}", again=False)

    def _note_current(self, consumer: AIOKafkaConsumer) -> None:
        """Notes which replicas have read everything, and logs once that all have."""
        behind = 0
        for partition, replica in self._replicas.items():
            end = consumer.highwater(TopicPartition(VIEWS, partition))
            if end is not None and replica.next_offset >= end:
                replica.mark_current()
            else:
                behind += 1
        metrics.STANDBY_PARTITIONS.set(len(self._replicas) - behind)
        if self._replicas and not behind and not self._reported:
            self._reported = True
            rows = sum(len(self._views.store.rows(partition)) for partition in self._replicas)
            log.info("standby rows of %d partitions are current: %d rows, %d MiB", len(self._replicas), rows,
                     sum(self._bytes.values()) >> 20)
