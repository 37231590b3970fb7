"""Agent `fold`: packs of attn.log in, facts and rows out. One `Shard` folds one partition.

Order of writes: facts, then rows and position as one batch, each acknowledged; then the table; then the offset may be
committed. A crash between any two leaves the position where it was, and the same packs give the same facts and rows
again (laws 1 and 3). The position alone decides what is folded; Faust's offsets only say where to look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import aclosing

import faust
from aiokafka import ConsumerRecord
from faust.types import TP

from schemas.dead_letters import DeadLetter
from schemas.facts import encode_fact
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS
from streams.consumer.chunks import Budget, Portion, Records, Whole
from streams.consumer.gap_filler import Continuity
from streams.core.config import FoldConfig as Rules
from streams.core.fold.fold import PART_BYTES, Fold
from streams.core.packs import unpack
from streams.fold.views_table import Views
from streams.kafka.dead_letters import bury
from streams.kafka.fencing import Claim, claim
from streams.kafka.producer import RecordTooLarge, refuse_large
from streams.kafka.reader import bounds
from streams.runtime import metrics
from streams.runtime.task_supervisor import Alarm

__all__ = ["Shard", "Shards", "agent"]

log = logging.getLogger(__name__)

# A group of packs is one batch of rows. Rows are a few times their events, so this keeps a batch far below its limit;
# what a single pack may change is bounded by the fold itself.
_GROUP_BYTES = 400_000
_WAITING_BYTES = 32 << 20


def agent(app: faust.App, shards: Shards, alarm: Alarm) -> None:
    topic = app.topic(LOG, schema=Whole(), acks=False)

    @app.agent(topic, name="fold")  # type: ignore[untyped-decorator]
    async def fold(stream: faust.Stream[Records]) -> None:
        with alarm.guard("agent fold"):
            async for event in stream.noack().events():
                await shards.put(event.message.tp, event.value)


class Shard:
    """One partition: what waits for it, its fold, the loop that folds and writes.

    `kept` is the fold of an earlier time this worker had the partition: it is still right if nobody wrote since.
    """

    def __init__(self, partition: int, settings: Settings, views: Views, continuity: Continuity,
                 kept: Fold | None = None) -> None:
        self.tp = TP(LOG, partition)
        self.fold: Fold | None = None  # once loaded
        self.done = 0  # offset after the last pack that is durable
        self.worked = 0.0  # the broker's time of that pack, seconds
        self.waiting: asyncio.Queue[Portion] = asyncio.Queue()
        self.resting = False
        self._partition = partition
        self._settings = settings
        self._views = views
        self._continuity = continuity
        self._kept = kept
        self._claim: Claim | None = None
        self.clean = False  # ended with everything folded written
        self.closing = False
        self._records: Records = []  # folded, not yet durable
        self._bytes = 0

    def close(self) -> None:
        """Ends `run` when what is being folded is written."""
        self.closing = True
        self.waiting.put_nowait(Portion(self.tp, [], 0, 0))

    async def run(self, budget: Budget) -> None:
        held = self._claim = await claim(self._settings, self._partition)
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

    async def _begin(self, held: Claim) -> None:
        fold = await self._open(held)
        if said := await self._reconcile(fold):
            log.error("%s/%d: %s", *self.tp, said)
            await self._flush(fold)  # readers see the jump at once, and it is not made again
        self.fold, self.done = fold, fold.position.next
        self._continuity.own(self.tp, self.done)

    async def _open(self, held: Claim) -> Fold:
        """A fold of what is durable."""
        rows, news = await self._views.load(held)
        kept, self._kept = self._kept, None
        return kept if kept is not None and not news else await self._fold_of(rows)

    async def _fold_of(self, rows: Mapping[bytes, bytes]) -> Fold:
        fold = Fold(rows, self._partition, Rules.from_settings(self._settings))
        await asyncio.to_thread(fold.load)  # seconds, where there are millions of rows
        return fold

    async def _reconcile(self, fold: Fold) -> str | None:
        begin, end = await bounds(self._settings, self.tp)
        return fold.reconcile(end, self._settings.incarnation, begin)

    async def _follow(self, portion: Portion, budget: Budget) -> None:
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
        refuse_large(VIEWS, batch.rows)  # before anybody is told the facts
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
        await bury(self._claim.out, [DeadLetter(
            topic=LOG, partition=self._partition, offset=record.offset, reason=reason, at=time.time_ns() // 1000,
            key=record.key, value=record.value, headers=[(name, raw or b"") for name, raw in record.headers],
            cause=cause,
        )])
        fold.skip(record.offset)


def _skip_to(fold: Fold, offset: int) -> None:
    """The log has no records in between: markers of somebody's transaction, or what was passed over before."""
    for missing in range(fold.position.next, offset):
        fold.skip(missing)


class Shards:
    """The partitions of the log that this worker owns."""

    def __init__(self, make: Callable[[int, Fold | None], Shard], alarm: Alarm) -> None:
        self.owned: dict[int, Shard] = {}
        self._kept: dict[int, Fold] = {}  # of partitions owned until the rebalance that goes on
        self._make = make
        self._alarm = alarm
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._budget = Budget(_WAITING_BYTES)

    async def put(self, tp: TP, records: Records) -> None:
        portion = Portion.of(tp, records)
        await self._budget.take(portion.size)
        shard = self.owned.get(tp.partition)
        if shard is None or shard.closing:  # revoked meanwhile
            self._budget.give(portion.size)
        else:
            shard.waiting.put_nowait(portion)

    def read_again(self, tp: TP, upto: int) -> None:
        self.owned[tp.partition].waiting.put_nowait(Portion(tp, [], upto, 0))

    def idle(self, tp: TP) -> bool:
        shard = self.owned.get(tp.partition)
        return shard is not None and shard.resting and shard.waiting.empty()

    held: Collection[TP] = ()  # none is left alone

    @property
    def ready(self) -> bool:
        return not self.loading

    @property
    def loading(self) -> list[int]:
        """Partitions whose rows are being read."""
        return sorted(number for number, shard in self.owned.items() if shard.fold is None)

    @property
    def worked(self) -> dict[TP, float]:
        return {shard.tp: shard.worked for shard in self.owned.values() if shard.worked}

    @property
    def done(self) -> dict[TP, int]:
        return {shard.tp: shard.done for shard in self.owned.values() if shard.fold is not None}

    def start(self, partitions: Iterable[int]) -> None:
        kept, self._kept = self._kept, {}
        for partition in partitions:
            shard = self.owned[partition] = self._make(partition, kept.get(partition))
            name = f"fold of partition {partition}"
            self._tasks[partition] = self._alarm.watch(shard.run(self._budget), name)

    async def close(self) -> None:
        """Returns when nothing is written any more. What waits is left to whoever owns the partition next.

        A worker may be told to stop while a rebalance takes its partitions: then two wait for the same.
        """
        for partition, shard in self.owned.items():
            if not shard.closing:
                shard.close()
                if shard.fold is None:
                    self._tasks[partition].cancel()  # it only reads yet; a write is never cut off
        await asyncio.gather(*(self._tasks[partition] for partition in self.owned), return_exceptions=True)
        for shard in self.owned.values():
            while not shard.waiting.empty():
                self._budget.give(shard.waiting.get_nowait().size)

    def release(self) -> None:
        """After `close`. What ended well may go on where it is, should this worker get the partition again."""
        self._kept = {
            partition: shard.fold for partition, shard in self.owned.items() if shard.fold is not None and shard.clean
        }
        self.owned.clear()
        self._tasks.clear()
