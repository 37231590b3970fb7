"""Peers that send and never read, or never authenticate, cost bounded bytes, connections and time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgspec import Raw
from support.clients.feed import frames
from support.edge.edges import Fed, serving, token, until
from support.edge.random_rows import item
from support.edge.sinks import Kept

from api import metrics
from api.commands.rate_limiter import ReadLimiter, TooManyReads
from api.http.protocol import header_limits, websocket_limits
from api.http.protocol.server import listen, make_server
from api.http.protocol.unauthenticated import UnauthenticatedConnections
from api.http.routes import websocket
from api.live import event_stream
from api.readmodel.listing import PAGE_BYTES
from api.readmodel.readers import Reader
from schemas.log import Data
from schemas.views import ItemRow, PositionRow, encode_row

HOST = "host: x\r\n"
UPGRADE = (f"GET /api/v1/ws HTTP/1.1\r\n{HOST}upgrade: websocket\r\nconnection: upgrade\r\n"
           "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
PING, CONTINUATION = b"\x89\xfd\0\0\0\0" + b"x" * 125, b"\x00\x80\0\0\0\0"


def text(message: str) -> bytes:
    """Returns a masked text frame with a mask of zero."""
    raw = message.encode()
    length = bytes([0x80 | len(raw)]) if len(raw) < 126 else b"\xfe" + struct.pack("!H", len(raw))
    return b"\x81" + length + bytes(4) + raw


async def opened(base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a connection with a small receive buffer, so that unread bytes stay with the edge."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(base.rsplit(":", 1)[1])))
    return await asyncio.open_connection(sock=sock, limit=1 << 16)


async def upgraded(base: str, head: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await opened(base)
    writer.write(f"{UPGRADE}{head}\r\n".encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 101")
    return reader, writer


async def flood(writer: asyncio.StreamWriter, piece: bytes, max_bytes: int = 64 << 20) -> int:
    """Sends without reading until the edge closes the connection. Returns the number of bytes sent."""
    writer.transport.set_write_buffer_limits(0)
    sent = 0
    with suppress(ConnectionError):
        while sent < max_bytes:
            writer.write(piece)
            async with asyncio.timeout(60):
                await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
    writer.close()
    return sent


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("cookie", ["", "cookie: attn_session={}\r\n"], ids=["anonymous", "signed in"])
@pytest.mark.parametrize("burst", [100, 10**9], ids=["by number", "by bytes"])
async def test_pings_that_are_never_read_are_not_answered_without_end(
    monkeypatch: pytest.MonkeyPatch, cookie: str, burst: int,
) -> None:
    monkeypatch.setattr(websocket_limits, "_FRAMES_BURST", burst)
    monkeypatch.setattr(websocket_limits, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(websocket_limits, "_CLOSING_SECONDS", 0.2)
    async with serving(Fed().edge) as base:
        _, writer = await upgraded(base, cookie.format(token()))
        before = resident()
        assert await flood(writer, PING * 512) < 32 << 20
        assert resident() - before < 16 << 20


async def test_fragments_without_an_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_limits, "_CLOSING_SECONDS", 0.2)
    async with serving(Fed().edge) as base:
        _, writer = await upgraded(base)
        writer.write(b"\x01\x80\0\0\0\0")
        assert await flood(writer, CONTINUATION * 4096) < 8 << 20


async def test_messages_whose_answers_are_never_read_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_limits, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(websocket_limits, "_CLOSING_SECONDS", 0.2)
    monkeypatch.setattr(websocket, "_END_SECONDS", 0.2)
    async with serving(Fed(socket_rate=1e9).edge) as base:
        _, writer = await upgraded(base, f"cookie: attn_session={token()}\r\n")
        loud = text(json.dumps({"type": "subscribe", "channel": "x" * 15_000}))
        assert await flood(writer, loud) < 32 << 20


async def test_the_edge_answers_others_while_pings_flood_in() -> None:
    stop = asyncio.Event()

    async def flooding(base: str) -> None:
        while not stop.is_set():
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await flood((await upgraded(base))[1], PING * 512, 4 << 20)

    async with serving(Fed().edge) as base:
        floods = [asyncio.create_task(flooding(base)) for _ in range(6)]
        for _ in range(5):
            reader, writer = await opened(base)
            writer.write(f"GET /healthz HTTP/1.1\r\n{HOST}connection: close\r\n\r\n".encode())
            async with asyncio.timeout(10):
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
        stop.set()
        await asyncio.gather(*floods)


async def test_an_unauthenticated_socket_that_reads_nothing_is_closed_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "_AUTH_SECONDS", 0.2)
    monkeypatch.setattr(websocket_limits, "_CLOSING_SECONDS", 0.2)
    async with serving(Fed().edge) as base:
        sockets_open = metrics.SOCKETS._value.get()
        reader, writer = await upgraded(base)
        assert b"timed out" in await asyncio.wait_for(reader.read(), 60)
        await until(lambda: metrics.SOCKETS._value.get() == sockets_open)
        writer.close()


async def test_answers_that_are_never_read_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_limits, "STALLED_SECONDS", 0.5)
    async with serving(Fed().edge) as base:
        _, writer = await opened(base)
        assert await flood(writer, f"GET /openapi.json HTTP/1.1\r\n{HOST}\r\n".encode() * 8) < 32 << 20


async def test_many_pipelined_requests_are_not_kept() -> None:
    async with serving(Fed().edge) as base:
        _, writer = await opened(base)
        assert await flood(writer, f"GET /healthz HTTP/1.1\r\n{HOST}\r\n".encode() * 1000) < 8 << 20


async def test_a_closed_stream_with_a_pipelined_request_releases_its_slot(caplog: pytest.LogCaptureFixture) -> None:
    fed = Fed(max_streams=1)
    fed.put(item())
    async with serving(fed.edge) as base:
        for _ in range(3):
            reader, writer = await opened(base)
            head = f"{HOST}authorization: Bearer {token()}\r\n\r\n"
            writer.write(f"GET /org/me/feed HTTP/1.1\r\n{head}GET /org/me HTTP/1.1\r\n{head}".encode())
            assert b"event: snapshot" in await asyncio.wait_for(reader.readuntil(b"event: snapshot"), 60)
            assert len(fed.edge.connections) == 1
            writer.close()
            await until(lambda: not len(fed.edge.connections))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("coding", ["xchunked", "gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked;a=b"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_transfer_coding_that_is_not_known_is_501(coding: str, method: str) -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        writer.write(f"{method} /auth/session HTTP/1.1\r\n{HOST}content-type: application/json\r\n"
                     f"transfer-encoding: {coding}\r\n\r\n0\r\n\r\n".encode())
        response = await asyncio.wait_for(reader.read(), 20)
        assert response.split(b" ")[1] in (b"400", b"501"), response
        assert b"connection: close" in response
        assert b"nosniff" in response
        writer.close()


async def test_every_response_has_the_header_nosniff() -> None:
    async with Fed().client() as client:
        for path in ("/org/me/inbox", "/healthz", "/none", "/metrics", "/openapi.json", "/", "/org/me/inbox?limit=x"):
            assert (await client.get(path)).headers.get_list("x-content-type-options") == ["nosniff"], path


@pytest.mark.parametrize(("origin", "forwarded", "status"), [
    ("http://x", "", 101), ("https://x", "", 101), ("https://x", "https", 101), ("http://x", "https", 403),
    ("ftp://x", "", 403), ("//x", "", 403), ("x", "", 403),
])
async def test_the_scheme_of_an_origin_counts(origin: str, forwarded: str, status: int) -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        proxied = f"x-forwarded-proto: {forwarded}\r\n" if forwarded else ""
        writer.write(f"{UPGRADE}origin: {origin}\r\n{proxied}\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)
        assert head.split(b" ")[1] == b"%d" % status
        writer.close()


def large(number: int) -> tuple[bytes, ItemRow]:
    data = Data(body_md="x" * 60_000, payload=Raw(b'"%b"' % (b"y" * 60_000)))
    return item(source_id=f"s{number}", created_at=number, data=data)


async def test_pages_of_large_items_end_at_the_byte_limit_and_have_a_next_page() -> None:
    fed = Fed()
    fed.put(*[large(number) for number in range(120)])
    async with fed.client() as client:
        listed, query = [], ""
        while query is not None:
            response = await client.get(f"/org/me/inbox?limit=500{query}")
            assert len(response.content) < PAGE_BYTES + 100_000
            listed += [row["source_id"] for row in response.json()["items"]]
            query = f"&next={response.json()['next']}" if "next" in response.json() else None
        assert len(listed) == len(set(listed)) == 120
        for path, name in (("/inbox?limit=500", "items"), ("/api/v1/inbox?limit=500", "rows")):
            response = await client.get(path)
            assert 30 <= len(response.json()[name]) < 120
            assert len(response.content) < PAGE_BYTES + 100_000


async def test_a_feed_of_large_items_begins_with_the_page_of_its_limit() -> None:
    fed = Fed()
    fed.put(*[large(number) for number in range(60)])
    given = [Kept() for _ in range(8)]
    for number, outlet in enumerate(given):
        fed.edge.feed_hub.open(Reader("w1", "ann", frozenset({"OWNER"})), 400 + number, None, outlet)
    async with fed.client() as client:
        page = (await client.get("/org/me/inbox?limit=400")).json()
    for outlet in given:
        [(_, event, data)] = frames(outlet.raw)
        assert (event, data["items"], data["next"]) == ("snapshot", page["items"], page["next"])
    assert fed.edge.feed_hub._snapshots.size <= 8 << 20


async def test_frames_of_many_batches_of_large_items_are_not_held_until_all_are_read() -> None:
    fed, outlet = Fed(), Kept()
    fed.put(large(0))
    fed.edge.feed_hub.open(Reader("w1", "ann", frozenset({"OWNER"})), 500, None, outlet)
    [channel] = fed.edge.feed_hub._channels["w1"].values()
    for position in range(2, 40):
        key, row = large(position)
        fed.edge.apply_batch(0, [(key, encode_row(row))], PositionRow(next=position, clock=10**15))
        assert sum(map(len, channel.pending)) <= fed.edge.settings.stream_buffer + 200_000
    fed.edge.publish()


async def test_reads_of_one_user_wait_for_each_other_and_then_are_429() -> None:
    fed = Fed()
    fed.put(item())
    fed.edge.read_limiter = ReadLimiter(2, 3, 60.0)
    held = [await fed.edge.read_limiter.acquire("w1", "ann") for _ in range(2)]
    async with fed.client() as client, fed.client("bob") as other:
        waiting = [asyncio.create_task(client.get("/org/me/inbox")) for _ in range(3)]
        await until(lambda: fed.edge.read_limiter._users["w1", "ann"].count == 5)
        refused = await client.get("/org/me/inbox")
        assert (refused.status_code, refused.headers["retry-after"], refused.json()["limit"]) == (429, "1", 2)
        assert (await other.get("/org/me/inbox")).status_code == 200
        for release in held:
            release()
        assert [(await response).status_code for response in waiting] == [200] * 3
    assert not len(fed.edge.read_limiter)


async def test_a_read_that_waits_too_long_for_its_turn_is_rejected() -> None:
    limiter = ReadLimiter(1, 5, 0.01)
    release = await limiter.acquire("w1", "ann")
    with pytest.raises(TooManyReads):
        await limiter.acquire("w1", "ann")
    release()
    assert not len(limiter)


async def test_an_unread_response_holds_its_read_slot_until_it_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_limits, "STALLED_SECONDS", 1.0)
    fed = Fed()
    fed.put(*[large(number) for number in range(40)])
    async with serving(fed.edge) as base:
        _, writer = await opened(base)
        writer.write(f"GET /org/me/inbox?limit=500 HTTP/1.1\r\n{HOST}authorization: Bearer {token()}\r\n\r\n".encode())
        await until(lambda: len(fed.edge.read_limiter) == 1)
        await until(lambda: not len(fed.edge.read_limiter))
        writer.close()


async def test_a_feed_that_is_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "STALLED_SECONDS", 0.2)
    fed = Fed()
    fed.put(*[large(number) for number in range(40)])
    async with serving(fed.edge) as base:
        _, writer = await opened(base)
        writer.write(f"GET /org/me/feed HTTP/1.1\r\n{HOST}authorization: Bearer {token()}\r\n\r\n".encode())
        await until(lambda: len(fed.edge.connections) == 1)
        await until(lambda: not len(fed.edge.connections))
        writer.close()


class _Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_too_many_unauthenticated_connections_close_the_oldest_of_the_address() -> None:
    now = [0.0]
    connections = UnauthenticatedConnections(6, 3, 5.0, lambda: now[0])
    transports = [_Transport() for _ in range(9)]
    for transport in transports[:4]:
        connections.add(transport, ("10.0.0.1", 1))  # type: ignore[arg-type]
    assert not any(transport.aborted for transport in transports), "the edge may not have read their request yet"
    now[0] = 6
    connections.add(transports[0], ("10.0.0.1", 1))  # type: ignore[arg-type]
    connections.add(transports[4], ("10.0.0.2", 1))  # type: ignore[arg-type]
    assert [transport.aborted for transport in transports[:5]] == [False, True, False, False, False]
    connections.remove(transports[2])  # type: ignore[arg-type]
    for transport in transports[5:]:
        connections.add(transport, ("10.0.0.3", 1))  # type: ignore[arg-type]
    assert len(connections) == 6
    assert [transport.aborted for transport in transports] == [False, True, False, True, *[False] * 5], (
        "the oldest connection of all addresses is closed")


@asynccontextmanager
async def serving_app(app: Any, connections: UnauthenticatedConnections) -> AsyncIterator[str]:
    sock, server = listen("127.0.0.1", 0), make_server(app)
    server.server_state.unauthenticated = connections
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=10)
        sock.close()


async def test_requests_that_wait_for_their_response_are_not_closed_in_favour_of_others() -> None:
    """As those of thousands of readers, which come back through a proxy after a restart of the edge."""
    answer, waiting = asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting.append(scope)
        await answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    connections = UnauthenticatedConnections(6, 2, 0.0)
    async with serving_app(app, connections) as base:
        peers = []
        for number in range(1, 6):
            peers.append(await opened(base))
            peers[-1][1].write(f"GET / HTTP/1.1\r\n{HOST}\r\n".encode())
            await until(lambda number=number: len(waiting) == number)
        assert not len(connections)
        idle = [await opened(base) for _ in range(3)]
        async with asyncio.timeout(60):
            assert await idle[0][0].read(1) == b"", "an idle connection counts"
        answer.set()
        for reader, _ in peers:
            assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 200")
        await until(lambda: len(connections) == 2, what=lambda: "answered connections are idle, and count again")
        for _, writer in (*peers, *idle):
            writer.close()


async def test_a_response_that_is_not_read_counts_although_its_request_was_complete() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"33554432")]})
        await send({"type": "http.response.body", "body": bytes(32 << 20)})

    connections = UnauthenticatedConnections(6, 2, 0.0)
    async with serving_app(app, connections) as base:
        peers = [await opened(base) for _ in range(3)]
        for _, writer in peers:
            writer.write(f"GET / HTTP/1.1\r\n{HOST}\r\n".encode())
        await until(lambda: len(connections) == 2)
        for _, writer in peers:
            writer.close()
