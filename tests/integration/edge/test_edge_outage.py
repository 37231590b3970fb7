"""An edge without its broker waits, reports it, keeps its readers, and follows again after the outage."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from support.clients.sse import Client
from support.edge.edges import settings, until
from support.edge.view_writer import Writer

from api.main import run
from ops.embedded.broker import EmbeddedBroker
from ops.kafka import Cluster
from ops.process.ports import free_port
from streams.kafka import topics


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("api.edge.broker_health.MAX_SILENCE", 1.0), ("api.edge.broker_health._REQUEST_TIMEOUT", 2.0),
                          ("api.edge.follower._CHECK_INTERVAL", 0.2),
                          ("streams.kafka.topics._WAIT_SECONDS", 2.0)):
        monkeypatch.setattr(name, seconds)


async def says(client: httpx.AsyncClient, status: int, text: str) -> None:
    """Waits until /readyz answers with this status and a body that contains `text`. /healthz answers 200 meanwhile."""
    async with asyncio.timeout(90):
        while True:
            try:
                answer = await client.get("/readyz")
                assert (await client.get("/healthz")).status_code == 200
                if answer.status_code == status and text in answer.text:
                    return
            except httpx.ConnectError:  # the edge does not listen yet
                pass
            await asyncio.sleep(0.1)


async def test_an_edge_rides_out_its_broker(own_broker: EmbeddedBroker | Cluster) -> None:
    broker: Any = own_broker
    given = settings(kafka=broker.bootstrap, port=free_port(), heartbeat_seconds=0.5)
    await topics.ensure_topics(given)
    await broker.stop()
    stop = asyncio.Event()
    edge = asyncio.create_task(run(given, stop))
    base = f"http://127.0.0.1:{given.port}"
    async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as http:
        await says(http, 503, "no broker answers")
        await broker.start()
        await says(http, 200, "ready")
        async with Writer(given, 3) as writer:
            await writer.write(5)
            reader = Client(base)
            await until(lambda: bool(cursors_of(reader)))
            await broker.stop()
            await says(http, 503, "the broker has not answered for")
            before = len(reader.frames)
            await until(lambda: len(reader.frames) > before + 2, 30)
            assert not reader.task.done(), "the edge keeps its streams and sends heartbeats"
            await broker.start()
            await says(http, 200, "ready")
            cursor = cursors_of(reader)[-1]
            await writer.write(5)
            await until(lambda: reader.frames[-1][0] >= writer.world.position.position << 12, 60)
            assert cursors_of(reader)[-1] > cursor
            assert not reader.task.done()
            await reader.close()
    assert not edge.done()
    stop.set()
    await asyncio.wait_for(edge, 30)


def cursors_of(reader: Client) -> list[int]:
    """Returns the cursors of the frames that are no heartbeats."""
    return [cursor for cursor, event, _ in reader.frames if event != "heartbeat"]
