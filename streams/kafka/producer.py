"""Idempotent producer, acknowledged writes with a time limit, and writes of one record batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.settings import Settings
from schemas.topics import BATCH_BYTES, MAX_DEAD_LETTER_BYTES
from streams.kafka import doorbell
from streams.kafka.connection import client_arguments, deadline

__all__ = ["Headers", "idempotent_producer", "wait_acknowledged", "write_deadline", "write_records", "write_rows"]

Headers = list[tuple[str, bytes]]

# A third of the time limit of a write or a read: after one broker that does not answer, others are still tried.
REQUEST_SECONDS = 10
# After this time the result of a write is unknown, so the worker stops and a restart reads what is durable. With
# Kafka's defaults a dead broker that also led the quorum is replaced after about 12 s. Waiting is better than a
# restart, which takes as long and must also fence and load every partition.
WRITE_SECONDS = 30.0


def idempotent_producer(settings: Settings, name: str) -> AIOKafkaProducer:
    """Creates an idempotent producer with acks=all. The caller starts and stops it. `name` is part of the client id."""
    return doorbell.make_producer(
        settings, **client_arguments(settings), client_id=f"attn-{name}-{settings.instance}", linger_ms=0,
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_DEAD_LETTER_BYTES, request_timeout_ms=REQUEST_SECONDS * 1000,
        compression_type=None if settings.kafka_compression == "none" else settings.kafka_compression,
    )


async def wait_acknowledged(writes: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """Returns the brokers' answers to the writes. Raises the error of the first failed write, or TimeoutError after
    WRITE_SECONDS."""
    async with write_deadline():
        return await asyncio.gather(*writes)


def write_deadline() -> AbstractAsyncContextManager[None]:
    """Raises TimeoutError if the block takes longer than WRITE_SECONDS."""
    return deadline(WRITE_SECONDS, f"Kafka has not acknowledged a write for {WRITE_SECONDS:.0f} s")


async def write_rows(
    out: AIOKafkaProducer, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None]]
) -> int:
    """Writes one or more records without headers, as `write_records` does."""
    return await write_records(out, topic, partition, ((key, value, []) for key, value in rows))


async def write_records(
    out: AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None, Headers]]
) -> int:
    """Writes one or more records in order as one record batch, or as several if they exceed BATCH_BYTES.

    Returns the offset of the last record. No single record may exceed the limit (`check_record_sizes`). Each batch has
    a time limit of its own.
    """
    batches = []
    batch = None
    for key, value, headers in records:
        if batch is None or batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            batch = out.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=headers)
            batches.append(batch)
    sent = []
    for batch in batches:
        batch.close()
        async with write_deadline():
            sent.append(await out.send_batch(batch, topic, partition=partition))
    answers = await wait_acknowledged(sent)
    return int(answers[-1].offset + batches[-1].record_count() - 1)
