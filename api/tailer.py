"""Follows `attn.views` and `attn.facts` into an edge: everything so far, then every poll as it comes.

There is no consumer group: every edge reads all of its partitions. A topic that ends before what was read of it is a
broker that lost its tail: the replica can't be trusted then, so the edge stops and is started again.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from api import metrics
from api.edge import Edge
from api.loading import Assembler, Loading
from schemas.facts import Fact, decode_fact
from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from schemas.views import CURSOR_BITS
from streams.pacing import PacedConsumer

__all__ = ["FellBack", "Tailer"]

_POLL_MS = 500
_RECORDS = 2000  # a poll: bounds how long the loop is busy with it
_FETCH_BYTES = 4 << 20
_TURN = 0.02  # seconds of publishing after which the loop gets a turn
_CHECK = 5.0  # seconds between two looks at the ends of the topics
_PATIENCE = 30.0  # seconds without an answer from the broker, at start
# Clocks of broker and edge may differ: compaction is taken to be so much further, milliseconds.
_MARGIN_MS = 60_000
_HOUR_MS = 3_600_000

_log = structlog.get_logger("attn.edge")


class FellBack(Exception):
    """A topic ends before what was read of it."""


class Tailer:
    def __init__(self, edge: Edge, settings: Settings) -> None:
        self._edge, self._settings = edge, settings
        self._views = [TopicPartition(VIEWS, number) for number in sorted(edge.replica.served)]
        self._facts = [TopicPartition(FACTS, number) for number in sorted(edge.replica.served)]
        self._assemblers = {place.partition: Assembler(place.partition) for place in self._views}

    async def run(self) -> None:
        """Until cancelled. Sets `edge.ready`. Raises when the replica can't be trusted or Kafka can't be read."""
        views, facts = self._consumer("views"), self._consumer("facts")
        tasks: list[asyncio.Task[None]] = []
        try:
            await views.start()
            await facts.start()
            await self._load(views)
            await self._load_facts(facts)
            self._edge.flush()
            gc.collect()
            gc.freeze()  # what was loaded stays: looking through it again and again would be a pause for everybody
            self._edge.ready = True
            metrics.READY.set(1)
            following = (self._follow(views), self._follow_facts(facts), self._watch(views, self._views))
            tasks = [asyncio.create_task(one) for one in following]
            await asyncio.gather(*tasks)
        finally:
            self._edge.ready = False
            metrics.READY.set(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(views.stop(), facts.stop(), return_exceptions=True)

    def _consumer(self, name: str) -> AIOKafkaConsumer:
        return PacedConsumer(
            rest=self._settings.poll_rest, bootstrap_servers=self._settings.kafka,
            client_id=f"attn-edge-{name}-{self._settings.instance}",
            enable_auto_commit=False, auto_offset_reset="none", max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_POLL_MS,
        )

    # --- at start ---

    def _horizon(self) -> int:
        """Milliseconds: what is younger was not compacted (streams.topics: min.compaction.lag.ms)."""
        return int(time.time() * 1000 - self._settings.resume_hours * _HOUR_MS) + _MARGIN_MS

    async def _load(self, consumer: AIOKafkaConsumer) -> None:
        begun = time.monotonic()
        loading = Loading(self._settings.resume_bytes, self._horizon())
        number = 0
        async for record in _so_far(consumer, self._views, await consumer.beginning_offsets(self._views)):
            batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
            number += 1
            if batch is not None:
                loading.add(batch)
        state, batches = loading.finish(self._horizon())
        for partition, (rows, position) in state.items():
            self._edge.replica.load(partition, rows, position)
            await asyncio.sleep(0)
        for batch in batches:
            self._edge.take(batch.partition, batch.rows, batch.position)
        self._measure()
        _log.info("view loaded", records=number, rows=self._edge.replica.rows(),
                  seconds=round(time.monotonic() - begun, 2))

    async def _load_facts(self, consumer: AIOKafkaConsumer) -> None:
        """The facts of as long as feeds can be resumed, for the event streams."""
        begins = await consumer.beginning_offsets(self._facts)
        ends = await consumer.end_offsets(self._facts)
        since = self._horizon()
        found = await consumer.offsets_for_times(dict.fromkeys(self._facts, since))
        starts = {
            place: max(begins[place], at.offset) if (at := found.get(place)) is not None else ends[place]
            for place in self._facts
        }
        for place, start in starts.items():
            if start > 0:
                # What was told before is not known; it is known from the first fact read on, or from now on.
                position = self._edge.replica.position_of(place.partition)
                self._edge.events.begin(place.partition, (position << CURSOR_BITS) - 1)
        seen: set[int] = set()
        async for record in _so_far(consumer, self._facts, starts):
            fact = _fact(record)
            if fact is None:
                continue
            if record.partition not in seen and starts[TopicPartition(FACTS, record.partition)] > 0:
                self._edge.events.begin(record.partition, (fact.pos << CURSOR_BITS) - 1)
            seen.add(record.partition)
            self._edge.events.add(record.partition, fact)

    # --- live ---

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS)
            begun = turn = time.perf_counter()
            for record in _all(found):
                batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
                if batch is None:
                    continue
                self._edge.take(batch.partition, batch.rows, batch.position)
                if time.perf_counter() - turn > _TURN:
                    self._edge.flush()
                    await asyncio.sleep(0)
                    turn = time.perf_counter()
            self._edge.flush()
            if found:
                metrics.PUBLISH_SECONDS.observe(time.perf_counter() - begun)

    async def _follow_facts(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for record in _all(await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS)):
                fact = _fact(record)
                if fact is not None:
                    self._edge.events.add(record.partition, fact)
            self._edge.events.release()

    async def _watch(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        """How far behind the view is, and whether the topic still is the one that was read."""
        while True:
            await asyncio.sleep(_CHECK)
            try:
                ends = await consumer.end_offsets(places)
            except KafkaError as error:
                _log.warning("the broker does not say where the view ends", error=repr(error))
                continue
            for place in places:
                at = await consumer.position(place)
                if at > ends[place]:
                    raise FellBack(f"{place.topic}-{place.partition} ends at {ends[place]}, but {at} was read of it")
                metrics.LAG.labels(place.topic, str(place.partition)).set(ends[place] - at)
            self._measure()

    def _measure(self) -> None:
        replica = self._edge.replica
        for partition in replica.served:
            metrics.POSITION.labels(str(partition)).set(replica.position_of(partition))
        metrics.ROWS.set(replica.rows())
        metrics.RESUME_BYTES.set(replica.held)


def _all(found: dict[TopicPartition, list[Any]]) -> Iterable[ConsumerRecord[bytes, bytes]]:
    return (record for records in found.values() for record in records)


async def _so_far(
    consumer: AIOKafkaConsumer, places: list[TopicPartition], starts: dict[TopicPartition, int]
) -> Any:
    """Records from `starts` to what are the ends now. TimeoutError: the broker stopped answering."""
    ends = await consumer.end_offsets(places)
    consumer.assign(places)
    for place in places:
        consumer.seek(place, starts[place])
    behind = {place for place in places if starts[place] < ends[place]}
    while behind:
        async with asyncio.timeout(_PATIENCE):
            found: dict[TopicPartition, Any] = {}
            while not found and behind:
                found = await consumer.getmany(*behind, timeout_ms=_POLL_MS, max_records=_RECORDS)
                behind = {place for place in behind if await consumer.position(place) < ends[place]}
        for record in _all(found):
            yield record
        await asyncio.sleep(0)


def _fact(record: ConsumerRecord[bytes, bytes]) -> Fact | None:
    fact = decode_fact(record.value) if record.value is not None else None
    return fact if isinstance(fact, Fact) else None
