"""What waits between Kafka and the fold is bounded, whatever the records are made of (law 7)."""

from __future__ import annotations

from aiokafka import ConsumerRecord
from faust.types import TP

from schemas.log import Pack, encode_pack
from streams.chunks import Budget, Portion

PLACE = TP("waitpoints", 0)
HEADERS = [(f"ce_{name}", b"x" * 20) for name in ("specversion", "id", "source", "type", "subject", "time")]


def record(offset: int, value: bytes | None, headers: list[tuple[str, bytes]]) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(PLACE.topic, PLACE.partition, offset, 0, 0, None, value, None, 0, 0, headers)  # type: ignore[arg-type]


async def _waiting(value: bytes | None, headers: list[tuple[str, bytes]]) -> int:
    """How many records may wait before the next ones have to; not more than ten thousand are tried."""
    budget, count = Budget(1 << 20), 0
    size = Portion.of(PLACE, [record(number, value, headers) for number in range(100)]).size
    while budget.used + size <= budget.limit and count < 10_000:
        await budget.take(size)
        count += 100
    return count


async def test_events_that_are_all_headers_take_room() -> None:
    assert await _waiting(None, HEADERS) < 5000, "in a megabyte"


async def test_records_of_a_few_bytes_take_what_python_needs_for_them() -> None:
    assert await _waiting(encode_pack(Pack(10**15)), []) < 5000, "in a megabyte"
