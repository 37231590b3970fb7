"""Events of the benches: escalations in 16 workspaces, about 450 bytes each, the same in each run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from schemas.log import Event, Pack, encode_pack
from schemas.scalars import SECOND, format_timestamp, parse_timestamp
from schemas.topics import LOG, partition_of
from streams.core.normalise import normalise

__all__ = ["SOURCE", "packs", "produce", "send", "source_events"]

SOURCE = "escalations"
_BEGIN = parse_timestamp("2026-05-20T08:00:00Z")
_TYPES = ("escalation.opened", *["escalation.updated"] * 6, "escalation.resolved")


def source_events(
    count: int, subjects: int = 500, begin: int = _BEGIN, step_us: int = SECOND // 100
) -> Iterator[tuple[bytes, bytes]]:
    """Yields (key, value) of CloudEvents. Each subject is opened, updated six times and resolved, repeatedly. The first
    event has the time `begin`; each later one is `step_us` after the one before."""
    for n in range(count):
        subject, step = n % subjects, n // subjects
        event_type = _TYPES[step % len(_TYPES)]
        workspace = f"ws_{subject % 16}"
        data = {
            "title": f"Escalation {subject} needs a decision on the roll-out",
            "priority": ("low", "normal", "high")[n % 3],
            "cluster": f"cluster-{subject % 7}",
            "stack": "web",
            "case_id": f"case_{subject}",
            "case_title": f"Case {subject}",
            "sender": {"type": "agent", "id": f"ag_{subject % 5}", "name": "Daniel"},
            "payload": {"step": step, "status": "In Progress"},
        }
        yield workspace.encode(), orjson.dumps({
            "specversion": "1.0", "id": f"e{n}", "source": "/bench", "type": event_type, "subject": f"esc_{subject}",
            "time": format_timestamp(begin + n * step_us), "workspaceid": workspace, "data": data,
        })


def packs(count: int, size: int, partitions: int, at: int, **shape: int) -> Iterator[tuple[int, bytes]]:
    """Yields (log partition, record value): packs of `size` of the same events."""
    open_packs: dict[int, list[Event]] = {}
    for _, value in source_events(count, **shape):
        event = normalise(SOURCE, value)
        entries = open_packs.setdefault(partition_of(event.ws, partitions), [])
        entries.append(event)
        if len(entries) == size:
            yield partition_of(event.ws, partitions), encode_pack(Pack(at, list(entries)))
            entries.clear()
    for partition, entries in open_packs.items():
        if entries:
            yield partition, encode_pack(Pack(at, list(entries)))


async def produce(bootstrap: str, topic: str, records: Iterable[tuple[bytes | int, bytes]]) -> int:
    """Sends (key, value) to a source topic, or (partition, value) to the log. Returns the number of records."""
    placed = ((place, None, value) if topic == LOG else (None, place, value) for place, value in records)
    return await send(bootstrap, topic, placed, linger_ms=5, max_request_size=8 << 20)


async def send(
    bootstrap: str, topic: str, records: Iterable[tuple[Any, Any, bytes]], at_once: int = 5000, **how: int,
) -> int:
    """Sends (partition or None, key or None, value) with a producer of the options `how`, and `at_once` records in
    flight. Returns the number of records."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **how)
    await producer.start()
    sent, count = [], 0
    try:
        for partition, key, value in records:
            sent.append(await producer.send(topic, value, key, partition=partition))
            count += 1
            if len(sent) == at_once:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return count
