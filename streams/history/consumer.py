"""Consumer of `attn.facts`: reads the assigned partitions into the insert pipeline.

After a start, a rebalance, an insert of unknown outcome, or a truncation of the topic, the consumer recovers: it
discards what it has gathered, asks ClickHouse what is stored, and seeks to the offsets to resume from
(streams.history.resume). An outage of ClickHouse only delays it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum, auto

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from schemas.facts import Fact
from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.clickhouse.columns import fact_identity, with_old_ids
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.insert_pipeline import InsertPipeline, SendDeadLetters
from streams.history.lag import Lag
from streams.history.outage_log import OutageLog
from streams.history.resume import Offsets, resume
from streams.history.writer import Writer, facts_of
from streams.kafka.reader import read_offsets
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread

__all__ = ["Consumer"]

log = logging.getLogger("attn.history")

# Seconds.
_REVOKE_WAIT = 5.0  # a rebalance waits for the running insert
_STOP_WAIT = 3.0  # a clean stop waits for the last batches
_MAX_POLL = 0.25  # longest wait for records, so that the consumer notices a stop
_MIN_POLL = 0.05  # shortest wait, when the next batch is due while another one is being inserted


class Phase(Enum):
    """What the consumer does with its assigned partitions."""

    RECOVERING = auto()  # the offsets to resume from are unknown; nothing is gathered or inserted
    CONSUMING = auto()  # reads and inserts
    STOPPING = auto()  # reads no more; inserts what is gathered


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """`consumer` is started, in group `attn-history`, and not subscribed yet."""

    def __init__(
        self, settings: Settings, consumer: AIOKafkaConsumer, repository: ActivityRepository, in_thread: WorkerThread,
        send_dead_letters: SendDeadLetters,
    ) -> None:
        self._settings = settings
        self._kafka = consumer
        self._repository = repository
        self._in_thread = in_thread
        self._writer = Writer(repository, settings.dedupe_days)
        self._lag = Lag(settings)
        self._outage = OutageLog()
        self._pipeline = InsertPipeline(
            settings, consumer, self._writer, in_thread, send_dead_letters, self._lag, self._outage)
        self._phase = Phase.RECOVERING
        self._assigned: set[int] = set()
        self._rebalances = 0  # assignments and revocations; a change makes older answers of Kafka invalid
        self._next_offsets: dict[int, int] = {}  # of each partition; empty while recovering
        self._retry = Backoff()  # of the recovery

    def not_ready_reason(self) -> str | None:
        """Returns why the history is not ready: what it waits for, or its lag. None if it is ready."""
        if not self._rebalances:
            return "starting: waiting for partitions from the consumer group"
        if self._outage.problem is not None:
            return f"waiting: {self._outage.problem}"
        if self._phase is Phase.RECOVERING and self._assigned:
            return "starting: asking ClickHouse which facts it has"
        return self._lag.not_ready_reason()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then inserts what is gathered within 3 s. Raises ConsumerStalled."""
        self._kafka.subscribe([FACTS], listener=self)
        ended = asyncio.create_task(stop.wait())
        work: list[asyncio.Task[None]] = [
            asyncio.create_task(self._work(stop, ended)),
            asyncio.create_task(self._lag.watch(self._kafka, self._is_waiting, self._in_thread.busy)),
        ]
        try:
            # Waits for `ended` too: during an outage of Kafka or ClickHouse a recovery may take as long as the outage.
            await asyncio.wait({ended, *work}, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
        finally:
            ended.cancel()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        await self._stop()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Waits up to 5 s for the running insert, then discards what is not committed."""
        self._rebalances += 1
        if self._phase is not Phase.RECOVERING:
            await self._pipeline.wait_for_insert(_REVOKE_WAIT)
        self._reset()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Starts a recovery of the assigned partitions."""
        self._rebalances += 1
        self._reset()
        self._assigned = {tp.partition for tp in assigned}
        self._lag.own(self._assigned)

    def _is_waiting(self) -> bool:
        """Whether the reason why nothing moves is known."""
        return self._phase is Phase.RECOVERING or self._outage.problem is not None

    # --- consuming ---

    async def _work(self, stop: asyncio.Event, ended: asyncio.Task[bool]) -> None:
        while not stop.is_set():
            await self._step(ended)

    async def _step(self, ended: asyncio.Task[bool]) -> None:
        """Finishes and starts inserts that are due, then recovers, reads, or waits, for at most 0.25 s."""
        try:
            await self._pipeline.finish_insert()
        except ClickHouseUnavailable as unavailable:
            self._outage.report(f"ClickHouse: {unavailable}")
            self._reset()
        if self._phase is Phase.RECOVERING:
            return await self._recover(ended)
        now = time.monotonic()
        self._pipeline.start_due_insert(now)
        if self._lag.due(now) and (truncated := self._lag.find_truncated(self._kafka, self._next_offsets)):
            return self._recover_from_truncation(*truncated)
        if (room := self._pipeline.room) <= 0:
            return await self._pipeline.wait_for_room(ended, _MAX_POLL)
        left = self._pipeline.seconds_left(now)
        return await self._read(_MAX_POLL if left is None else min(max(left, _MIN_POLL), _MAX_POLL), room)

    async def _read(self, seconds: float, max_records: int) -> None:
        rebalances = self._rebalances
        fetched = await self._kafka.getmany(timeout_ms=int(seconds * 1000), max_records=max_records)
        if rebalances != self._rebalances or self._phase is not Phase.CONSUMING:
            return None  # of an earlier assignment: the recovery reads them again
        for tp, records in fetched.items():
            expected, first = self._next_offsets.get(tp.partition), records[0].offset
            if expected is None or first < expected:
                return self._recover_from_truncation(tp.partition, first)
            if first > expected:
                log.error(
                    "facts missing from the history: offsets %d to %d of partition %d were deleted from the topic "
                    "before they were read", expected, first - 1, tp.partition)
            self._next_offsets[tp.partition] = records[-1].offset + 1
            self._pipeline.add(tp.partition, records)
        return None

    # --- recovering ---

    def _reset(self) -> None:
        """Discards both batches and starts a recovery, which reads their records again."""
        self._pipeline.discard()
        self._next_offsets.clear()
        self._phase = Phase.RECOVERING

    def _recover_from_truncation(self, partition: int, offset: int) -> None:
        log.warning(
            "topic truncated: partition %d continues at offset %d, expected %s; the broker lost records",
            partition, offset, self._next_offsets.get(partition))
        self._reset()

    async def _recover(self, ended: asyncio.Task[bool]) -> None:
        """Tries once to find the offsets to resume from, and seeks to them."""
        rebalances, assigned = self._rebalances, sorted(self._assigned)
        if not assigned:
            await asyncio.wait({ended}, timeout=_MAX_POLL)
            return
        try:
            offsets = await self._find_offsets(assigned)
        except (ClickHouseUnavailable, KafkaError, TimeoutError) as error:
            self._outage.report(
                f"ClickHouse: {error}" if isinstance(error, ClickHouseUnavailable) else f"{error!r}")
            await asyncio.wait({ended}, timeout=self._retry.next())
            return
        if rebalances != self._rebalances:
            return
        for partition, offset in offsets.items():
            self._kafka.seek(TopicPartition(FACTS, partition), offset)
        self._next_offsets, self._phase = dict(offsets), Phase.CONSUMING
        self._lag.written(offsets, {})
        self._retry.reset()
        self._outage.recover()
        log.info("reading %d partitions of %s", len(offsets), FACTS)

    async def _find_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Returns the offset to resume from, by partition. Completes what a crashed writer left unfinished first."""
        tps = [TopicPartition(FACTS, partition) for partition in partitions]
        first_offsets, end_offsets = await self._kafka.beginning_offsets(tps), await self._kafka.end_offsets(tps)
        committed = {tp: await self._kafka.committed(tp) for tp in tps}
        for tp in tps:
            self._lag.begin(tp.partition, first_offsets[tp] if committed[tp] is None else committed[tp])
        await self._in_thread(self._repository.wait_for_running_inserts)
        if hours := await self._in_thread(self._repository.repair_hourly_tables, partitions):
            log.warning("repaired %d hours of the hourly tables that a crash had left incomplete", hours)
        await self._in_thread(self._writer.open, partitions)
        resume_offsets = {}
        for tp in tps:
            offsets = Offsets(first_offsets[tp], end_offsets[tp], committed[tp])
            resume_offsets[tp.partition], warning = await resume(offsets, self._reader(tp), self._lookup(tp.partition))
            if warning:
                log.warning("partition %d: %s", tp.partition, warning)
        return resume_offsets

    def _reader(self, tp: TopicPartition) -> Callable[[int, int], Awaitable[list[tuple[int, Fact]]]]:
        async def read(low: int, high: int) -> list[tuple[int, Fact]]:
            return [
                (record.offset, fact) async for run in read_offsets(self._settings, tp, low, high)
                for fact, record in facts_of(run, [])
            ]

        return read

    def _lookup(self, partition: int) -> Callable[[Sequence[Fact]], Awaitable[list[bool]]]:
        async def are_stored(facts: Sequence[Fact]) -> list[bool]:
            stored = with_old_ids(await self._in_thread(self._repository.stored_at, partition, facts))
            return [fact_identity(fact) in stored for fact in facts]

        return are_stored

    # --- stopping ---

    async def _stop(self) -> None:
        if self._phase is Phase.CONSUMING:
            self._phase = Phase.STOPPING
            if not await self._pipeline.flush(_STOP_WAIT):
                log.warning("stopped before ClickHouse had all facts: the next start reads the rest again")
        self._pipeline.discard()
