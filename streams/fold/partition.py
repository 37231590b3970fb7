"""Folds one partition of attn.log: loads its rows, applies packs, writes facts, decisions, then rows with the position.

Each write is one step of a fixed order: facts; decisions; rows and position as one batch; the table; and only then may
the offset be committed. All writes are acknowledged before the next step. A crash between two steps leaves the position
where it was, and the same packs give the same records and rows again (laws 1 and 3). The position alone decides which
packs are folded; Faust's offsets only say where to read.
"""

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
from schemas.topics import DECISIONS, FACTS, LOG, VIEWS, RecordTooLarge, check_record_sizes
from streams.consumer.chunks import ByteSemaphore, RecordChunk, Records
from streams.consumer.gap_filler import GapFiller
from streams.core.config import FoldConfig
from streams.core.fold.fold import MAX_PART_BYTES, Fold
from streams.core.packs import unpack
from streams.fold.decision_records import DecisionEncoder
from streams.fold.traces import fold_traces
from streams.fold.views_table import ViewsTable
from streams.kafka.dead_letters import send_dead_letters
from streams.kafka.fencing import FencedProducer, PartitionFencer
from streams.kafka.producer import Headers
from streams.kafka.reader import partition_bounds
from streams.runtime import metrics
from streams.runtime.clock import now_us

__all__ = ["PartitionProcessor"]

log = logging.getLogger(__name__)

# Bytes of packs that become one batch of rows. Rows are a few times larger than their events, so the batch stays far
# below its size limit. The fold itself limits what a single pack may change.
_MAX_GROUP_BYTES = 400_000

_Output = list[tuple[bytes, bytes | None, Headers]]  # key, value, headers


class PartitionProcessor:
    """Processes one assigned partition: its queue, its fold, and the loop that folds and writes.

    `reusable_fold`: the fold from an earlier assignment of the partition to this worker. It is used if no other worker
    has written rows since. `encoder`: of the records of the topic `decisions`; default: one of its own.
    """

    def __init__(self, partition: int, settings: Settings, fencer: PartitionFencer, views: ViewsTable,
                 gaps: GapFiller, reusable_fold: Fold | None = None, encoder: DecisionEncoder | None = None) -> None:
        self.tp = TP(LOG, partition)
        self.fold: Fold | None = None  # set once the rows are loaded
        self.next_offset = 0  # offset after the last durable pack
        self.processed_at = 0.0  # the broker's timestamp of that pack, seconds
        self.queue: asyncio.Queue[RecordChunk] = asyncio.Queue()
        self.idle = False
        self.closing = False
        self.stopped_cleanly = False  # `run` ended with everything folded and written
        self._partition = partition
        self._settings = settings
        self._fencer = fencer
        self._views = views
        self._gaps = gaps
        self._encoder = encoder if encoder is not None else DecisionEncoder(settings)
        self._reusable_fold = reusable_fold
        self._writer: FencedProducer | None = None
        self._traces = fold_traces()
        self._group: Records = []  # records that are folded but not durable
        self._group_bytes = 0

    def close(self) -> None:
        """Makes `run` return once the records that are being folded are written."""
        self.closing = True
        self.queue.put_nowait(RecordChunk(self.tp, [], 0, 0))

    async def run(self, queue_bytes: ByteSemaphore) -> None:
        """Fences the partition, loads its rows, then folds the queue until `close`. Releases each chunk's bytes."""
        writer = self._writer = await self._fencer.fence(self._partition)
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

    async def _start(self, writer: FencedProducer) -> None:
        fold = await self._load_fold(writer)
        if reason := await self._reconcile(fold):
            log.error("%s/%d: %s", *self.tp, reason)
            await self._write_batch(fold)  # readers get the jump of the position now; a restart does not repeat it
        self.fold, self.next_offset = fold, fold.position.next
        self._gaps.start_at(self.tp, self.next_offset)

    async def _load_fold(self, writer: FencedProducer) -> Fold:
        rows, changed = await self._views.load(writer)
        reusable_fold, self._reusable_fold = self._reusable_fold, None
        return reusable_fold if reusable_fold is not None and not changed else await self._create_fold(rows)

    async def _create_fold(self, rows: Mapping[bytes, bytes]) -> Fold:
        fold = Fold(rows, self._partition, FoldConfig.from_settings(self._settings))
        await asyncio.to_thread(fold.load)  # takes seconds for millions of rows
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
                        break  # a gap may be hours of records
        queue_bytes.release(chunk.size)

    async def _apply_record(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Folds one record of the log. Commits the current group first if it has no room for the record."""
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
        if self._traces is not None and self.fold.position.next == record.offset:
            self._traces.begin(record, pack)
        self._group_bytes += len(value)
        while self.fold.position.next == record.offset:
            self._group.append(record)
            if self.fold.apply(pack, record.offset):
                break
            await self._commit_batch()  # a part of a large pack

    async def _commit_batch(self) -> None:
        """Makes durable what was folded since the last call."""
        records, self._group, self._group_bytes = self._group, [], 0
        assert self.fold is not None
        if not records and self.fold.position.next == self.next_offset:
            return  # only duplicates were delivered
        try:
            await self._write_batch(self.fold)
        except RecordTooLarge:
            await self._apply_individually(records)
        if records:
            self.processed_at = records[-1].timestamp / 1000

    async def _write_batch(self, fold: Fold) -> None:
        """Writes facts, decisions, rows with the position, then the table. Raises RecordTooLarge before any write."""
        batch = fold.pending_batch()
        check_record_sizes(VIEWS, batch.rows)
        assert self._writer is not None
        facts: _Output = [(fact.ws.encode(), encode_fact(fact), []) for fact in batch.facts]
        decisions = self._encoder.encode(batch.decisions)
        rows: _Output = [(key, value, []) for key, value in batch.rows]
        if self._traces is not None:
            self._traces.mark(batch, facts, decisions, rows)
        started = time.perf_counter()
        if facts:
            await self._writer.write_records(FACTS, facts)
        if decisions:
            await self._writer.write_records(DECISIONS, decisions)
        offset = await self._writer.write_records(VIEWS, rows)
        self._views.commit(self._partition, batch.rows, offset)
        exemplar = None if self._traces is None else self._traces.written(len(rows))
        metrics.WRITE_SECONDS.observe(time.perf_counter() - started, exemplar)
        fold.mark_durable()
        metrics.PACKS.inc(fold.position.next - self.next_offset)
        metrics.FACTS.inc(len(batch.facts))
        metrics.BATCH_ROWS.observe(len(batch.rows))
        metrics.CLOCK.labels(self._partition).set(fold.position.clock / SECOND)
        self.next_offset = fold.position.next

    async def _apply_individually(self, records: Records) -> None:
        """Applies the group's records one by one, because a row became larger than any batch. Only the record that
        caused it becomes a dead letter; otherwise the worker would fail at it after every restart. `Replay` has the
        same algorithm."""
        durable = self._views.store.rows(self._partition)
        fold = self.fold = await self._create_fold(durable)
        for record in records:
            complete = record.offset < fold.position.next
            try:
                while not complete:
                    _skip_to(fold, record.offset)
                    complete = fold.apply(unpack(record.value), record.offset)
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
    """Skips offsets without records: transaction markers, and records that became dead letters before."""
    for missing in range(fold.position.next, offset):
        fold.skip(missing)
