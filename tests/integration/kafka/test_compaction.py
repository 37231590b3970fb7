"""Compaction of attn.views by Kafka's cleaner, with short segments and without delays. It removes all replaced records
and tombstones. The remaining records give the same rows, ranks and counts as a fold of the whole log.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from support import events
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer
from support.edge.expected_view import Truth
from support.kafka.brokers import KAFKA_ONLY
from support.kafka.pipeline import (
    Seen,
    Stack,
    caught_up,
    check,
    eventually,
    kill,
    look,
    position,
    refolded,
    send,
    spawn,
)

from api.readmodel.readers import Reader
from schemas.settings import Settings
from schemas.topics import TOPICS, VIEWS
from schemas.views import decode_row, position_key
from streams.kafka import producer as kafka
from streams.kafka import topics
from streams.rebuild.comparison import Comparison

PARTITIONS = 2
WORKSPACES = ("ws_01", "ws_02", "ws_03", "ws_04")
READERS = [(ws, user, role) for ws in WORKSPACES for user, role in (("ann", "OWNER"), ("bob", "MEMBER"))]
LUMP = 15  # events sent at once; a batch then has about as many rows


class Source:
    """Sends generated events in portions. They have few subjects: most events replace an earlier row."""

    def __init__(self, settings: Settings, size: int) -> None:
        self._settings = settings
        self._lines = events.generate(41, size, workspaces=WORKSPACES, subjects=5)
        self.sent = 0

    async def more(self, lumps: int) -> None:
        for _ in range(lumps):
            assert self.sent < len(self._lines), "all events were sent before the cleaner was done"
            self.sent += await send(self._settings, self._lines[self.sent:self.sent + LUMP])
            await asyncio.sleep(0.1)  # the broker closes a segment at the first batch after `segment.ms`

    async def folded(self) -> Seen:
        return await eventually(lambda: caught_up(self._settings, self.sent), "all are folded")  # type: ignore[no-any-return]


async def clean_eagerly(settings: Settings, lag_ms: int = 0) -> None:
    """Lets the cleaner work without delay; the defaults take hours. Records younger than `lag_ms` are not compacted."""
    (views,) = [topic for topic in TOPICS if topic.name == VIEWS]
    eager = topics.configs(views, settings) | {
        "segment.ms": "100", "min.compaction.lag.ms": str(lag_ms), "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": str(lag_ms + 1), "delete.retention.ms": "0",
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        for answer in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, VIEWS, eager)]):
            assert all(code == 0 for code, *_ in answer.resources), answer
    finally:
        await admin.close()


async def written(settings: Settings) -> dict[int, int]:
    """Returns the end offset of each partition of the view: the number of records ever written."""
    partitions = [TopicPartition(VIEWS, number) for number in range(settings.log_partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka) as consumer:
        return {each.partition: end for each, end in (await consumer.end_offsets(partitions)).items()}


def kept(seen: Seen) -> dict[int, int]:
    """Returns the number of records that each partition of the view still has."""
    return {partition: len(records) for partition, records in seen.views.items()}


async def cleaned(settings: Settings, source: Source, upto: dict[int, int]) -> None:
    """Waits until the cleaner has compacted all records before the offsets `upto`: each key occurs once.

    Sends events meanwhile: the cleaner never compacts the newest segment.
    """
    async def tidy() -> bool:
        await source.more(1)
        seen = await look(settings)
        keys = {partition: [record.key for record in records if record.offset < upto[partition]]
                for partition, records in seen.views.items()}
        return all(len(left) == len(set(left)) for left in keys.values())

    await eventually(tidy, "compacted")


async def write_stale_rows(settings: Settings, rows: dict[int, dict[bytes, bytes]]) -> None:
    """Writes old rows and an old position, as a worker without fencing would after it lost its partitions."""
    producer = kafka.idempotent_producer(settings, "zombie")
    await producer.start()
    try:
        for partition, old in rows.items():
            last = position_key(partition)
            stale = [(key, raw) for key, raw in old.items() if key[:2] == b"i:"]
            assert stale
            await kafka.write_rows(producer, VIEWS, partition, [*stale, (last, old[last])])
    finally:
        await producer.stop()


def check_repaired(seen: Seen, settings: Settings) -> None:
    """Does the same as `check` for a view that a worker has repaired. A repair raises positions, and thereby the
    revisions of later rows."""
    for partition, records in seen.log.items():
        rows, facts = refolded(records, partition, settings)
        repaired = seen.rows[partition]
        comparison = Comparison(repaired, rows, exact=False)
        comparison.update_all()
        assert not comparison.differing
        assert comparison.unmatched_seen_rows() == ([], [])
        assert position(repaired, partition).position > position(rows, partition).position
        assert [(fact.event_id, fact.type) for fact in seen.unique_facts(partition)] == [
            (fact.event_id, fact.type) for fact in facts]


async def check_edge(settings: Settings, seen: Seen) -> None:
    """Fails unless a new edge answers with the order, counts and activity that the rows have."""
    rows = {
        key: raw for part in seen.rows.values() for key, raw in part.items() if hasattr(decode_row(key, raw), "ws")
    }
    shown = 0
    async with edge(settings) as base, httpx.AsyncClient(base_url=base) as client:
        for ws, user, role in READERS:
            body = (await client.get("/org/me/inbox?limit=500", headers=bearer(user, role, ws))).json()
            truth = Truth(rows, Reader(ws, user, frozenset({role}))).page(500)
            for name in ("items", "counts", "activity"):
                assert body[name] == truth[name], (ws, user, role, name)
            shown += len(body["items"])
    assert shown > 50


@KAFKA_ONLY
async def test_a_compacted_topic_gives_the_same_view(stack: Stack) -> None:
    async with stack(log_partitions=PARTITIONS) as settings:
        await topics.ensure_topics(settings)
        await clean_eagerly(settings)
        source = Source(settings, 12_000)
        process: Any = spawn(settings)
        try:
            await source.more(5)
            old = (await source.folded()).rows
            await source.more(20)
            await cleaned(settings, source, await written(settings))
            kill(process)

            process = spawn(settings)  # loads the compacted view and continues from it
            await source.more(5)
            seen = await source.folded()
            left, ever = kept(seen), await written(settings)
            assert all(ever[partition] - left[partition] > 50 for partition in ever), (left, ever)
            check(seen, settings)
            kill(process)

            # A worker can repair stale rows until compaction has removed the correct rows that they replace. In
            # production this takes hours. Here the cleaner must wait until the worker has done it.
            await clean_eagerly(settings, lag_ms=3_600_000)
            await write_stale_rows(settings, old)
            process = spawn(settings)
            await source.more(5)
            await source.folded()
            await clean_eagerly(settings)
            await cleaned(settings, source, await written(settings))
            process.terminate()
            assert await asyncio.to_thread(process.wait, 60) == 0

            process = spawn(settings)
            await source.more(5)
            await source.folded()
            process.terminate()
            assert await asyncio.to_thread(process.wait, 60) == 0
        finally:
            kill(process)
        seen = await look(settings)
        check_repaired(seen, settings)
        print(f"{sum((await written(settings)).values())} records written, {sum(kept(seen).values())} kept")
        await check_edge(settings, seen)
