"""An edge with few file descriptors: streams leave enough of them for other requests, and idle connections do not."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.edge import edges
from support.edge.edges import Fed, serving, settings, token, until
from websockets.asyncio.client import connect

from api import metrics
from api.http.routes import websocket
from api.live.connections import ConnectionRegistry
from api.open_files import SPARE, raise_file_limit, stream_capacity

TESTS = Path(edges.__file__).parents[2]
HARD = 300
FEED = f"GET /org/me/feed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n\r\n".encode()
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def edge_of_few_files() -> AsyncIterator[tuple[int, int]]:
    """Yields the port and the capacity of an edge whose limit was raised from 100 to `HARD` open files."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.edge.edge_of_few_files", "100", str(HARD), cwd=TESTS, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port, capacity = map(int, (await process.stdout.readline()).split())
        yield port, capacity
    finally:
        process.stdin.close()
        await process.wait()


async def send(port: int, request: bytes) -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return reader, writer


async def first_bytes(peer: Peer) -> bytes:
    """Returns the response up to the end of the stream or of its snapshot."""
    data = b""
    async with asyncio.timeout(90):
        while b"event: snapshot" not in data and (more := await peer[0].read(65536)):
            data += more
    return data


async def is_healthy(port: int) -> bool:
    reader, writer = await send(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    line = b""
    with suppress(ConnectionError):
        line = await reader.readline()
    writer.close()
    return line.startswith(b"HTTP/1.1 200 ")


async def test_streams_above_the_limit_of_open_files_are_told_to_retry_later() -> None:
    async with edge_of_few_files() as (port, capacity):
        assert HARD - SPARE - 100 < capacity < HARD - SPARE
        peers, firsts = [], []
        for _ in range(HARD // 20 + 3):  # a larger burst may take all descriptors before the edge can close one
            some = [await send(port, FEED) for _ in range(20)]
            firsts += await asyncio.gather(*map(first_bytes, some))
            peers += some
        opened = [peer for peer, first in zip(peers, firsts, strict=True) if b"event: snapshot" in first]
        assert len(opened) == capacity
        refused = [first for first in firsts if b"event: snapshot" not in first]
        assert all(first.startswith(b"HTTP/1.1 200") and b"retry: " in first for first in refused)
        idle = [await send(port, b"GET / HTTP/1.1\r\n") for _ in range(HARD)]
        async with asyncio.timeout(90):
            with suppress(ConnectionError):
                assert await idle[0][0].read(1) == b"", "the oldest idle connection is closed"
            # The idle connections that the edge has not accepted yet may take all descriptors for a moment.
            while not await is_healthy(port):
                await asyncio.sleep(0.05)
            opened[0][1].close()
            while b"event: snapshot" not in await first_bytes(one := await send(port, FEED)):
                one[1].close()
                await asyncio.sleep(0.05)
        for _, writer in (*peers, *idle, one):
            writer.close()


@pytest.mark.parametrize(("limit", "capacity"), [(1024, 928), (20_000, 19_536), (1 << 20, (1 << 20) - 64 - 1024)])
def test_streams_leave_descriptors_for_other_requests(limit: int, capacity: int) -> None:
    assert stream_capacity(limit) == capacity


def test_the_limit_of_open_files_is_raised_to_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [100, 300]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.__setitem__(slice(None), given))
    assert raise_file_limit() == 300
    assert limits == [300, 300]

    def refused(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    limits[:] = [100, 300]
    monkeypatch.setattr(resource, "setrlimit", refused)
    assert raise_file_limit() == 100


def test_a_nearly_full_edge_warns_once_until_streams_have_ended() -> None:
    registry = ConnectionRegistry(settings(), lambda: 0, 10)

    def warnings(reserved: int) -> int:
        with capture_logs() as logs:
            for number in range(reserved):
                registry.reserve("w1", f"user {number}")
        return sum(line["log_level"] == "warning" and line["limit"] == 10 for line in logs)

    assert warnings(8) == 0
    assert warnings(2) == 1
    registry.release("w1", "user 0")
    assert warnings(1) == 0, "still above the share at which it warns again"
    for number in range(4):
        registry.release("w1", f"user {7 - number}")
    assert warnings(3) == 1
    assert not registry.is_full
    assert warnings(2) == 0
    assert registry.is_full


async def test_a_websocket_above_the_limit_is_closed_with_try_again_later() -> None:
    fed = Fed()
    fed.edge.connections.capacity = 1
    deferred = metrics.STREAMS_DEFERRED._value.get()
    async with serving(fed.edge) as url, connect(f"{url.replace('http', 'ws')}/api/v1/ws") as first:
        await first.send(json.dumps({"type": "auth", "token": token()}))
        assert json.loads(await first.recv())["type"] == "authenticated"
        await until(lambda: fed.edge.connections.workspaces())
        async with connect(f"{url.replace('http', 'ws')}/api/v1/ws") as second:
            await second.send(json.dumps({"type": "auth", "token": token("bob")}))
            assert json.loads(await second.recv())["type"] == "authenticated"
            assert "the edge has 1 live connections" in json.loads(await second.recv())["error"]
            await second.wait_closed()
            assert second.close_code == websocket.TRY_AGAIN_LATER
        await first.send(json.dumps({"type": "ping"}))
        assert json.loads(await first.recv()) == {"type": "pong"}
    assert metrics.STREAMS_DEFERRED._value.get() == deferred + 1
    await until(lambda: not fed.edge.connections.workspaces(), what=lambda: "for the reservations to be released")
