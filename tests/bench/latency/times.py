"""When each event was where: its moment of sending, the times of its records, and the arrival of its frame.

All times are seconds since 1970 of this machine's clock. Records have milliseconds; half of one is added to them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas.facts import Fact, decode_fact
from schemas.log import Event
from schemas.topics import FACTS, LOG, VIEWS, partition_of
from schemas.views import PositionRow, decode_row, position_key
from streams.core.packs import unpack

__all__ = ["Hops", "attn_hops", "number_of", "offsets", "records_since", "relay_hops"]

Hops = list[tuple[float, ...]]  # of each event: source, first topic, second, third, reader
Ends = dict[TopicPartition, int]
_NUMBER = re.compile(rb'"id":"e(\d+)"')


async def offsets(bootstrap: str, topics: Iterable[str], partitions: int) -> Ends:
    """The end offsets of the topics."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        ends: Ends = await consumer.end_offsets(
            [TopicPartition(topic, number) for topic in topics for number in range(partitions)])
        return ends


async def records_since(bootstrap: str, begins: Ends) -> list[ConsumerRecord[bytes, bytes]]:
    """The records of these partitions from these offsets on."""
    found: list[ConsumerRecord[bytes, bytes]] = []
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, max_partition_fetch_bytes=8 << 20,
    ) as consumer:
        ends = await consumer.end_offsets(list(begins))
        left = {tp for tp, begin in begins.items() if begin < ends[tp]}
        consumer.assign(list(left))
        for tp in left:
            consumer.seek(tp, begins[tp])
        while left:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += records
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    return found


def relay_hops(
    sent: Sequence[float], first: int, records: Iterable[ConsumerRecord[bytes, bytes]], topics: Sequence[str],
    arrived: Mapping[int, float],
) -> Hops:
    """`first`: number of the first event sent. `arrived`: by number, when a reader of the last topic had the event."""
    at: dict[str, dict[int, float]] = {topic: {} for topic in topics}
    for record in records:
        at[record.topic][number_of(record.value)] = _time(record)
    return [(begun, *(at[topic][number] for topic in topics), arrived[number])
            for number, begun in enumerate(sent, start=first)]


def attn_hops(
    sent: Sequence[float], first: int, records: Iterable[ConsumerRecord[bytes, bytes]],
    frames: Mapping[str, Sequence[tuple[int, float]]], partitions: int,
) -> Hops:
    """`first`: number of the first event sent. `frames`: (position, time) of each workspace's frames, in order.

    An event is in attn.facts with its own fact, in attn.views with the batch whose position row is the first after the
    event's pack, and at its reader with the first frame of that position or a later one.
    """
    logged: dict[int, tuple[int, int, float, str]] = {}
    facts: dict[int, float] = {}
    batches: list[list[tuple[int, int, float]]] = [[] for _ in range(partitions)]  # next offset, position, time
    for record in records:
        if record.topic == LOG:
            for event in unpack(record.value).entries:
                if isinstance(event, Event):
                    logged[int(event.id[1:])] = record.partition, record.offset, _time(record), event.ws
        elif record.topic == FACTS:
            fact = decode_fact(record.value)
            if isinstance(fact, Fact) and fact.event_id.startswith("/bench e"):
                facts.setdefault(int(fact.event_id.removeprefix("/bench e")), _time(record))
        elif record.topic == VIEWS and record.key == position_key(record.partition):
            row = decode_row(record.key, record.value)
            assert isinstance(row, PositionRow)
            batches[record.partition].append((row.next, row.position, _time(record)))
    hops: Hops = []
    for number, begun in enumerate(sent, start=first):
        partition, offset, at, workspace = logged[number]
        assert partition == partition_of(workspace, partitions)
        _, position, written = _first(batches[partition], (offset + 1,))
        hops.append((begun, at, facts[number], written, _first(frames[workspace], (position,))[1]))
    return hops


def number_of(value: bytes | None) -> int:
    found = _NUMBER.search(value or b"")
    assert found is not None
    return int(found[1])


def _time(record: ConsumerRecord[bytes, bytes]) -> float:
    return (record.timestamp + 0.5) / 1000


def _first(ordered: Sequence[tuple[Any, ...]], least: tuple[int]) -> tuple[Any, ...]:
    return ordered[bisect_left(ordered, least)]
