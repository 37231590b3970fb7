"""Events to measure with: escalations of 500 subjects in 16 workspaces, about 450 bytes each; the same each time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import orjson
from aiokafka import AIOKafkaProducer

from schemas.codec import SECOND, from_us, to_us
from schemas.log import Event, Pack, encode_pack
from schemas.topics import LOG, partition_of
from streams.core.normalise import normalise

__all__ = ["SOURCE", "packs", "produce", "source_events"]

SOURCE = "escalations"
_BEGIN = to_us("2026-05-20T08:00:00Z")
_TYPES = ("escalation.opened", *["escalation.updated"] * 6, "escalation.resolved")


def source_events(count: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of CloudEvents: each subject is opened, updated six times and resolved, over and over."""
    for n in range(count):
        subject, step = n % 500, n // 500
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
            "time": from_us(_BEGIN + n * SECOND // 100), "workspaceid": workspace, "data": data,
        })


def packs(count: int, size: int, partitions: int, at: int) -> Iterator[tuple[int, bytes]]:
    """(log partition, record value): the same events, `size` to a pack."""
    open_packs: dict[int, list[Event]] = {}
    for _, value in source_events(count):
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
    """Sends (key or partition, value); returns how many."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, max_request_size=8 << 20)
    await producer.start()
    sent, count = [], 0
    try:
        for place, value in records:
            where = {"partition": place} if topic == LOG else {"key": place}
            sent.append(await producer.send(topic, value, **where))
            count += 1
            if len(sent) == 5000:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return count
