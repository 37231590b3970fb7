"""Queues around the fold are bounded in bytes, and state of revoked partitions is dropped (law 7)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from aiokafka import ConsumerRecord
from faust.types import TP

from schemas.log import Pack, encode_pack
from streams.consumer.chunks import ByteSemaphore, RecordChunk
from streams.fold.ticks import TickProducer

PLACE = TP("waitpoints", 0)
HEADERS = [(f"ce_{name}", b"x" * 20) for name in ("specversion", "id", "source", "type", "subject", "time")]


def record(offset: int, value: bytes | None, headers: list[tuple[str, bytes]]) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(PLACE.topic, PLACE.partition, offset, 0, 0, None, value, None, 0, 0, headers)


async def _waiting(value: bytes | None, headers: list[tuple[str, bytes]]) -> int:
    """Returns the number of records that fit into the queue of 1 MiB, at most 10,000."""
    queue_bytes, count = ByteSemaphore(1 << 20), 0
    size = RecordChunk.from_records(PLACE, [record(number, value, headers) for number in range(100)]).size
    while queue_bytes.used + size <= queue_bytes.limit and count < 10_000:
        await queue_bytes.acquire(size)
        count += 100
    return count


async def test_headers_count_towards_the_memory_limit() -> None:
    assert await _waiting(None, HEADERS) < 5000, "records that fit into 1 MiB"


async def test_small_records_count_with_their_size_in_memory() -> None:
    assert await _waiting(encode_pack(Pack(10**15)), []) < 5000, "records that fit into 1 MiB"


class _Log:
    """A log that accepts every entry."""

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_result(SimpleNamespace(offset=7))
        return answer


async def test_the_tick_producer_forgets_revoked_shards() -> None:
    ticks = TickProducer(_Log(), lambda: 10)
    shard = Mock(fold=Mock(next_timer=lambda: 5), next_offset=3, tp=TP("attn.log", 0))
    await ticks.produce_due_ticks([shard])
    assert list(ticks._last_tick) == [shard]
    await ticks.produce_due_ticks([])
    assert not ticks._last_tick, "the tick producer keeps no state of a revoked partition"
