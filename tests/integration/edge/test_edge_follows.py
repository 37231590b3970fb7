"""Edges on a broker: load, follow, resume feeds of each other, and restart with the same state."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer, until
from support.edge.expected_view import Truth
from support.edge.random_rows import World
from support.edge.view_writer import Writer
from support.kafka.pipeline import Stack

from api.readmodel.readers import Reader
from schemas.facts import Fact
from schemas.settings import Settings
from schemas.views import PositionRow
from streams.kafka import topics
from streams.runtime.lag import LogTruncated

READER = Reader("w1", "ann", frozenset({"OWNER"}))


async def page(base: str, limit: int = 5) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        return dict((await client.get(f"{base}/org/me/inbox?limit={limit}", headers=bearer())).json())


async def caught_up(base: str, world: World) -> None:
    async with asyncio.timeout(90):
        while (await page(base))["cursor"] >> 12 != world.position.position:
            await asyncio.sleep(0.02)


async def test_law_5_a_feed_crosses_edges_and_restarts_without_missing_a_frame(stack: Stack) -> None:
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with Writer(settings, 3) as writer:
            await writer.write(10)
            async with edge(settings) as first, edge(settings) as second:
                client = Client(first, params={"limit": 5})
                await client.get(1)
                await writer.write(25)
                await asyncio.gather(caught_up(first, writer.world), caught_up(second, writer.world))
                truth = Truth(writer.world.rows, READER).page(5)
                for base in (first, second):
                    body = await page(base)
                    assert {name: body[name] for name in ("items", "counts", "activity")} == {
                        name: truth[name] for name in ("items", "counts", "activity")}
                await until(lambda: bool(client.frames) and copy_of(client).page == truth)
                whole = list(client.frames)
                await resumes_everywhere(second, whole)
                await writer.write(5)
                await caught_up(first, writer.world)
                shown = Truth(writer.world.rows, READER).page(5)
                await until(lambda: copy_of(client).page == shown)
                whole = list(client.frames)
                last = asyncio.create_task(client.ended())
            await last
            # Both edges have stopped. A new edge sends the same frames.
            async with edge(settings) as third:
                await caught_up(third, writer.world)
                await resumes_everywhere(third, whole)


def copy_of(client: Client) -> Copy:
    """Returns the copy that the received frames build."""
    copy = Copy()
    for frame in client.frames:
        copy.apply(frame)
    return copy


async def resumes_everywhere(base: str, whole: list[tuple[int, str, Any]]) -> None:
    """Resumes after every fourth frame. Fails unless the edge sends exactly the frames after it."""
    for seen in range(0, len(whole) - 1, 4):
        resumed = Client(base, params={"limit": 5}, headers={"last-event-id": str(whole[seen][0])})
        await resumed.get(len(whole) - seen - 1)
        assert resumed.frames == whole[seen + 1:]
        await resumed.close()


async def test_zeros_streams_resume_after_a_restart(stack: Stack) -> None:
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with Writer(settings, 5) as writer:
            facts = [Fact(ws="w1", pos=pos, index=0, event_id=str(pos), time=0, type="session.started", subject="s",
                          case_id="c", session_id=f"s{pos}") for pos in range(8)]
            await writer.write_facts(*facts[:4])
            while writer.world.position.position < 8:
                await writer.write(1)
            await writer.write_facts(*facts)  # as after a crash: the first four are repeats
            async with edge(settings) as base:
                await caught_up(base, writer.world)
                for seen in (0, 3, 6):
                    assert await sessions(base, seen << 12, 7 - seen) == [f"s{pos}" for pos in range(seen + 1, 8)]


async def sessions(base: str, last: int, number: int) -> list[str]:
    """Returns the session ids of the next `number` events of the case after the cursor `last`."""
    found: list[str] = []
    headers = {**bearer(), "last-event-id": str(last)}
    async with asyncio.timeout(90), httpx.AsyncClient() as client, client.stream(
        "GET", base + "/cases/c/events", headers=headers) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:])["session_id"])
            if len(found) == number:
                return found
    return found


@pytest.mark.parametrize("how", ["a batch with an older position", "a batch without a position"])
async def test_an_edge_that_starts_waits_for_rows_to_be_repaired(stack: Stack, how: str) -> None:
    async with stack(log_partitions=1, resume_hours=0.0001) as settings:  # all may have been compacted
        await topics.ensure_topics(settings)
        async with Writer(settings, 6) as writer:
            await writer.write(8)
            key, raw = next(iter(writer.world.rows.items()))
            wrong = raw.replace(b"title", b"wrong")
            await writer.put([(key, wrong)], PositionRow(next=1) if "older" in how else None)
            starting = asyncio.create_task(once_ready(settings))
            await asyncio.sleep(2)
            assert not starting.done()
            last = writer.world.position = PositionRow(writer.world.position.next, 1, writer.world.position.shift + 1)
            await writer.put([(key, raw)], last)
            body = await asyncio.wait_for(starting, 90)
            truth = Truth(writer.world.rows, READER).page(5)
            assert body["cursor"] >> 12 == last.position
            assert {name: body[name] for name in ("items", "counts")} == {
                name: truth[name] for name in ("items", "counts")}


async def once_ready(settings: Settings) -> dict[str, Any]:
    async with edge(settings) as base:
        return await page(base)


async def test_a_batch_with_an_older_position_changes_nothing(stack: Stack) -> None:
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with Writer(settings, 6) as writer, edge(settings) as base:
            rows, position = writer.world.batch()
            await writer.put(rows, position)
            await writer.write(3)
            await writer.put([*rows, (b"i:ibx_odd", b"{}")], position)
            await writer.write(1)
            await caught_up(base, writer.world)
            truth = Truth(writer.world.rows, READER).page(5)
            assert (await page(base))["items"] == truth["items"]


async def test_a_truncated_view_topic_stops_the_edge(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.edge.follower._CHECK_INTERVAL", 0.2)

    async def nothing(self: object, places: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(places, 0)

    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with Writer(settings, 5) as writer:
            await writer.write(3)

            async def watched() -> None:
                async with edge(settings) as base:
                    await caught_up(base, writer.world)
                    monkeypatch.setattr("aiokafka.AIOKafkaConsumer.end_offsets", nothing)
                    async with asyncio.timeout(90):
                        with contextlib.suppress(httpx.TransportError):
                            while True:
                                await page(base)
                                await asyncio.sleep(0.05)

            with pytest.raises(LogTruncated):
                await watched()
