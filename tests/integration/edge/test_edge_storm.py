"""kill -9 of an edge with a thousand open streams: all readers reconnect, and each resumes with its next frame."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from support.clients.feed_crowd import Follower
from support.edge.edges import SECRET, bearer, until
from support.edge.random_rows import ROLES, USERS
from support.edge.view_writer import Writer
from support.kafka import brokers
from support.kafka.pipeline import Stack

from ops.process.ports import free_port
from schemas.settings import Settings
from streams.kafka import topics

READERS, EACH = 1000, 8  # EACH: streams of follower user, the limit of the edge
LIMIT = 5


@contextmanager
def edge_process(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    given = {
        "ATTN_KAFKA": settings.kafka, "ATTN_LOG_PARTITIONS": "1", "ATTN_PORT": str(port), "ATTN_JWT_SECRET": SECRET,
        "ATTN_HEARTBEAT_SECONDS": "2", "ATTN_RECONNECT_SECONDS": "3", "ATTN_LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen([sys.executable, "-m", "ops.cli", "edge"], env=os.environ | given)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def crowd(port: int) -> list[Follower]:
    """Returns readers. Those of `USERS` see rows that target them; all others see only rows without a target user."""
    users = [*USERS, *(f"user{number}" for number in range(READERS // EACH - len(USERS)))]
    return [Follower(port, user, ROLES[number % 3], LIMIT) for number, user in enumerate(users) for _ in range(EACH)]


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


@brokers.EMBEDDED_ONLY
async def test_a_thousand_readers_reconnect_and_miss_no_frame(stack: Stack) -> None:
    port = free_port()
    followers: list[Follower] = []
    async with stack(log_partitions=1) as settings, httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        await topics.ensure_topics(settings)
        try:
            async with Writer(settings, 11) as writer:
                await writer.write(10)
                with edge_process(settings, port):
                    await ready(client)
                    followers += crowd(port)
                    await until(lambda: all(one.frames for one in followers), 120, lambda: progress(followers))
                    await writer.write(40)
                    await until(lambda: sum(len(follower.frames) > 3 for follower in followers) > READERS // 2, 60)
                    more = asyncio.create_task(writer.write(30))
                    await asyncio.sleep(0.05)  # the edge is killed while it sends frames
                await more
                await writer.write(10)
                with edge_process(settings, port):
                    await ready(client)
                    for _ in range(10):
                        await writer.write(1)
                        assert (await client.get("/healthz")).status_code == 200
                        await asyncio.sleep(0.1)
                    cursor = writer.world.position.position << 12
                    await until(lambda: all(one.heartbeat >= cursor for one in followers), 120,
                                lambda: progress(followers))
                    await compare(followers, client)
        finally:
            await asyncio.gather(*(follower.close() for follower in followers))


async def compare(followers: list[Follower], client: httpx.AsyncClient) -> None:
    pages: dict[tuple[str, str], object] = {}
    for follower in followers:
        who = (follower.user, follower.role)
        if who not in pages:
            answer = (await client.get(f"/org/me/inbox?limit={LIMIT}", headers=bearer(*who))).json()
            pages[who] = {name: answer[name] for name in ("items", "counts", "activity")}
        copy, events = follower.copy()
        assert {name: copy.page[name] for name in ("items", "counts", "activity")} == pages[who], who
        assert events.count("snapshot") == 1, "a reader did not resume with Last-Event-ID"
        assert follower.begun >= 2, "a reader did not reconnect"
    assert len({follower.retry for follower in followers}) > READERS // 3, "reconnect delays are not spread"


def progress(followers: list[Follower]) -> str:
    return (f"{sum(one.begun > 1 for one in followers)} readers reconnected, "
            f"lowest position of a heartbeat: {min(one.heartbeat for one in followers) >> 12}")
