"""Live streams over a real socket: feed, resume, limits, slow readers, ends of streams.

Most tests run twice: with direct writes to the transport, and over plain ASGI.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edges import Fed, bearer, serving, until
from support.edge.expected_view import Truth
from support.edge.random_rows import World, item

from api.readmodel.readers import Reader
from schemas.log import Data
from schemas.views import MarkRow
from streams.core.domain.keys import mark_key


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_a10_snapshot_then_diffs_then_a_resume_on_another_edge(direct: bool) -> None:
    world, fed_one, other = World(5), Fed(), Fed()
    reader = Reader("w1", "ann", frozenset({"OWNER"}))
    async with serving(fed_one.edge, direct) as first, serving(other.edge, direct) as second:
        client = Client(first, params={"limit": 5})
        await client.get(1)
        assert client.frames[0][1] == "snapshot"
        copy = Copy()
        for _ in range(30):
            rows, position = world.batch()
            for fed in (fed_one, other):
                fed.position.next = position.next - 1
                fed.put(*rows)
        third = Client(first, params={"limit": 5})
        await third.get(1)
        assert third.frames[0][0] == fed_one.edge.replica.cursor("w1")
        expected, applied = Truth(world.rows, reader).page(5), 0

        def is_equal() -> bool:
            nonlocal applied
            for frame in client.frames[applied:]:
                copy.apply(frame)
                applied += 1
            return bool(copy.page == expected)

        await until(is_equal)
        assert {event for _, event, _ in client.frames} >= {"added", "changed", "removed", "activity"}
        for seen in range(0, len(client.frames), 5):
            last = str(client.frames[seen][0])
            again = Client(second, params={"limit": 5}, headers={"last-event-id": last})
            wanted = client.frames[seen + 1:]
            await again.get(len(wanted))
            assert again.frames == wanted
            await again.close()
        await client.close()
        await third.close()


async def test_an_unknown_cursor_gives_a_snapshot(direct: bool) -> None:
    fed = Fed()
    fed.put(item())
    async with serving(fed.edge, direct) as base:
        for wrong in ("999999999999", "17", "abc", "-1", "9" * 30):
            client = Client(base, params={"last_event_id": wrong})
            assert [event for _, event, _ in await client.get(1)] == ["snapshot"], wrong
            await client.close()


async def test_the_first_personal_row_changes_nothing_that_others_see(direct: bool) -> None:
    fed = Fed()
    _, row = item(source_id="a")
    fed.put((b"i:" + row.id.encode(), row), item(source_id="b"))
    async with serving(fed.edge, direct) as base:
        ann, bob = Client(base), Client(base, who=("bob", "OWNER"))
        await asyncio.gather(ann.get(1), bob.get(1))
        cursor = fed.put((mark_key(row.id, "ann"), MarkRow("w1", row.id, "ann", 0)))
        [_, removed] = await ann.get(2)
        assert removed == (cursor, "removed", {
            "id": row.id, "reason": "dismissed",
            "counts": {"total": 1, "unread": 1, "by_kind": {"waitpoint": 1}, "by_priority": {"normal": 1}}})
        fed.put(item(source_id="c"))
        await asyncio.gather(ann.get(3), bob.get(2))
        assert [event for _, event, _ in bob.frames] == ["snapshot", "added"]
        assert (ann.frames[-1][2]["counts"]["total"], bob.frames[-1][2]["counts"]["total"]) == (2, 3)
        await ann.close()
        await bob.close()
    assert not fed.edge.feed_hub._channels, "a channel without streams is removed"


async def test_a12_one_more_connection_than_allowed_is_429_until_another_closes(direct: bool) -> None:
    fed = Fed()
    async with serving(fed.edge, direct) as base:
        clients = [Client(base, path) for path in ["/org/me/feed"] * 5 + ["/events/stream"] * 3]
        await until(lambda: len(fed.edge.connections) == 8)
        async with httpx.AsyncClient() as client:
            for path in ("/org/me/feed", "/events/stream"):
                answer = await client.get(base + path, headers=bearer())
                assert answer.status_code == 429
                assert answer.json()["limit"] == 8
                assert "error" in answer.json()
                assert int(answer.headers["retry-after"]) > 0
            other = Client(base, who=("bob", "OWNER"))
            await other.get(1)
            await clients.pop().close()
            await until(lambda: len(fed.edge.connections) == 8)
            again = Client(base)
            await again.get(1)
        for open_client in (*clients, other, again):
            await open_client.close()
        await until(lambda: len(fed.edge.connections) == 0)
        assert not fed.edge.connections._users


async def test_heartbeats_carry_the_cursor(direct: bool) -> None:
    fed = Fed(heartbeat_seconds=0.3)
    async with serving(fed.edge, direct) as base:
        client = Client(base)
        await client.get(1)
        cursor = fed.put(item(target_user_id="bob"))
        await until(lambda: client.frames[-1][0] == cursor)
        number, event, data = client.frames[-1]
        assert (event, data["cursor"]) == ("heartbeat", number)
        assert data["at"].endswith("Z")
        assert {event for _, event, _ in client.frames[1:]} == {"heartbeat"}, "the change was invisible to this reader"
        await client.close()


async def test_a_stream_ends_with_its_token_and_with_the_edge(direct: bool) -> None:
    fed = Fed()
    async with serving(fed.edge, direct) as base:
        headers = bearer(seconds=4)
        short, long = Client(base, headers=headers), Client(base)
        await asyncio.gather(short.get(1), long.get(1))
        await short.ended()
        assert not long.task.done()
    await long.ended()
    assert len(fed.edge.connections) == 0


async def raw_stream(base: str, path: str = "/org/me/feed") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a stream that the test reads byte by byte, with a small receive buffer."""
    host, port = base.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    lines = [f"GET {path} HTTP/1.1", f"host: {host}", f"authorization: {bearer()['authorization']}", "", ""]
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_slow_reader_is_disconnected_and_others_are_not(direct: bool) -> None:
    fed = Fed(stream_buffer=100_000)
    async with serving(fed.edge, direct) as base:
        _, writer = await raw_stream(base)
        client = Client(base)
        await client.get(1)
        await until(lambda: len(fed.edge.connections) == 2)
        largest = 0
        for number in range(120):
            fed.put(item(source_id=f"s{number}", data=Data(body_md="x" * 20_000)))
            largest = max(largest, *(channel._ring_bytes for channel in fed.edge.feed_hub._channels["w1"].values()))
            await client.get(number + 2)
            if len(fed.edge.connections) == 1:
                break
        assert len(fed.edge.connections) == 1, "the slow reader was disconnected"
        assert largest < 200_000
        channels = fed.edge.feed_hub._channels["w1"].values()
        assert not any(channel.ring for channel in channels), "no frames are kept for the slow reader"
        writer.close()
        await client.close()


