"""Reads all topics to their ends, and follows attn.views while it is written, before compaction removes records."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.settings import Settings
from schemas.topics import TOPICS, VIEWS
from schemas.views import PositionRow, apply_changes, decode_row, fence_key, position_key
from streams.kafka import topics

__all__ = ["Records", "Watch", "committed", "ends", "read"]

Records = dict[int, list[ConsumerRecord]]
_FETCH = 32 << 20  # bytes; no record is larger


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH, fetch_max_wait_ms=200,
    )


def _places(settings: Settings, name: str) -> list[TopicPartition]:
    topic = next(topic for topic in TOPICS if topic.name == name)
    return [TopicPartition(name, number) for number in range(topics.partitions(topic, settings))]


async def read(settings: Settings, topic: str) -> Records:
    """Returns all records of a topic, by partition."""
    async with _consumer(settings) as consumer:
        places = _places(settings, topic)
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: Records = {place.partition: [] for place in places}
        for place in places:
            while await consumer.position(place) < ends[place]:
                for records in (await consumer.getmany(place, timeout_ms=1000)).values():
                    found[place.partition] += records
        return found


async def ends(settings: Settings, names: list[str]) -> dict[TopicPartition, int]:
    """Returns the end offset of each partition of these topics."""
    async with _consumer(settings) as consumer:
        return dict(await consumer.end_offsets([place for name in names for place in _places(settings, name)]))


async def committed(settings: Settings, group: str) -> dict[TopicPartition, int]:
    """Returns the committed offsets of a consumer group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka, request_timeout_ms=10_000)
    try:
        await admin.start()
        return {place: found.offset for place, found in (await admin.list_consumer_group_offsets(group)).items()}
    finally:
        await admin.close()


@dataclass
class _Partition:
    next: int = 0
    position: PositionRow | None = None
    rows: dict[bytes, bytes] = field(default_factory=dict)
    waiting: list[tuple[bytes, bytes | None]] = field(default_factory=list)


class Watch:
    """Reads attn.views from its beginning and while it is written, as every reader does.

    `rows` by partition; `stale`: batches whose position is not ahead, which only a worker that lost the partition would
    write; `claims`: number of fences; `torn`: batches whose writer was killed before their position; `repairs`: by
    partition, the positions (next, part) at which valid rows were written again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parts = {number: _Partition() for number in range(settings.log_partitions)}
        self.stale: list[str] = []
        self.claims = self.torn = self.batches = 0
        self.repairs: dict[int, list[tuple[int, int]]] = {number: [] for number in self._parts}

    async def run(self) -> None:
        """Follows until it is cancelled, also over outages."""
        while True:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with _consumer(self._settings) as consumer:
                    await self._follow(consumer)
            await asyncio.sleep(0.5)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        places = [TopicPartition(VIEWS, number) for number in self._parts]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, self._parts[place.partition].next)
        while True:
            for place, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    self._apply(place.partition, record)

    def rows(self, partition: int) -> dict[bytes, bytes]:
        return self._parts[partition].rows

    def position(self, partition: int) -> PositionRow | None:
        return self._parts[partition].position

    def next(self, partition: int) -> int:
        """Returns the next offset to read."""
        return self._parts[partition].next

    def _apply(self, number: int, record: ConsumerRecord) -> None:
        part = self._parts[number]
        if record.offset < part.next:
            return
        part.next = record.offset + 1
        if record.key == fence_key(number):
            self.claims += 1
            self.torn += bool(part.waiting)
            return
        part.waiting.append((record.key, record.value))
        if record.key == position_key(number):
            self._end(number, part, record)

    def _end(self, number: int, part: _Partition, record: ConsumerRecord) -> None:
        row = decode_row(record.key, record.value)
        assert isinstance(row, PositionRow)
        waiting, part.waiting = part.waiting, []
        self.batches += 1
        if part.position is not None and row.position <= part.position.position:
            self.stale.append(f"{VIEWS}/{number} offset {record.offset}: position {row.position} after "
                              f"{part.position.position}, {len(waiting)} rows")
            return
        if part.position is not None and (row.next, row.part) == (part.position.next, part.position.part):
            self.repairs[number].append((row.next, row.part))
        part.position = row
        apply_changes(part.rows, waiting)
