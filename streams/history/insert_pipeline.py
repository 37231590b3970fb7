"""Inserts of the consumer, two batches deep: one batch is being inserted while the next is gathered.

An insert is retried until ClickHouse accepts it; facts that ClickHouse refuses become dead letters; then the offsets
are committed. While ClickHouse is behind, the next batch grows up to four times as large, because a row of a large
insert costs less. When the next batch is full too, `room` is 0 and the consumer stops reading.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history import metrics
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.lag import Lag
from streams.history.outage_log import OutageLog
from streams.history.writer import PendingBatch, Writer
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread

__all__ = ["InsertPipeline", "SendDeadLetters"]

log = logging.getLogger("attn.history")

# Seconds. The insert of a batch gives up after this time: its deduplication token may have left ClickHouse's window.
_MAX_RETRY_TIME = 60.0
_BEHIND = 4  # times the rows of a batch are gathered while another one is being inserted

SendDeadLetters = Callable[[Collection[DeadLetter]], Awaitable[None]]


class InsertPipeline:
    """`consumer` commits the offsets. `writer` runs in the thread `in_thread`."""

    def __init__(
        self, settings: Settings, consumer: AIOKafkaConsumer, writer: Writer, in_thread: WorkerThread,
        send_dead_letters: SendDeadLetters, lag: Lag, outage: OutageLog,
    ) -> None:
        self._max_rows = settings.history_batch_rows
        self._max_wait = settings.history_batch_ms / 1000
        self._kafka = consumer
        self._writer = writer
        self._in_thread = in_thread
        self._send_dead_letters = send_dead_letters
        self._lag = lag
        self._outage = outage
        self._next_batch = PendingBatch()
        self._insert: asyncio.Task[None] | None = None  # of the current batch

    @property
    def is_empty(self) -> bool:
        """Whether nothing is gathered and nothing is being inserted."""
        return self._insert is None and not self._next_batch.count

    @property
    def room(self) -> int:
        """How many more records the next batch takes."""
        limit = self._max_rows if self._insert is None else self._max_rows * _BEHIND
        return limit - self._next_batch.count

    def add(self, partition: int, records: Sequence[Any]) -> None:
        """Adds the next records of a partition, at least one, to the next batch."""
        self._next_batch.add(partition, records)

    def seconds_left(self, now: float) -> float | None:
        """Returns the time until the next batch has waited long enough, in seconds. None if it has no records."""
        batch = self._next_batch
        return batch.since + self._max_wait - now if batch.count else None

    def start_due_insert(self, now: float) -> None:
        """Starts the insert of the next batch if it is full or has waited long enough, and no other insert runs."""
        left = self.seconds_left(now)
        if self._insert is None and left is not None and (left <= 0 or self._next_batch.count >= self._max_rows):
            self.start_insert()

    def start_insert(self) -> None:
        """Makes the next batch the current one and starts its insert. No other insert may run."""
        assert self._insert is None
        batch, self._next_batch = self._next_batch, PendingBatch()
        self._insert = asyncio.create_task(self._insert_and_commit(batch))

    async def finish_insert(self) -> None:
        """Takes the result of the insert if it has ended. Raises ClickHouseUnavailable if its outcome is unknown."""
        if self._insert is not None and self._insert.done():
            task, self._insert = self._insert, None
            await task

    async def wait_for_insert(self, seconds: float) -> bool:
        """Waits up to `seconds` for the running insert. Returns whether no insert runs or it has succeeded."""
        task = self._insert
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
        return bool(done) and not task.cancelled() and task.exception() is None

    async def wait_for_room(self, ended: asyncio.Task[bool], seconds: float) -> None:
        """Waits until the running insert or `ended` is done, at most `seconds`."""
        tasks: set[asyncio.Task[Any]] = {task for task in (self._insert, ended) if task is not None}
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def flush(self, seconds: float) -> bool:
        """Inserts both batches within `seconds`. Returns whether it has succeeded."""
        deadline = time.monotonic() + seconds
        while not self.is_empty:
            if self._insert is None:
                self.start_insert()
            running = self._insert
            if not await self.wait_for_insert(deadline - time.monotonic()):
                return False
            if self._insert is running:
                self._insert = None
        return True

    def discard(self) -> None:
        """Drops both batches. Their offsets are not committed, so their records are read again."""
        if self._insert is not None:
            # Takes the exception of the task, which asyncio would log otherwise.
            self._insert.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._insert.cancel()
        self._insert = None
        self._next_batch = PendingBatch()

    async def _insert_and_commit(self, batch: PendingBatch) -> None:
        """Returns once the batch is in ClickHouse and committed. Raises ClickHouseUnavailable if the outcome of the
        insert is unknown after 60 s of retries."""
        plan = await self._in_thread(self._writer.plan, batch)
        started, backoff = time.monotonic(), Backoff()
        while True:
            try:
                await self._in_thread(self._writer.write, plan)
                break
            except ClickHouseUnavailable as unavailable:
                self._outage.report(f"ClickHouse: {unavailable}")
                if time.monotonic() - started > _MAX_RETRY_TIME:
                    raise
                await asyncio.sleep(backoff.next())
        self._outage.recover()
        if plan.letters:
            log.error("%d facts could not be inserted and went to dead-letters; the first: %s",
                      len(plan.letters), plan.letters[0].reason)
            await self._retry_dead_letters(plan.letters)
        self._lag.written(batch.next, batch.times)
        await self._commit(batch.next)

    async def _retry_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Sends the dead letters and retries until Kafka acknowledges them."""
        backoff = Backoff()
        while True:
            try:
                await self._send_dead_letters(letters)
                break
            except (KafkaError, TimeoutError) as error:
                self._outage.report(f"dead-letters: {error!r}")
                await asyncio.sleep(backoff.next())
        metrics.DEAD.inc(len(letters))

    async def _commit(self, offsets: dict[int, int]) -> None:
        try:
            await self._kafka.commit({TopicPartition(FACTS, part): offset for part, offset in offsets.items()})
        except KafkaError as error:  # the next commit covers it; after a restart the deduplicator drops the repeats
            log.info("offsets not committed: %r", error)