async def test_a_reader_that_is_slow_for_a_while_gets_every_frame(direct: bool) -> None:
    fed = Fed(stream_buffer=3_000_000)
    async with serving(fed.edge, direct) as base:
        reader, writer = await raw_stream(base)
        for number in range(100):
            fed.put(item(source_id=f"s{number}", data=Data(body_md="x" * 20_000)))
            await asyncio.sleep(0)
        [channel] = fed.edge.feed_hub._channels["w1"].values()
        await until(lambda: bool(channel.ring))
        received = b""
        while received.count(b"event: added") < 100:
            piece = await asyncio.wait_for(reader.read(1 << 16), 30)
            assert piece
            received += piece
        assert not channel.ring
        fed.put(item(source_id="last"))
        while b'"last"' not in received:
            received += await asyncio.wait_for(reader.read(1 << 16), 30)
        writer.close()


async def test_a_long_resume_is_sent_in_pieces(direct: bool) -> None:
    fed = Fed(stream_buffer=50_000)
    for number in range(60):
        fed.put(item(source_id=f"s{number}", data=Data(body_md="x" * 5_000)))
    async with serving(fed.edge, direct) as base:
        client = Client(base, params={"last_event_id": "0"})
        frames = await client.get(60)
        assert [data["item"]["source_id"] for _, _, data in frames] == [f"s{number}" for number in range(60)]
        fed.put(item(source_id="last"))
        assert (await client.get(61))[-1][2]["item"]["source_id"] == "last"
        await client.close()


async def test_a_slow_reader_continues_at_its_position_when_its_view_becomes_personal() -> None:
    fed = Fed(stream_buffer=3_000_000)
    _, dismissed = item(source_id="s1")
    async with serving(fed.edge) as base:
        reader, writer = await raw_stream(base)
        for number in range(60):
            fed.put(item(source_id=f"s{number}", data=Data(body_md="x" * 20_000)))
        [channel] = fed.edge.feed_hub._channels["w1"].values()
        await until(lambda: bool(channel.ring))
        fed.put((mark_key(dismissed.id, "ann"), MarkRow("w1", dismissed.id, "ann", 0)))
        fed.put(item(source_id="last"))
        received = b""
        while b'"last"' not in received:
            piece = await asyncio.wait_for(reader.read(1 << 16), 30)
            assert piece
            received += piece
        assert received.count(b"event: added") == 61
        assert received.count(b'"reason":"dismissed"') == 1
        assert received.count(b"event: snapshot") == 1
        writer.close()


