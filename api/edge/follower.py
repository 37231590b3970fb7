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
from api.edge.bootstrap import POLL_MS, RECORDS, Opening, each, fact_of
from api.edge.index_builder import TURN
from api.edge.initial_state import Assembler
from api.edge.services import Edge
from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from streams.kafka.connection import client_arguments, close_client

__all__ = ["FellBack", "Stuck", "Tailer"]

_FETCH_BYTES = 4 << 20
_CLOSE_SECONDS = 1.0
_CHECK = 2.0  # seconds between two looks at the ends of the topics
# Seconds without a record though the broker answers and has more: the consumer is stuck, a new process is not.
_STUCK = 60.0

_log = structlog.get_logger("attn.edge")


class FellBack(Exception):
    """A topic ends before what was read of it."""


class Stuck(Exception):
    """The consumer delivers nothing though there is more."""


class Tailer:
    def __init__(self, edge: Edge, settings: Settings) -> None:
        self._edge, self._settings = edge, settings
        self._views = [TopicPartition(VIEWS, number) for number in sorted(edge.replica.served)]
        self._facts = [TopicPartition(FACTS, number) for number in sorted(edge.replica.served)]
        self._assemblers = {place.partition: Assembler(place.partition) for place in self._views}
        self._worked: dict[TopicPartition, float] = {}  # the broker's time of the last record read, seconds
        self._ends: dict[TopicPartition, int] = {}
        self._moved: dict[TopicPartition, tuple[int, float]] = {}  # where it was, and since when

    async def run(self) -> None:
        """Until cancelled. Sets `edge.ready`. Raises when the replica can't be trusted or Kafka can't be read."""
        consumers: list[AIOKafkaConsumer] = []
        tasks: list[asyncio.Task[None]] = []
        try:
            consumers.append(views := await self._started("views"))
            consumers.append(facts := await self._started("facts"))
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

    async def _started(self, name: str) -> AIOKafkaConsumer:
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
                self._edge.contact.unheard(error)
                await close_client(consumer)
                await asyncio.sleep(1)
            except BaseException:
                await close_client(consumer)
                raise

    async def _read(self, views: AIOKafkaConsumer, facts: AIOKafkaConsumer) -> None:
        opening = Opening(self._edge, self._settings, self._assemblers)
        await opening.views(views, self._views)
        await opening.facts(facts, self._facts)
        self._edge.flush()
        self._measure()
        gc.collect()
        gc.freeze()  # what was loaded stays: looking through it again and again would be a pause for everybody
        self._edge.ready = True
        metrics.READY.set(1)
        await asyncio.gather(self._follow(views), self._follow_facts(facts))

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS)
            begun = turn = time.perf_counter()
            for record in each(found):
                batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
                if batch is None:
                    continue
                self._edge.take(batch.partition, batch.rows, batch.position)
                if time.perf_counter() - turn > TURN:
                    self._edge.flush()
                    await asyncio.sleep(0)
                    turn = time.perf_counter()
            self._edge.flush()
            self._note(found)
            if found:
                self._edge.contact.heard()
                metrics.PUBLISH_SECONDS.observe(time.perf_counter() - begun)

    async def _follow_facts(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS)
            for record in each(found):
                fact = fact_of(record)
                if fact is not None:
                    self._edge.tell(record.partition, fact)
            self._edge.told()
            self._note(found)

    def _note(self, found: dict[TopicPartition, list[Any]]) -> None:
        self._worked.update((place, records[-1].timestamp / 1000) for place, records in found.items())

    # --- how it is ---

    async def _watch(self, views: AIOKafkaConsumer, facts: AIOKafkaConsumer) -> None:
        """How far behind the edge is, and whether the view's topic still is the one that was read."""
        while True:
            await asyncio.sleep(_CHECK)
            # What was read before it is asked: the answer may wait for one partition's new leader while others go on.
            read = {place: await views.position(place) for place in views.assignment()}
            told = {place: await facts.position(place) for place in facts.assignment()}
            ends = await self._edge.contact.asked(lambda: views.end_offsets(self._views))
            ends_told = await self._edge.contact.asked(lambda: facts.end_offsets(self._facts)) if told else {}
            self._edge.progress.observe(
                time.monotonic(), self._edge.clock(), read | told, ends | ends_told, self._worked)
            for place, end in ends.items():
                if end < self._ends.get(place, 0):
                    raise FellBack(f"{place.topic}-{place.partition} ends at {end}, and had {self._ends[place]}")
            for place, at in read.items():
                self._look(place, at, ends[place])
            self._ends = ends
            self._measure()

    def _look(self, place: TopicPartition, at: int, end: int) -> None:
        now = time.monotonic()
        if at > end:
            raise FellBack(f"{place.topic}-{place.partition} ends at {end}, but {at} was read of it")
        before, since = self._moved.get(place, (-1, now))
        if at == end or at != before or not self._edge.ready:  # what is read at start comes in large pieces, by turns
            since = now
        elif now - since > _STUCK:
            raise Stuck(f"{place.topic}-{place.partition}: nothing came for {_STUCK:.0f} s, though {at} is not the end")
        self._moved[place] = (at, since)

    def _measure(self) -> None:
        replica = self._edge.replica
        for partition in replica.served:
            metrics.POSITION.labels(str(partition)).set(replica.position_of(partition))
        metrics.ROWS.set(replica.rows())
        metrics.INDEXED.set(replica.indexed())
        metrics.RESUME_BYTES.set(replica.held)
