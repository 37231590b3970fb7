"""Kafka beside Faust: writes that are awaited, record batches of our own making, plain reads of a range of offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from prometheus_client import Counter

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, FACTS, LOG, MAX_MESSAGE_BYTES, SOURCE_TYPES
from streams.kafka.connection import connection, disconnect
from streams.kafka.topics import MAX_DEAD_LETTER_BYTES, dead_letter_bytes

__all__ = [
    "BATCH_BYTES", "BURIED", "RecordTooLarge", "acknowledged", "bounds", "bury", "producer", "read_range",
    "record_size", "refuse_large", "write_rows",
]

# Every role that reads Kafka has it. `cause` is one of schemas.dead_letters.CAUSES.
BURIED = Counter("attn_dead_letters_total", "Records sent to dead-letters, by where they were", ["topic", "cause"])
# What should never be is told as 0 from the start: Prometheus does not see an increase to a counter's first value.
for _place in (
    *((topic, cause) for topic in SOURCE_TYPES for cause in ("fault", "unreadable")),
    (LOG, "pack"), (LOG, "row"), (FACTS, "fact"), (FACTS, "insert"),
):
    BURIED.labels(*_place)

# What Kafka limits is the record batch, with its headers.
BATCH_BYTES = MAX_MESSAGE_BYTES - (64 << 10)
_RECORD_OVERHEAD = 64
REQUEST_SECONDS = 10  # a third of what a write or a read may take: a broker that is silent is not the last one asked
# A write that is not acknowledged by then has an unknown end, so the worker stops and looks at what is durable. With
# Kafka's defaults a broker that dies, and led the quorum too, is replaced after some 12 s: that is waited for, as
# starting again takes as long, and then there is everything to claim and to load.
WRITE_SECONDS = 30.0
_READ_SECONDS = 30.0  # without any progress


class RecordTooLarge(Exception):
    """A record that no batch of the topic can hold. Nothing was written."""


def producer(settings: Settings, name: str) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas; to be started and stopped by the caller."""
    return AIOKafkaProducer(
        **connection(settings), client_id=f"attn-{name}-{settings.instance}", acks="all",
        enable_idempotence=True, linger_ms=0, max_batch_size=BATCH_BYTES,
        max_request_size=MAX_DEAD_LETTER_BYTES, request_timeout_ms=REQUEST_SECONDS * 1000,
    )


async def acknowledged(writes: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The brokers' answers. Raises what the first failed write raised, TimeoutError after WRITE_SECONDS."""
    async with _patience():
        return await asyncio.gather(*writes)


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            yield
    except TimeoutError:
        raise TimeoutError(f"Kafka has not acknowledged a write for {WRITE_SECONDS:.0f} s") from None


def refuse_large(topic: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Raises RecordTooLarge where one record is more than a batch can hold."""
    for key, value in rows:
        if len(key) + len(value or b"") + _RECORD_OVERHEAD > BATCH_BYTES:
            raise RecordTooLarge(f"{topic}: record {key[:80]!r} has {len(value or b'')} bytes")


async def write_rows(
    out: AIOKafkaProducer, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None]]
) -> int:
    """Write records (at least one) as one batch, in order; as several only where one can't hold them. The offset of
    the last one. None may be larger than a batch."""
    batches = []
    batch = None
    for key, value in rows:
        if batch is None or batch.append(key=key, value=value, timestamp=None) is None:
            batch = out.create_batch()
            batch.append(key=key, value=value, timestamp=None)
            batches.append(batch)
    sent = []
    for batch in batches:
        batch.close()
        async with _patience():
            sent.append(await out.send_batch(batch, topic, partition=partition))
    answers = await acknowledged(sent)
    return int(answers[-1].offset + batches[-1].record_count() - 1)


async def bury(out: AIOKafkaProducer, letters: Collection[DeadLetter]) -> None:
    """Writes dead letters and waits until they are acknowledged. Each is cut to what the topic accepts."""
    limit, waiting = dead_letter_bytes(), 0
    sent: list[asyncio.Future[Any]] = []
    for letter in (letter.fitted(limit) for letter in letters):
        value, headers = letter.value, letter.record_headers()
        if value is None and letter.key is None:
            value = b""  # aiokafka sends no record without both
        size = record_size(letter.key, value, headers)
        if sent and waiting + size > limit:  # the producer may put all that waits into one batch
            await acknowledged(sent)
            sent, waiting = [], 0
        async with _patience():
            sent.append(await out.send(DEAD_LETTERS, value, letter.key, headers=headers))
        waiting += size
    await acknowledged(sent)
    for letter in letters:
        BURIED.labels(letter.topic, letter.cause).inc()


def record_size(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> int:
    """The most bytes that a record takes in a batch."""
    return _RECORD_OVERHEAD + len(key or b"") + len(value or b"") + sum(
        10 + len(name.encode(errors="surrogateescape")) + len(raw) for name, raw in headers)


async def bounds(settings: Settings, tp: tuple[str, int]) -> tuple[int, int]:
    """The first offset that a partition still holds, and the one after its last.

    Asked through a client of its own: on the connection of a consumer each question waits behind a fetch, 1.5 s on
    Faust's. TimeoutError: the broker does not answer.
    """
    place = TopicPartition(*tp)
    asking = AIOKafkaConsumer(
        **connection(settings), client_id=f"attn-bounds-{settings.instance}", enable_auto_commit=False,
        request_timeout_ms=REQUEST_SECONDS * 1000,
    )
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await asking.start()
            begins, ends = await asyncio.gather(asking.beginning_offsets([place]), asking.end_offsets([place]))
    finally:
        await disconnect(asking)
    return begins[place], ends[place]


async def read_range(
    settings: Settings, tp: tuple[str, int], start: int, end: int
) -> AsyncGenerator[list[ConsumerRecord[bytes, bytes]], None]:
    """The committed records of a partition with start <= offset < end, in runs, without any group.

    What the log does not hold any more, or holds as markers or of aborted transactions, is left out. `end` must not be
    behind the last stable offset: an open transaction would be waited for. TimeoutError: the broker stopped answering.
    """
    place = TopicPartition(*tp)
    reader = AIOKafkaConsumer(
        **connection(settings), client_id=f"attn-reader-{settings.instance}", enable_auto_commit=False,
        auto_offset_reset="none", max_partition_fetch_bytes=4 << 20, fetch_max_wait_ms=100,
        isolation_level="read_committed",
        request_timeout_ms=REQUEST_SECONDS * 1000,
    )
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await reader.start()
            at = max(start, (await reader.beginning_offsets([place]))[place])
        reader.assign([place])
        reader.seek(place, at)
        while at < end:
            async with asyncio.timeout(_READ_SECONDS):
                run: list[ConsumerRecord[bytes, bytes]] = []
                while not run and at < end:
                    run = (await reader.getmany(place, timeout_ms=500, max_records=2000)).get(place, [])
                    at = await reader.position(place)
            inside = run if not run or run[-1].offset < end else [record for record in run if record.offset < end]
            if inside:
                yield inside
    finally:
        await disconnect(reader)
