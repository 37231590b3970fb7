"""`attn.facts` -> ClickHouse: reads, batches by rows and time, writes in a thread, and commits what is written.

One batch is being written while the next is gathered; when that is full too, nothing more is read. Who is behind
gathers more meanwhile: a row of a large insert costs less. An outage of ClickHouse only makes it wait. After anything
of unknown end (a rebalance, a long outage, a topic that fell back) it begins anew from what ClickHouse has
(`_recover`): there is one way to start, and a crash takes it as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from schemas.dead_letters import DeadLetter
from schemas.facts import Fact
from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history import metrics
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.clickhouse.columns import fact_identity, with_old_ids
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.lag import Lag
from streams.history.resume import Offsets, resume
from streams.history.writer import PendingBatch, Writer, facts_of
from streams.kafka.reader import read_offsets
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread

__all__ = ["Consumer"]

log = logging.getLogger("attn.history")

# Seconds. A write that fails for longer begins anew: its token may have left ClickHouse's window.
_STALLED = 60.0
_REVOKE = 5.0  # a rebalance waits so long for the batch being written
_STOP = 3.0  # a clean stop, for the last batches
_IDLE = 0.25  # the longest wait for records, so that a stop is seen
_BUSY = 0.05  # the shortest: while a batch is being written and the next is due
_BEHIND = 4  # times as many rows are gathered while a batch is being written
_SAY = 30.0  # between two lines that say the same of an outage

Bury = Callable[[Collection[DeadLetter]], Awaitable[None]]


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """`consumer`: started, of group `attn-history`, not subscribed; `bury` writes dead letters."""

    def __init__(
        self, settings: Settings, consumer: AIOKafkaConsumer, store: ActivityRepository, background: WorkerThread,
        bury: Bury,
    ) -> None:
        self._settings = settings
        self._kafka = consumer
        self._store = store
        self._writer = Writer(store, settings.dedupe_days)
        self._in_thread = background
        self._bury = bury
        self._gathered = PendingBatch()
        self._written: PendingBatch | None = None  # the one being written
        self._writing: asyncio.Task[None] | None = None
        self._next: dict[int, int] = {}  # offset of the next record of each partition
        self._owned: set[int] = set()
        self._lost = True  # what ClickHouse has of the owned partitions is not known
        self._epoch = 0  # counts assignments, and their ends
        self._retry = Backoff()
        self._lag = Lag(settings)
        self._said = 0.0
        self.up, self._why = True, ""

    def unready(self) -> str | None:
        """Why it is not ready: what it waits for, or how far it is behind. None: it is."""
        if not self._epoch:
            return "starting: it has not joined its group yet"
        if not self.up:
            return f"waiting: {self._why}"
        if self._lost and self._owned:
            return "starting: it asks ClickHouse what it has"
        return self._lag.unready()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then what is gathered is written, if ClickHouse takes it in time. Raises ConsumerStalled."""
        self._kafka.subscribe([FACTS], listener=self)
        ended = asyncio.create_task(stop.wait())
        work: list[asyncio.Task[None]] = [
            asyncio.create_task(self._work(stop, ended)),
            asyncio.create_task(self._lag.watch(
                self._kafka, lambda: self._lost or not self.up, self._in_thread.busy)),
        ]
        try:
            # A stop is heard here too: what `_recover` asks may take as long as Kafka or ClickHouse are away.
            await asyncio.wait({ended, *work}, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
        finally:
            for one in (ended, *work):
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        await self._finish(_STOP)

    async def _work(self, stop: asyncio.Event, ended: asyncio.Task[bool]) -> None:
        while not stop.is_set():
            await self._turn(ended)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._epoch += 1
        if not self._lost:
            await self._settle(_REVOKE)
        self._drop()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._epoch += 1
        self._drop()
        self._owned = {tp.partition for tp in assigned}
        self._lag.own(self._owned)

    # --- one turn ---

    async def _turn(self, ended: asyncio.Task[bool]) -> None:
        if self._writing is not None and self._writing.done():
            await self._reap(self._writing)
        if self._lost:
            return await self._recover(ended)
        settings, now = self._settings, time.monotonic()
        rows, count = settings.history_batch_rows, self._gathered.count
        left = self._gathered.since + settings.history_batch_ms / 1000 - now if count else _IDLE
        if self._writing is None and (count >= rows or left <= 0):
            self._begin()
            count, left = 0, _IDLE
        if self._lag.due(now) and (back := self._lag.fell_back(self._kafka, self._next)):
            return self._fell_back(*back)
        room = (rows if self._writing is None else rows * _BEHIND) - count
        if room <= 0:
            waits: set[asyncio.Task[Any]] = {task for task in (self._writing, ended) if task is not None}
            await asyncio.wait(waits, timeout=_IDLE, return_when=asyncio.FIRST_COMPLETED)
        else:
            await self._read(min(max(left, _BUSY), _IDLE), room)
        return None

    async def _read(self, seconds: float, most: int) -> None:
        epoch = self._epoch
        got = await self._kafka.getmany(timeout_ms=int(seconds * 1000), max_records=most)
        if epoch != self._epoch or self._lost:
            return None  # of another assignment: read again
        for tp, records in got.items():
            expected = self._next.get(tp.partition)
            if expected is None or records[0].offset < expected:
                return self._fell_back(tp.partition, records[0].offset)
            if records[0].offset > expected:
                log.error("partition %d: offsets %d to %d left the topic before they were read: they are missing from "
                          "the history", tp.partition, expected, records[0].offset - 1)
            self._next[tp.partition] = records[-1].offset + 1
            self._gathered.add(tp.partition, records)
        return None

    def _begin(self) -> None:
        self._written, self._gathered = self._gathered, PendingBatch()
        self._writing = asyncio.create_task(self._write(self._written))

    async def _write(self, batch: PendingBatch) -> None:
        """Returns when it is in ClickHouse and committed. Unavailable: of unknown end."""
        plan = await self._in_thread(self._writer.plan, batch)
        begun, backoff = time.monotonic(), Backoff()
        while True:
            try:
                await self._in_thread(self._writer.write, plan)
                break
            except ClickHouseUnavailable as unavailable:
                self._say(f"ClickHouse: {unavailable}")
                if time.monotonic() - begun > _STALLED:
                    raise
                await asyncio.sleep(backoff.next())
        self._recovered()
        if plan.letters:
            log.error("%d facts could not be written and went to dead-letters; the first: %s",
                      len(plan.letters), plan.letters[0].reason)
            await self._bury_all(plan.letters)
        self._lag.written(batch.next, batch.times)
        await self._commit(batch.next)

    async def _bury_all(self, letters: Sequence[DeadLetter]) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._bury(letters)
                break
            except (KafkaError, TimeoutError) as error:
                self._say(f"dead-letters: {error!r}")
                await asyncio.sleep(backoff.next())
        metrics.DEAD.inc(len(letters))

    async def _commit(self, offsets: dict[int, int]) -> None:
        try:
            await self._kafka.commit({TopicPartition(FACTS, part): offset for part, offset in offsets.items()})
        except KafkaError as error:  # the next one covers it; whoever begins there skips what ClickHouse has
            log.info("offsets not committed: %r", error)

    async def _reap(self, task: asyncio.Task[None]) -> None:
        self._writing = self._written = None
        try:
            await task
        except ClickHouseUnavailable as unavailable:
            self._say(f"ClickHouse: {unavailable}")
            self._drop()

    # --- beginning, and beginning anew ---

    def _drop(self) -> None:
        """Forget what is gathered or being written: it is not committed, so it is read again."""
        if self._writing is not None:
            self._writing.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._writing.cancel()
        self._writing = self._written = None
        self._gathered = PendingBatch()
        self._next.clear()
        self._lost = True

    def _fell_back(self, partition: int, offset: int) -> None:
        log.warning("partition %d: the topic fell back to offset %d, %s was next: its broker lost records",
                    partition, offset, self._next.get(partition))
        self._drop()

    async def _recover(self, ended: asyncio.Task[bool]) -> None:
        """One try to find out what ClickHouse has of the owned partitions, and to read on after it."""
        epoch, owned = self._epoch, sorted(self._owned)
        if not owned:
            await asyncio.wait({ended}, timeout=_IDLE)
            return
        try:
            starts = await self._starts(owned)
        except (ClickHouseUnavailable, KafkaError, TimeoutError) as error:
            self._say(f"{error!r}" if not isinstance(error, ClickHouseUnavailable) else f"ClickHouse: {error}")
            await asyncio.wait({ended}, timeout=self._retry.next())
            return
        if epoch != self._epoch:
            return
        for partition, start in starts.items():
            self._kafka.seek(TopicPartition(FACTS, partition), start)
        self._next, self._lost = dict(starts), False
        self._lag.written(starts, {})
        self._recovered()
        log.info("reading %d partitions of %s", len(starts), FACTS)

    async def _starts(self, owned: Sequence[int]) -> dict[int, int]:
        places = [TopicPartition(FACTS, partition) for partition in owned]
        begins, ends = await self._kafka.beginning_offsets(places), await self._kafka.end_offsets(places)
        committed = {tp: await self._kafka.committed(tp) for tp in places}
        for tp in places:
            self._lag.begin(tp.partition, begins[tp] if committed[tp] is None else committed[tp])
        await self._in_thread(self._store.wait_for_running_inserts)
        if hours := await self._in_thread(self._store.repair_hourly_tables, owned):
            log.warning("%d hours of activity_hourly were incomplete after a crash and made again", hours)
        await self._in_thread(self._writer.open, owned)
        starts = {}
        for tp in places:
            offsets = Offsets(begins[tp], ends[tp], committed[tp])
            starts[tp.partition], said = await resume(offsets, self._reader(tp), self._asker(tp.partition))
            if said:
                log.warning("partition %d: %s", tp.partition, said)
        return starts

    def _reader(self, tp: TopicPartition) -> Callable[[int, int], Awaitable[list[tuple[int, Fact]]]]:
        async def read(low: int, high: int) -> list[tuple[int, Fact]]:
            return [
                (record.offset, fact) async for run in read_offsets(self._settings, tp, low, high)
                for fact, record in facts_of(run, [])
            ]

        return read

    def _asker(self, partition: int) -> Callable[[Sequence[Fact]], Awaitable[list[bool]]]:
        async def present(facts: Sequence[Fact]) -> list[bool]:
            there = with_old_ids(await self._in_thread(self._store.stored_at, partition, facts))
            return [fact_identity(fact) in there for fact in facts]

        return present

    # --- ending ---

    async def _settle(self, seconds: float) -> bool:
        """Wait for the batch being written. False: it is not."""
        task = self._writing
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
        return bool(done) and not task.cancelled() and task.exception() is None

    async def _finish(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._lost and (self._writing is not None or self._gathered.count):
            if self._writing is None:
                self._begin()
            if not await self._settle(deadline - time.monotonic()):
                log.warning("stopped before ClickHouse had all: the rest is read again by the next start")
                break
            self._writing = None
        self._drop()

    # --- telling ---

    def _say(self, what: str) -> None:
        self.up, self._why = False, what
        metrics.UP.set(0)
        if time.monotonic() - self._said > _SAY:
            self._said = time.monotonic()
            log.warning("waiting: %s", what)

    def _recovered(self) -> None:
        if not self.up and self._said:
            log.info("going on")
        self._retry.reset()
        self._said, self.up = 0.0, True
        metrics.UP.set(1)