async def test_a_dead_connection_releases_its_slot(direct: bool) -> None:
    fed = Fed()
    async with serving(fed.edge, direct) as base:
        _, writer = await raw_stream(base)
        await until(lambda: len(fed.edge.connections) == 1)
        writer.transport.abort()
        await until(lambda: len(fed.edge.connections) == 0)


async def lines(base: str, path: str) -> AsyncIterator[str]:
    async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", base + path, headers=bearer()) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        async for line in answer.aiter_lines():
            yield line


async def test_the_bytes_are_an_event_stream(direct: bool) -> None:
    fed = Fed()
    fed.put(item())
    async with serving(fed.edge, direct) as base:
        received = []
        async for line in lines(base, "/org/me/feed"):
            received.append(line)
            if not line:
                break
        seconds = int(received.pop(0).removeprefix("retry: ")) / 1000
        assert 0.05 <= seconds <= 0.5, "one stream: its readers need not wait"
        assert received[0] == f"id: {fed.edge.replica.cursor('w1')}"
        assert received[1] == "event: snapshot"
        assert set(json.loads(received[2].removeprefix("data: "))) == {
            "items", "counts", "activity", "cursor", "drafts", "preferences"}


async def test_a_stream_names_its_interval_of_heartbeats(direct: bool) -> None:
    fed = Fed(heartbeat_seconds=75.5)
    async with serving(fed.edge, direct) as base, httpx.AsyncClient(timeout=10) as client:
        for path in ("/org/me/feed", "/events/stream"):
            async with client.stream("GET", base + path, headers=bearer()) as answer:
                assert float(answer.headers["attn-heartbeat"]) == 75.5
                assert "date" in answer.headers, "readers estimate the server's clock before the first heartbeat"


async def test_the_end_of_a_stream_closes_its_connection() -> None:
    fed = Fed()
    async with serving(fed.edge) as base:
        reader, writer = await raw_stream(base)
        await until(lambda: len(fed.edge.connections) == 1)
        for slot in fed.edge.connections._slots:
            for stream in list(slot):
                stream.sink.end()
        rest = await asyncio.wait_for(reader.read(), 30)
        assert rest.endswith(b"\r\n0\r\n\r\n")
        assert len(fed.edge.connections) == 0
        writer.close()


async def test_an_edge_that_stops_ends_its_streams_one_after_the_other(direct: bool) -> None:
    fed = Fed()
    async with serving(fed.edge, direct) as base:
        clients = [Client(base, who=(f"user{number}", "OWNER")) for number in range(12)]
        await until(lambda: all(client.frames for client in clients), 60)
        ended_counts: list[int] = []
        drain = asyncio.create_task(fed.edge.connections.drain(60))
        while not drain.done():
            ended_counts.append(sum(client.task.done() for client in clients))
            await asyncio.sleep(0)
        for client in clients:
            await client.ended()
        assert len(set(ended_counts)) > 3, "streams end one after the other"
        late = [line async for line in lines(base, "/org/me/feed")]
        assert [line.partition(":")[0] for line in late] == ["retry"], "the stream has only the delay of the reconnect"
        async with httpx.AsyncClient(base_url=base) as client:
            answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, "the edge stops")


async def test_slots_are_released_after_any_end_of_a_stream(direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Fed()

    def broken(*_: Any) -> Any:
        raise RuntimeError("of the test")

    async with serving(fed.edge, direct) as base:
        with monkeypatch.context() as patched, capture_logs():  # formatting a coloured traceback takes seconds
            patched.setattr(fed.edge.feed_hub, "open", broken)
            client = Client(base)
            with pytest.raises(httpx.TransportError):
                await client.ended()
        assert not fed.edge.connections._users
        fed.edge.connections.close()
        late = Client(base)
        await late.ended()
        assert [event for _, event, _ in late.frames] in ([], ["snapshot"])
        await until(lambda: not fed.edge.connections._users)
        assert len(fed.edge.connections) == 0


async def test_a_pipelined_request_gets_no_response_inside_a_stream(direct: bool) -> None:
    fed = Fed()
    async with serving(fed.edge, direct) as base:
        reader, writer = await raw_stream(base)
        await until(lambda: len(fed.edge.connections) == 1)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        fed.put(item())
        received = b""
        while b"event: added" not in received:
            received += await asyncio.wait_for(reader.read(1 << 16), 30)
        assert b"HTTP/1.1" not in received
        writer.close()
