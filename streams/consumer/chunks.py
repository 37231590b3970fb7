"""Delivers each fetch as one Faust message, and bounds the bytes of queued input.

A Faust event costs 70 to 400 µs whatever its size: conductor, queue, stream, sensors, two tasks per message. Faust has
a setting for the order in which fetched records are delivered (`ConsumerScheduler`). The scheduler of this module
delivers all records that one fetch returned for a partition as one message, whose value is the list of records.
Consuming a record then costs 4 µs instead of 75 µs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import faust
from aiokafka import ConsumerRecord
from faust.types import TP, AppT
from faust.types.transports import SchedulingStrategyT

__all__ = ["ByteSemaphore", "ChunkScheduler", "RawSchema", "RecordChunk", "Records"]

Records = list[ConsumerRecord[bytes, bytes]]

# Bytes of Python objects around a queued record and around each of its headers. They count because a tick is far
# smaller than its objects, and an event in binary mode may consist of headers only.
_OVERHEAD, _HEADER = 300, 150


@dataclass(slots=True)
class _Chunk:
    """A message for Faust with the attributes of a `ConsumerRecord`. `offset` is that of the last record in `value`."""

    topic: str
    partition: int
    offset: int
    value: Records
    key: None = None
    headers: tuple[()] = ()
    timestamp: None = None
    timestamp_type: int = 0
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


class ChunkScheduler(SchedulingStrategyT):  # type: ignore[misc]
    """Faust's `ConsumerScheduler`: yields one message per partition of a fetch."""

    def __init__(self) -> None: ...

    def iterate(self, records: Mapping[TP, Records]) -> Iterator[tuple[TP, _Chunk]]:
        for tp, run in records.items():
            if run:
                yield tp, _Chunk(tp.topic, tp.partition, run[-1].offset, run)


class RawSchema(faust.Schema):  # type: ignore[misc]
    """Passes the records on undecoded. The agent decodes them, because a malformed record must become a dead letter
    and not a decode error of Faust."""

    def loads_key(self, app: AppT, message: Any, **kwargs: Any) -> None:
        return None

    def loads_value(self, app: AppT, message: Any, **kwargs: Any) -> Records:
        return message.value  # type: ignore[no-any-return]


class RecordChunk(NamedTuple):
    """Records of one partition that wait to be processed.

    `end`: the offset after the last record. `size`: bytes in memory. A chunk without records asks for all records
    before `end` that were not delivered.
    """

    tp: TP
    records: Records
    end: int
    size: int

    @classmethod
    def from_records(cls, tp: TP, records: Records) -> RecordChunk:
        return cls(tp, records, records[-1].offset + 1, sum(map(_size, records)))


def _size(record: ConsumerRecord[bytes, bytes]) -> int:
    """Estimates the bytes of memory that a record takes."""
    headers = sum(_HEADER + len(name) + len(raw or b"") for name, raw in record.headers)
    return _OVERHEAD + len(record.key or b"") + len(record.value or b"") + headers


class ByteSemaphore:
    """Semaphore over bytes: bounds the input that is queued in memory (law 7)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._room = asyncio.Event()

    async def acquire(self, size: int) -> None:
        """Waits until `size` bytes are free. A size above the limit is admitted when nothing else is held."""
        while self.used and self.used + size > self.limit:
            self._room.clear()
            await self._room.wait()
        self.used += size

    def release(self, size: int) -> None:
        self.used -= size
        self._room.set()
