"""Ingest loses no record: Faust skips input, partitions move between workers, the broker goes down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import events
from support.kafka.pipeline import Stack, caught_up, check, count, eventually, kill, look, send, spawn, worker

from ops.embedded.broker import EmbeddedBroker
from ops.kafka import Cluster
from schemas.settings import Settings
from schemas.topics import FACTS
from streams.fold.agent import AssignedPartitions
from streams.ingest.agent import Ingestor
from streams.kafka import topics

WORKSPACES = ("ws_01", "ws_02", "ws_03", "ws_04")


def counted_once(seen: Any, lines: list[events.Line]) -> None:
    event_ids = [fact.event_id for fact in seen.unique_facts() if not fact.derived]
    assert len(event_ids) == len(set(event_ids))
    assert set(event_ids) == {f"{line['value']['source']} {line['value']['id']}" for line in lines}


@pytest.mark.parametrize("where", [Ingestor, AssignedPartitions])
async def test_records_that_faust_does_not_deliver_are_read_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, where: type
) -> None:
    """Faust drops every third chunk of records, also the last chunk of a partition."""
    put, chunks = where.enqueue, 0  # type: ignore[attr-defined]

    async def losing(self: Any, tp: Any, records: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks % 3:
            await put(self, tp, records)

    monkeypatch.setattr(where, "enqueue", losing)
    lines = events.generate(21, 900, workspaces=WORKSPACES)
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            for at in range(0, len(lines), 60):
                await send(settings, lines[at:at + 60])
                await asyncio.sleep(0.2)
            seen = await eventually(lambda: caught_up(settings, len(lines)), "all events are folded")
        assert chunks > 10
        check(seen, settings)
        counted_once(seen, lines)
        assert len(seen.events) == len(lines)


async def test_partitions_move_between_workers(stack: Stack) -> None:
    """While events are sent, a second worker joins, is killed and restarted, and the first worker is stopped."""
    lines, sent, enough = events.generate(22, 9000, workspaces=WORKSPACES), 0, False
    async with stack(log_partitions=4) as settings:
        await topics.ensure_topics(settings)

        async def feed() -> None:
            nonlocal sent
            while not enough and sent < len(lines):
                sent += await send(settings, lines[sent:sent + 20])
                await asyncio.sleep(0.25)

        feeding = asyncio.create_task(feed())
        first, second = (settings.model_copy(update={"instance": name}) for name in ("a", "b"))
        first.model_fields_set.add("instance")
        second.model_fields_set.add("instance")
        processes = [spawn(first)]

        async def wait_for_facts(records: int = 20) -> None:
            """Waits until the workers have written `records` more facts."""
            before = await count(settings, FACTS)

            async def more() -> bool:
                return await count(settings, FACTS) >= before + records

            await eventually(more, "the workers write facts")

        try:
            await wait_for_facts()
            processes.append(spawn(second))
            await asyncio.sleep(8)
            await wait_for_facts()
            kill(processes[1])
            processes[1] = spawn(second)
            await asyncio.sleep(4)
            await wait_for_facts()
            processes[0].terminate()
            assert processes[0].wait(60) == 0
            await wait_for_facts()
            enough = True
            await feeding
            processes[0] = spawn(first)
            seen = await eventually(lambda: caught_up(settings, sent), "all events are folded")
        finally:
            feeding.cancel()
            for process in processes:
                kill(process)
        check(await look(settings) or seen, settings)
        counted_once(seen, lines[:sent])


async def test_a_worker_continues_after_a_restart_of_its_broker(own_broker: EmbeddedBroker | Cluster) -> None:
    """The broker is stopped cleanly for 3 s. The worker continues, or exits and is restarted."""
    lines = events.generate(23, 800, workspaces=WORKSPACES)
    broker = own_broker
    settings = Settings(kafka=broker.bootstrap, log_partitions=2, source_partitions=2)
    await topics.ensure_topics(settings)
    process = spawn(settings)
    try:
        await send(settings, lines[:300])
        await eventually(lambda: caught_up(settings, 300), "the first 300 events are folded")
        assert await broker.stop()
        await asyncio.sleep(3)
        await broker.start()
        await send(settings, lines[300:])

        async def done() -> Any:
            nonlocal process
            if process.poll() is not None:
                assert process.returncode != 0
                process = spawn(settings)
            return await caught_up(settings, len(lines))

        seen = await eventually(done, "all events are folded")
    finally:
        kill(process)
    check(seen, settings)
    counted_once(seen, lines)
