"""Kafka beside Faust: writes that are awaited, record batches of our own making, plain reads of a range of offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.settings import Settings
from schemas.topics import BATCH_BYTES, MAX_DEAD_LETTER_BYTES
from streams.kafka.connection import client_arguments, deadline

__all__ = ["idempotent_producer", "wait_acknowledged", "write_deadline", "write_rows"]

REQUEST_SECONDS = 10  # a third of what a write or a read may take: a broker that is silent is not the last one asked
# A write that is not acknowledged by then has an unknown end, so the worker stops and looks at what is durable. With
# Kafka's defaults a broker that dies, and led the quorum too, is replaced after some 12 s: that is waited for, as
# starting again takes as long, and then there is everything to claim and to load.
WRITE_SECONDS = 30.0


def idempotent_producer(settings: Settings, name: str) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas; to be started and stopped by the caller."""
    return AIOKafkaProducer(
        **client_arguments(settings), client_id=f"attn-{name}-{settings.instance}", acks="all",
        enable_idempotence=True, linger_ms=0, max_batch_size=BATCH_BYTES,
        max_request_size=MAX_DEAD_LETTER_BYTES, request_timeout_ms=REQUEST_SECONDS * 1000,
    )


async def wait_acknowledged(writes: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The brokers' answers. Raises what the first failed write raised, TimeoutError after WRITE_SECONDS."""
    async with write_deadline():
        return await asyncio.gather(*writes)


def write_deadline() -> AbstractAsyncContextManager[None]:
    """Raises TimeoutError if the block takes longer than WRITE_SECONDS."""
    return deadline(WRITE_SECONDS, f"Kafka has not acknowledged a write for {WRITE_SECONDS:.0f} s")


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
        async with write_deadline():
            sent.append(await out.send_batch(batch, topic, partition=partition))
    answers = await wait_acknowledged(sent)
    return int(answers[-1].offset + batches[-1].record_count() - 1)
