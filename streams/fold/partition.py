"""Folds one partition: load, apply packs, write facts, then rows with the position."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing

from aiokafka import ConsumerRecord
from faust.types import TP

from schemas.dead_letters import DeadLetter
from schemas.facts import encode_fact
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS, RecordTooLarge, check_record_sizes
from streams.consumer.chunks import ByteSemaphore, RecordChunk, Records
from streams.consumer.gap_filler import GapFiller
from streams.core.config import FoldConfig
from streams.core.fold.fold import MAX_PART_BYTES, Fold
from streams.core.packs import unpack
from streams.fold.views_table import ViewsTable
from streams.kafka.dead_letters import send_dead_letters
from streams.kafka.fencing import FencedProducer, fence_partition
from streams.kafka.reader import partition_bounds
from streams.runtime import metrics
from streams.runtime.clock import now_us

__all__ = ["PartitionProcessor"]

log = logging.getLogger(__name__)

# A group of packs is one batch of rows. Rows are a few times their events, so this keeps a batch far below its limit;
# what a single pack may change is bounded by the fold itself.
_MAX_GROUP_BYTES = 400_000


class PartitionProcessor:
    """One partition: what waits for it, its fold, the loop that folds and writes.

    `reusable_fold` is the fold of an earlier time this worker had the partition: it is still right if nobody wrote
    since.
    """

    def __init__(self, partition: int, settings: Settings, views: ViewsTable, gaps: GapFiller,
                 reusable_fold: Fold | None = None) -> None:
        self.tp = TP(LOG, partition)
        self.fold: Fold | None = None  # once loaded
        self.next_offset = 0  # offset after the last pack that is durable
        self.processed_at = 0.0  # the broker's time of that pack, seconds
        self.queue: asyncio.Queue[RecordChunk] = asyncio.Queue()
        self.idle = False
        self._partition = partition
        self._settings = settings
        self._views = views
        self._gaps = gaps
        self._reusable_fold = reusable_fold
        self._writer: FencedProducer | None = None
        self.stopped_cleanly = False  # ended with everything folded written
        self.closing = False
        self._group: Records = []  # folded, not yet durable
        self._group_bytes = 0

    def close(self) -> None:
        """Ends `run` when what is being folded is written."""
        self.closing = True
        self.queue.put_nowait(RecordChunk(self.tp, [], 0, 0))

    async def run(self, queue_bytes: ByteSemaphore) -> None:
        writer = self._writer = await fence_partition(self._settings, self._partition)
        try:
            await self._start(writer)
            while not self.closing:
                self.idle = self.queue.empty()
                chunk = await self.queue.get()
                self.idle = False
                await self._deliver(chunk, queue_bytes)
                while not self.closing and not self.queue.empty():
                    await self._deliver(self.queue.get_nowait(), queue_bytes)
                await self._commit_batch()
            self.stopped_cleanly = True
        finally:
            await writer.close()

    async def _start(self, writer: FencedProducer) -> None:
        fold = await self._load_fold(writer)
        if said := await self._reconcile(fold):
            log.error("%s/%d: %s", *self.tp, said)
            await self._write_batch(fold)  # readers see the jump at once, and it is not made again
        self.fold, self.next_offset = fold, fold.position.next
        self._gaps.start_at(self.tp, self.next_offset)

    async def _load_fold(self, writer: FencedProducer) -> Fold:
        """A fold of what is durable."""
        rows, news = await self._views.load(writer)
        reusable_fold, self._reusable_fold = self._reusable_fold, None
        return reusable_fold if reusable_fold is not None and not news else await self._create_fold(rows)

    async def _create_fold(self, rows: Mapping[bytes, bytes]) -> Fold:
        fold = Fold(rows, self._partition, FoldConfig.from_settings(self._settings))
        await asyncio.to_thread(fold.load)  # seconds, where there are millions of rows
        return fold

    async def _reconcile(self, fold: Fold) -> str | None:
        begin, end = (await partition_bounds(self._settings, [self.tp]))[self.tp]
        return fold.reconcile(end, self._settings.incarnation, begin)

    async def _deliver(self, chunk: RecordChunk, queue_bytes: ByteSemaphore) -> None:
        if not self.closing:
            async with aclosing(self._gaps.deliver(chunk)) as runs:
                async for run in runs:
                    for record in run:
                        await self._apply_record(record)
                    if self.closing:
                        break  # what was missing may be hours of records
        queue_bytes.release(chunk.size)

    async def _apply_record(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Folds one record of the log; writes first where the group is full."""
        value = record.value or b""
        assert self.fold is not None
        if self._group_bytes + len(value) > _MAX_GROUP_BYTES or self.fold.pending_bytes > MAX_PART_BYTES:
            await self._commit_batch()
        _skip_to(self.fold, record.offset)
        try:
            pack = unpack(value)
        except (ValueError, RecursionError) as error:
            await self._dead_letter(self.fold, record, f"not a pack of the log: {error}", "pack")
            return
        self._group_bytes += len(value)
        while self.fold.position.next == record.offset:
            self._group.append(record)
            if self.fold.apply(pack, record.offset):
                break
            await self._commit_batch()  # a part of a large pack

    async def _commit_batch(self) -> None:
        """Makes durable what was folded since the last time."""
        records, self._group, self._group_bytes = self._group, [], 0
        assert self.fold is not None
        if not records and self.fold.position.next == self.next_offset:
            return  # nothing but repeats
        try:
            await self._write_batch(self.fold)
        except RecordTooLarge:
            await self._apply_individually(records)
        if records:
            self.processed_at = records[-1].timestamp / 1000

    async def _write_batch(self, fold: Fold) -> None:
        batch = fold.pending_batch()
        check_record_sizes(VIEWS, batch.rows)  # before anybody is told the facts
        assert self._writer is not None
        with metrics.WRITE_SECONDS.time():
            if batch.facts:
                await self._writer.write(FACTS, [(fact.ws.encode(), encode_fact(fact)) for fact in batch.facts])
            await self._views.write(self._writer, batch.rows)
        fold.mark_durable()
        metrics.PACKS.inc(fold.position.next - self.next_offset)
        metrics.FACTS.inc(len(batch.facts))
        metrics.BATCH_ROWS.observe(len(batch.rows))
        metrics.CLOCK.labels(self._partition).set(fold.position.clock / SECOND)
        self.next_offset = fold.position.next

    async def _apply_individually(self, records: Records) -> None:
        """A row became larger than any batch. Finds the pack it came of and passes over that one only: the worker would
        fail at it for ever."""
        durable = self._views.store.rows(self._partition)
        fold = self.fold = await self._create_fold(durable)
        for record in records:
            whole = record.offset < fold.position.next
            try:
                while not whole:
                    _skip_to(fold, record.offset)
                    whole = fold.apply(unpack(record.value), record.offset)
                    await self._write_batch(fold)
            except RecordTooLarge as error:
                fold = self.fold = await self._create_fold(durable)
                _skip_to(fold, record.offset)
                await self._dead_letter(fold, record, str(error), "row")

    async def _dead_letter(self, fold: Fold, record: ConsumerRecord[bytes, bytes], reason: str, cause: str) -> None:
        log.error("%s/%d: the record at offset %d goes to dead-letters: %s", *self.tp, record.offset, reason)
        assert self._writer is not None
        letter = DeadLetter.of_record(record, reason, cause, now_us())
        await send_dead_letters(self._writer.producer, [letter])
        fold.skip(record.offset)


def _skip_to(fold: Fold, offset: int) -> None:
    """The log has no records in between: markers of somebody's transaction, or what was passed over before."""
    for missing in range(fold.position.next, offset):
        fold.skip(missing)
