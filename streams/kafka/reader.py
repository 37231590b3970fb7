"""Reads a range of offsets without a consumer group; first and end offsets of a partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas.settings import Settings
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.producer import REQUEST_SECONDS

__all__ = ["partition_bounds", "read_offsets"]

_READ_SECONDS = 30.0  # without progress


async def partition_bounds(
    settings: Settings, tps: Iterable[tuple[str, int]]
) -> dict[TopicPartition, tuple[int, int]]:
    """Returns for each partition the first offset that it still holds and the offset after its last record.

    Uses a client of its own: on the connection of a consumer each request waits behind a fetch, 1.5 s on Faust's.
    Raises TimeoutError or a KafkaError if the broker does not answer within 30 s.
    """
    partitions = [TopicPartition(*tp) for tp in tps]
    client = AIOKafkaConsumer(
        **client_arguments(settings), client_id=f"attn-bounds-{settings.instance}", enable_auto_commit=False,
        request_timeout_ms=REQUEST_SECONDS * 1000,
    )
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await client.start()
            await _request_metadata(client, {topic for topic, _ in partitions})
            begins, ends = await asyncio.gather(client.beginning_offsets(partitions), client.end_offsets(partitions))
    finally:
        await close_client(client)
    return {tp: (begins[tp], ends[tp]) for tp in partitions}


async def read_offsets(
    settings: Settings, tp: tuple[str, int], start: int, end: int
) -> AsyncGenerator[list[ConsumerRecord[bytes, bytes]], None]:
    """Yields the committed records of a partition with start <= offset < end, in runs, without a consumer group.

    Skips offsets that the log no longer has, transaction markers and records of aborted transactions. `end` must not
    exceed the last stable offset; otherwise the call waits for the open transaction. Raises TimeoutError after 30 s
    without progress.
    """
    partition = TopicPartition(*tp)
    reader = AIOKafkaConsumer(
        **client_arguments(settings), client_id=f"attn-reader-{settings.instance}", enable_auto_commit=False,
        auto_offset_reset="none", max_partition_fetch_bytes=4 << 20, fetch_max_wait_ms=100,
        isolation_level="read_committed",
        request_timeout_ms=REQUEST_SECONDS * 1000,
    )
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await reader.start()
            await _request_metadata(reader, {partition.topic})
            position = max(start, (await reader.beginning_offsets([partition]))[partition])
        reader.assign([partition])
        reader.seek(partition, position)
        while position < end:
            async with asyncio.timeout(_READ_SECONDS):
                run: list[ConsumerRecord[bytes, bytes]] = []
                while not run and position < end:
                    run = (await reader.getmany(partition, timeout_ms=500, max_records=2000)).get(partition, [])
                    position = await reader.position(partition)
            inside = run if not run or run[-1].offset < end else [record for record in run if record.offset < end]
            if inside:
                yield inside
    finally:
        await close_client(reader)


async def _request_metadata(client: AIOKafkaConsumer, topics: set[str]) -> None:
    """Requests the leaders of all partitions at once. aiokafka otherwise notices one unknown topic after the other, and
    waits 0.1 s after each of them."""
    await client._client.set_topics(topics)
