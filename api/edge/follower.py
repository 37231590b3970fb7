"""Follows `attn.views` and `attn.facts` into an edge: everything so far, then every poll as it comes.

There is no consumer group: every edge reads all of its partitions. Without a broker it goes on with what it has, and
waits. A topic that ends before what was read of it is a broker that lost its tail: the replica can't be trusted then,
so the edge stops and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from api import metrics
from api.edge.bootstrap import MAX_POLL_RECORDS, POLL_MS, Bootstrap, iter_records, parse_fact
from api.edge.index_builder import TIME_SLICE
from api.edge.initial_state import BatchAssembler
from api.edge.services import Edge
from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from streams.kafka.connection import client_arguments, close_client

__all__ = ["ConsumerStalled", "LogTruncated", "TopicFollower"]

_FETCH_BYTES = 4 << 20
_CLOSE_SECONDS = 1.0
_CHECK_INTERVAL = 2.0  # seconds between two looks at the ends of the topics
# Seconds without a record though the broker answers and has more: the consumer is stuck, a new process is not.
_STALL_SECONDS = 60.0

_log = structlog.get_logger("attn.edge")


class LogTruncated(Exception):
    """A topic ends before what was read of it."""


class ConsumerStalled(Exception):
    """The consumer delivers nothing though there is more."""


class TopicFollower:
    def __init__(self, edge: Edge, settings: Settings) -> None:
        self._edge, self._settings = edge, settings
        self._views = [TopicPartition(VIEWS, number) for number in sorted(edge.replica.served)]
        self._facts = [TopicPartition(FACTS, number) for number in sorted(edge.replica.served)]
        self._assemblers = {place.partition: BatchAssembler(place.partition) for place in self._views}
        self._timestamps: dict[TopicPartition, float] = {}  # the broker's time of the last record read, seconds
        self._ends: dict[TopicPartition, int] = {}
        self._last_moved: dict[TopicPartition, tuple[int, float]] = {}  # where it was, and since when

    async def run(self) -> None:
        """Until cancelled. Sets `edge.ready`. Raises when the replica can't be trusted or Kafka can't be read."""
        consumers: list[AIOKafkaConsumer] = []
        tasks: list[asyncio.Task[None]] = []
        try:
            consumers.append(views := await self._start_consumer("views"))
            consumers.append(facts := await self._start_consumer("facts"))
            # The watch is there from the beginning: a broker may also fail while the view is read.
            tasks = [asyncio.create_task(one) for one in (self._watch(views, facts), self._read(views, facts))]
            await asyncio.gather(*tasks)
        finally:
            self._edge.ready = False
            metrics.READY.set(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # A broker that is silent does not say goodbye either: TLS would wait 30 s for that, bytes unsent longer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await asyncio.gather(*map(close_client, consumers), return_exceptions=True)

    async def _start_consumer(self, name: str) -> AIOKafkaConsumer:
        """A consumer, once there is a broker."""
        while True:
            consumer = AIOKafkaConsumer(
                **client_arguments(self._settings), client_id=f"attn-edge-{name}-{self._settings.instance}",
                enable_auto_commit=False, auto_offset_reset="none", max_partition_fetch_bytes=_FETCH_BYTES,
                fetch_max_wait_ms=POLL_MS,
            )
            try:
                await consumer.start()
                return consumer
            except KafkaError as error:
                self._edge.broker_health.record_failure(error)
                await close_client(consumer)
                await asyncio.sleep(1)
            except BaseException:
                await close_client(consumer)
                raise

    async def _read(self, views: AIOKafkaConsumer, facts: AIOKafkaConsumer) -> None:
        opening = Bootstrap(self._edge, self._settings, self._assemblers)
        await opening.load_views(views, self._views)
        await opening.load_facts(facts, self._facts)
        self._edge.publish()
        self._measure()
        gc.collect()
        gc.freeze()  # what was loaded stays: looking through it again and again would be a pause for everybody
        self._edge.ready = True
        metrics.READY.set(1)
        await asyncio.gather(self._follow(views), self._follow_facts(facts))

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            begun = turn = time.perf_counter()
            for record in iter_records(found):
                batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
                if batch is None:
                    continue
                self._edge.apply_batch(batch.partition, batch.rows, batch.position)
                if time.perf_counter() - turn > TIME_SLICE:
                    self._edge.publish()
                    await asyncio.sleep(0)
                    turn = time.perf_counter()
            self._edge.publish()
            self._record_timestamps(found)
            if found:
                self._edge.broker_health.record_success()
                metrics.PUBLISH_SECONDS.observe(time.perf_counter() - begun)

    async def _follow_facts(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            for record in iter_records(found):
                fact = parse_fact(record)
                if fact is not None:
                    self._edge.add_fact(record.partition, fact)
            self._edge.release_pending()
            self._record_timestamps(found)

    def _record_timestamps(self, found: dict[TopicPartition, list[Any]]) -> None:
        self._timestamps.update((place, records[-1].timestamp / 1000) for place, records in found.items())

    # --- how it is ---

    async def _watch(self, views: AIOKafkaConsumer, facts: AIOKafkaConsumer) -> None:
        """How far behind the edge is, and whether the view's topic still is the one that was read."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            # What was read before it is asked: the answer may wait for one partition's new leader while others go on.
            read = {place: await views.position(place) for place in views.assignment()}
            told = {place: await facts.position(place) for place in facts.assignment()}
            ends = await self._edge.broker_health.retry_until_answered(lambda: views.end_offsets(self._views))
            ends_told = (
                await self._edge.broker_health.retry_until_answered(lambda: facts.end_offsets(self._facts))
                if told else {})
            self._edge.lag.observe(
                time.monotonic(), self._edge.clock(), read | told, ends | ends_told, self._timestamps)
            for place, end in ends.items():
                if end < self._ends.get(place, 0):
                    raise LogTruncated(f"{place.topic}-{place.partition} ends at {end}, and had {self._ends[place]}")
            for place, at in read.items():
                self._check_stall(place, at, ends[place])
            self._ends = ends
            self._measure()

    def _check_stall(self, place: TopicPartition, at: int, end: int) -> None:
        now = time.monotonic()
        if at > end:
            raise LogTruncated(f"{place.topic}-{place.partition} ends at {end}, but {at} was read of it")
        before, since = self._last_moved.get(place, (-1, now))
        if at == end or at != before or not self._edge.ready:  # what is read at start comes in large pieces, by turns
            since = now
        elif now - since > _STALL_SECONDS:
            raise ConsumerStalled(
                f"{place.topic}-{place.partition}: nothing came for {_STALL_SECONDS:.0f} s, though {at} is not the end")
        self._last_moved[place] = (at, since)

    def _measure(self) -> None:
        replica = self._edge.replica
        for partition in replica.served:
            metrics.POSITION.labels(str(partition)).set(replica.position_of(partition))
        metrics.ROWS.set(replica.row_count())
        metrics.INDEXED.set(replica.indexed_count())
        metrics.RESUME_BYTES.set(replica.retained_bytes)
