"""Writes dead letters and counts them by topic and cause."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaProducer
from prometheus_client import Counter

from schemas.dead_letters import DeadLetter
from schemas.topics import DEAD_LETTERS, FACTS, LOG, SOURCE_TYPES, record_size
from streams.kafka.producer import wait_acknowledged, write_deadline
from streams.kafka.topics import dead_letter_bytes

__all__ = ["DEAD_LETTERS_SENT", "send_dead_letters"]

# The worker and the history export it. `cause` is one of schemas.dead_letters.CAUSES.
DEAD_LETTERS_SENT = Counter(
    "attn_dead_letters_total", "Records sent to dead-letters, by their topic and cause", ["topic", "cause"])
# Rare causes are exported as 0 from the start: Prometheus sees no increase when a counter appears with its first value.
for _labels in (
    *((topic, cause) for topic in SOURCE_TYPES for cause in ("fault", "key", "unreadable")),
    (LOG, "pack"), (LOG, "row"), (FACTS, "fact"), (FACTS, "insert"),
):
    DEAD_LETTERS_SENT.labels(*_labels)


async def send_dead_letters(producer: AIOKafkaProducer, letters: Collection[DeadLetter]) -> None:
    """Writes dead letters, each cut to the size that the topic accepts, and waits until they are acknowledged."""
    limit, pending_bytes = dead_letter_bytes(), 0
    pending: list[asyncio.Future[Any]] = []
    for letter in (letter.fit(limit) for letter in letters):
        value, headers = letter.value, letter.record_headers()
        if value is None and letter.key is None:
            value = b""  # aiokafka refuses a record with neither key nor value
        size = record_size(letter.key, value, headers)
        if pending and pending_bytes + size > limit:  # the producer may put all pending records into one batch
            await wait_acknowledged(pending)
            pending, pending_bytes = [], 0
        async with write_deadline():
            pending.append(await producer.send(DEAD_LETTERS, value, letter.key, headers=headers))
        pending_bytes += size
    await wait_acknowledged(pending)
    for letter in letters:
        DEAD_LETTERS_SENT.labels(letter.topic, letter.cause).inc()
