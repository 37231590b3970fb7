"""Folds one partition: load, apply packs, write facts, then rows with the position."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing

from aiokafka import ConsumerRecord
from faust.types import TP

from schemas.dead_letters import DeadLetter
from schemas.facts import encode_fact
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS
from streams.consumer.chunks import ByteSemaphore, RecordChunk, Records
from streams.consumer.gap_filler import GapFiller
from streams.core.config import FoldConfig as Rules
from streams.core.fold.fold import PART_BYTES, Fold
from streams.core.packs import unpack
from streams.fold.views_table import ViewsTable
from streams.kafka.dead_letters import send_dead_letters
from streams.kafka.fencing import FencedProducer, fence_partition
from streams.kafka.producer import RecordTooLarge, check_record_sizes
from streams.kafka.reader import partition_bounds
from streams.runtime import metrics

__all__ = ["PartitionProcessor"]

log = logging.getLogger(__name__)

# A group of packs is one batch of rows. Rows are a few times their events, so this keeps a batch far below its limit;
# what a single pack may change is bounded by the fold itself.
_GROUP_BYTES = 400_000


class PartitionProcessor:
    """One partition: what waits for it, its fold, the loop that folds and writes.

    `kept` is the fold of an earlier time this worker had the partition: it is still right if nobody wrote since.
    """

    def __init__(self, partition: int, settings: Settings, views: ViewsTable, continuity: GapFiller,
                 kept: Fold | None = None) -> None:
        self.tp = TP(LOG, partition)
        self.fold: Fold | None = None  # once loaded
        self.done = 0  # offset after the last pack that is durable
        self.worked = 0.0  # the broker's time of that pack, seconds
        self.waiting: asyncio.Queue[RecordChunk] = asyncio.Queue()
        self.resting = False
        self._partition = partition
        self._settings = settings
        self._views = views
        self._continuity = continuity
        self._kept = kept
        self._claim: FencedProducer | None = None
        self.clean = False  # ended with everything folded written
        self.closing = False
        self._records: Records = []  # folded, not yet durable
        self._bytes = 0

    def close(self) -> None:
        """Ends `run` when what is being folded is written."""
        self.closing = True
        self.waiting.put_nowait(RecordChunk(self.tp, [], 0, 0))

    async def run(self, budget: ByteSemaphore) -> None:
        held = self._claim = await fence_partition(self._settings, self._partition)
        try:
            await self._begin(held)
            while not self.closing:
                self.resting = self.waiting.empty()
                portion = await self.waiting.get()
                self.resting = False
                await self._follow(portion, budget)
                while not self.closing and not self.waiting.empty():
                    await self._follow(self.waiting.get_nowait(), budget)
                await self._write()
            self.clean = True
        finally:
            await held.close()

    async def _begin(self, held: FencedProducer) -> None:
        fold = await self._open(held)
        if said := await self._reconcile(fold):
            log.error("%s/%d: %s", *self.tp, said)
            await self._flush(fold)  # readers see the jump at once, and it is not made again
        self.fold, self.done = fold, fold.position.next
        self._continuity.own(self.tp, self.done)

    async def _open(self, held: FencedProducer) -> Fold:
        """A fold of what is durable."""
        rows, news = await self._views.load(held)
        kept, self._kept = self._kept, None
        return kept if kept is not None and not news else await self._fold_of(rows)

    async def _fold_of(self, rows: Mapping[bytes, bytes]) -> Fold:
        fold = Fold(rows, self._partition, Rules.from_settings(self._settings))
        await asyncio.to_thread(fold.load)  # seconds, where there are millions of rows
        return fold

    async def _reconcile(self, fold: Fold) -> str | None:
        begin, end = await partition_bounds(self._settings, self.tp)
        return fold.reconcile(end, self._settings.incarnation, begin)

    async def _follow(self, portion: RecordChunk, budget: ByteSemaphore) -> None:
        if not self.closing:
            async with aclosing(self._continuity.follow(portion)) as runs:
                async for run in runs:
                    for record in run:
                        await self._take(record)
                    if self.closing:
                        break  # what was missing may be hours of records
        budget.give(portion.size)

    async def _take(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Folds one record of the log; writes first where the group is full."""
        value = record.value or b""
        assert self.fold is not None
        if self._bytes + len(value) > _GROUP_BYTES or self.fold.size > PART_BYTES:
            await self._write()
        _skip_to(self.fold, record.offset)
        try:
            pack = unpack(value)
        except (ValueError, RecursionError) as error:
            await self._pass_over(self.fold, record, f"not a pack of the log: {error}", "pack")
            return
        self._bytes += len(value)
        while self.fold.position.next == record.offset:
            self._records.append(record)
            if self.fold.apply(pack, record.offset):
                break
            await self._write()  # a part of a large pack

    async def _write(self) -> None:
        """Makes durable what was folded since the last time."""
        records, self._records, self._bytes = self._records, [], 0
        assert self.fold is not None
        if not records and self.fold.position.next == self.done:
            return  # nothing but repeats
        try:
            await self._flush(self.fold)
        except RecordTooLarge:
            await self._one_by_one(records)
        if records:
            self.worked = records[-1].timestamp / 1000

    async def _flush(self, fold: Fold) -> None:
        batch = fold.take()
        check_record_sizes(VIEWS, batch.rows)  # before anybody is told the facts
        assert self._claim is not None
        with metrics.WRITE_SECONDS.time():
            if batch.facts:
                await self._claim.write(FACTS, [(fact.ws.encode(), encode_fact(fact)) for fact in batch.facts])
            await self._views.write(self._claim, batch.rows)
        fold.taken()
        metrics.PACKS.inc(fold.position.next - self.done)
        metrics.FACTS.inc(len(batch.facts))
        metrics.BATCH_ROWS.observe(len(batch.rows))
        metrics.CLOCK.labels(self._partition).set(fold.position.clock / SECOND)
        self.done = fold.position.next

    async def _one_by_one(self, records: Records) -> None:
        """A row became larger than any batch. Finds the pack it came of and passes over that one only: the worker would
        fail at it for ever."""
        durable = self._views.held.rows(self._partition)
        fold = self.fold = await self._fold_of(durable)
        for record in records:
            whole = record.offset < fold.position.next
            try:
                while not whole:
                    _skip_to(fold, record.offset)
                    whole = fold.apply(unpack(record.value), record.offset)
                    await self._flush(fold)
            except RecordTooLarge as error:
                fold = self.fold = await self._fold_of(durable)
                _skip_to(fold, record.offset)
                await self._pass_over(fold, record, str(error), "row")

    async def _pass_over(self, fold: Fold, record: ConsumerRecord[bytes, bytes], reason: str, cause: str) -> None:
        log.error("%s/%d: the record at offset %d goes to dead-letters: %s", *self.tp, record.offset, reason)
        assert self._claim is not None
        await send_dead_letters(self._claim.out, [DeadLetter(
            topic=LOG, partition=self._partition, offset=record.offset, reason=reason, at=time.time_ns() // 1000,
            key=record.key, value=record.value, headers=[(name, raw or b"") for name, raw in record.headers],
            cause=cause,
        )])
        fold.skip(record.offset)


def _skip_to(fold: Fold, offset: int) -> None:
    """The log has no records in between: markers of somebody's transaction, or what was passed over before."""
    for missing in range(fold.position.next, offset):
        fold.skip(missing)
