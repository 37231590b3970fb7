"""Standby rows on a broker: a worker that takes over reads only the newest records, and the view stays correct."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support import events
from support.kafka.brokers import KAFKA_ONLY
from support.kafka.pipeline import Stack, caught_up, check, eventually, kill, look, send, spawn

from schemas.settings import Settings
from schemas.topics import VIEWS
from streams.kafka import topics
from streams.worker.app import Worker, build

pytestmark = pytest.mark.timeout(600)

PARTITIONS = 4
LINES = events.generate(71, 1500, workspaces=tuple(f"ws_{number:02}" for number in range(16)))


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Worker]:
    """A worker in this process, whose tables the test can read."""
    worker = build(settings)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def owns(worker: Worker, partitions: int) -> bool:
    return worker.ready and len(worker.partitions.processors) == partitions


def is_current(worker: Worker, ends: dict[int, int]) -> bool:
    """Whether the worker has followed each partition of `ends` to that offset."""
    replicas = worker.views._replicas
    return worker.standby.followed == ends.keys() and all(
        partition in replicas and replicas[partition].next_offset >= end for partition, end in ends.items())


async def _current(settings: Settings, worker: Worker) -> dict[int, int] | None:
    seen = await look(settings)
    ends = {partition: seen.views[partition][-1].offset + 1 for partition in worker.standby.followed}
    return ends if len(ends) == PARTITIONS // 2 and is_current(worker, ends) else None


@KAFKA_ONLY
async def test_a_takeover_reads_only_what_was_written_since(stack: Stack) -> None:
    async with stack(log_partitions=PARTITIONS) as settings:
        await topics.ensure_topics(settings)
        other = spawn(settings.model_copy(update={"instance": "other"}))
        try:
            await send(settings, LINES[:1000])
            await eventually(lambda: caught_up(settings, 1000), "the first events are folded")
            async with running(settings.model_copy(update={"instance": "own"})) as worker:
                await eventually(lambda: owns(worker, PARTITIONS // 2), "joined")
                ends = await eventually(lambda: _current(settings, worker), "the standby rows are current")
                read = {partition: worker.views._replicas[partition].records_read for partition in ends}
                kill(other)
                await send(settings, LINES[1000:])
                await eventually(lambda: owns(worker, PARTITIONS), "taken over")
                assert worker.standby.followed == set()
                seen = await eventually(lambda: caught_up(settings, len(LINES)), "all is folded")
                for partition, end in ends.items():
                    fence = max(record.offset for record in seen.views[partition] if record.key == b"f:%d" % partition)
                    late = worker.views._replicas[partition].records_read - read[partition]
                    assert late <= fence - end + 1, f"{VIEWS}/{partition}: only the records from {end} to {fence}"
                    assert worker.views.store.rows(partition) == seen.rows[partition]
                check(seen, settings)
        finally:
            kill(other)


@KAFKA_ONLY
async def test_the_limit_of_memory_holds(stack: Stack) -> None:
    async with stack(log_partitions=PARTITIONS) as settings:
        await topics.ensure_topics(settings)
        other = spawn(settings.model_copy(update={"instance": "other"}))
        try:
            await send(settings, LINES)
            await eventually(lambda: caught_up(settings, len(LINES)), "the events are folded")
            async with running(settings.model_copy(update={"instance": "own"})) as worker:
                worker.standby._limit = 10_000
                await eventually(lambda: owns(worker, PARTITIONS // 2), "joined")
                await eventually(lambda: not worker.standby.followed, "the limit is reached")
                assert worker.views.store.partitions() == worker.partitions.processors.keys()
        finally:
            kill(other)
