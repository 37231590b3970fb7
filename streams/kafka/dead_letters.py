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

# Every role that reads Kafka has it. `cause` is one of schemas.dead_letters.CAUSES.
DEAD_LETTERS_SENT = Counter(
    "attn_dead_letters_total", "Records sent to dead-letters, by where they were", ["topic", "cause"])
# What should never be is told as 0 from the start: Prometheus does not see an increase to a counter's first value.
for _place in (
    *((topic, cause) for topic in SOURCE_TYPES for cause in ("fault", "unreadable")),
    (LOG, "pack"), (LOG, "row"), (FACTS, "fact"), (FACTS, "insert"),
):
    DEAD_LETTERS_SENT.labels(*_place)


async def send_dead_letters(out: AIOKafkaProducer, letters: Collection[DeadLetter]) -> None:
    """Writes dead letters and waits until they are acknowledged. Each is cut to what the topic accepts."""
    limit, waiting = dead_letter_bytes(), 0
    sent: list[asyncio.Future[Any]] = []
    for letter in (letter.fit(limit) for letter in letters):
        value, headers = letter.value, letter.record_headers()
        if value is None and letter.key is None:
            value = b""  # aiokafka sends no record without both
        size = record_size(letter.key, value, headers)
        if sent and waiting + size > limit:  # the producer may put all that waits into one batch
            await wait_acknowledged(sent)
            sent, waiting = [], 0
        async with write_deadline():
            sent.append(await out.send(DEAD_LETTERS, value, letter.key, headers=headers))
        waiting += size
    await wait_acknowledged(sent)
    for letter in letters:
        DEAD_LETTERS_SENT.labels(letter.topic, letter.cause).inc()
