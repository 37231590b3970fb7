"""The push `inbox.updated` over a real socket (C28-C30 of seeds/crewship.md) and the WebSocket rules of CONTRACT."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from support.edge.edge_with_fold import Deciding, message, waitpoint
from support.edge.edges import serving, token
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streams.core.domain.keys import item_id

M, W, OWNERS = item_id("ws", "message", "m"), item_id("ws", "waitpoint", "w"), item_id("ws", "message", "o")
CHANNEL = "workspace:ws"
YEARS = 10 * 365 * 86400


def own_token(user: str = "ann", role: str = "OWNER", ws: str = "ws", **more: Any) -> str:
    return token(user, role, ws=ws, **{"seconds": YEARS, **more})


@asynccontextmanager
async def attn(**more: Any) -> AsyncIterator[tuple[Deciding, str]]:
    deciding = Deciding(edges=2, **more)
    deciding.happen(message("m"), waitpoint("w"), message("o", target_role="OWNER"))
    async with serving(deciding.edges[0]) as url:
        yield deciding, url.replace("http", "ws") + "/api/v1/ws"


async def request(socket: ClientConnection, **message_fields: Any) -> Any:
    await socket.send(json.dumps(message_fields))
    return await receive(socket)


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


@asynccontextmanager
async def subscribed(url: str, *args: Any, **more: Any) -> AsyncIterator[ClientConnection]:
    async with connect(url) as socket:
        assert (await request(socket, type="auth", token=own_token(*args, **more)))["type"] == "authenticated"
        assert await request(socket, type="subscribe", channel=CHANNEL) == {"type": "subscribed", "channel": CHANNEL}
        yield socket


async def check_no_push(socket: ClientConnection) -> None:
    """Checks that nothing was pushed: the next message is the answer to a ping."""
    assert await request(socket, type="ping") == {"type": "pong"}


async def test_c28_each_patch_is_pushed_to_readers_of_the_item() -> None:
    async with (
        attn() as (log, url), subscribed(url) as owner, subscribed(url, "bob", "MEMBER") as member,
        log.client("cyd", "OWNER", edge=1) as client,  # the write is sent to the other edge
    ):
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})
        pushed = {"type": "inbox.updated", "channel": CHANNEL, "payload": {"id": M, "state": "read"}}
        assert await receive(owner) == await receive(member) == pushed
        await client.patch(f"/api/v1/inbox/{OWNERS}", json={"state": "resolved"})
        assert (await receive(owner))["payload"] == {"id": OWNERS, "state": "resolved"}
        await check_no_push(member)
        assert (await client.patch(f"/api/v1/inbox/{W}", json={"state": "resolved"})).status_code == 409
        await client.post(f"/org/me/inbox/{M}/dismiss")
        await check_no_push(owner)


async def test_c29_a_bulk_that_changes_a_visible_item_is_pushed_once() -> None:
    async with (
        attn() as (log, url), subscribed(url) as owner, subscribed(url, "bob", "MEMBER") as member,
        log.client("cyd", "OWNER") as client,
    ):
        async def bulk(*ids: str, state: str = "resolved") -> None:
            await client.post("/api/v1/inbox/bulk", json={"ids": ids, "state": state})

        await bulk(M, OWNERS, W)
        pushed = {"type": "inbox.updated", "channel": CHANNEL, "payload": {"bulk": "true", "state": "resolved"}}
        assert await receive(owner) == await receive(member) == pushed
        await bulk(W, "ibx_none")
        await check_no_push(owner)
        await bulk(OWNERS, state="read")
        assert (await receive(owner))["payload"] == {"bulk": "true", "state": "read"}
        await check_no_push(member)


async def test_c30_a_read_after_a_push_returns_the_change() -> None:
    async with attn() as (log, url), subscribed(url) as owner, log.client("cyd") as client:
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "resolved"})
        await receive(owner)
        assert (await client.get("/api/v1/inbox/count")).json() == {"unread_count": 2}


async def test_authentication_comes_first_and_is_checked() -> None:
    async with attn() as (_, url):
        for first in ({"type": "subscribe", "channel": CHANNEL}, {"type": "ping"}, {"type": "auth", "token": "x"},
                      {"type": "auth", "token": own_token(seconds=-(10**9))}):
            async with connect(url) as socket:
                assert (await request(socket, **first))["type"] == "error"
                assert await ended(socket) == 4401


async def test_the_cookie_authenticates_only_from_the_own_origin() -> None:
    async with attn(websocket_origins={"https://app.example"}) as (_, url):
        host = url.split("/")[2]
        cookie = {"cookie": f"attn_session={own_token()}"}
        for origin in (f"http://{host}", "https://app.example"):
            async with connect(url, additional_headers=cookie, origin=origin) as socket:
                assert (await receive(socket))["type"] == "authenticated"
                assert (await request(socket, type="subscribe", channel=CHANNEL))["type"] == "subscribed"
        for origin in ("https://evil.example", "null", f"http://{host}.evil.example"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=cookie, origin=origin)
            assert refused.value.response.status_code == 403


async def test_a_channel_of_another_workspace_is_rejected() -> None:
    async with attn() as (log, url), connect(url) as socket:
        await request(socket, type="auth", token=own_token("eve", ws="other"))
        for channel in (CHANNEL, "workspace:none", "", "ws"):
            assert await request(socket, type="subscribe", channel=channel) == {
                "type": "error", "error": "no such channel", "channel": channel}
        async with log.client("cyd") as client:
            await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})
        await check_no_push(socket)


async def test_an_invalid_message_is_answered_with_an_error_and_an_oversized_one_closes_the_socket() -> None:
    async with attn(socket_message=1024) as (_, url), subscribed(url) as socket:
        for raw in ("{", "[]", '{"type":"shout"}', '{"type":"ping","x":1}', '{"type":"subscribe"}', "\x00"):
            await socket.send(raw)
            assert (await receive(socket))["type"] == "error"
        await check_no_push(socket)
        await socket.send("x" * 2000)
        assert (await receive(socket))["type"] == "error"
        assert await ended(socket) == 1009


async def test_a_client_that_sends_too_much_is_disconnected() -> None:
    async with attn(socket_rate=0.1) as (_, url), subscribed(url) as socket:
        with suppress(ConnectionClosed):
            for _ in range(60):
                await socket.send('{"type":"ping"}')
        assert await ended(socket) == 1008


async def test_sockets_count_as_live_connections() -> None:
    async with attn(max_streams=2) as (_, url):
        async with subscribed(url), subscribed(url):
            async with connect(url) as third:
                await request(third, type="auth", token=own_token())
                assert (await receive(third))["limit"] == 2
            async with connect(url) as other:
                assert (await request(other, type="auth", token=own_token("bob")))["type"] == "authenticated"
        async with subscribed(url):
            pass


async def ended(socket: ClientConnection) -> int:
    """Reads messages until the socket is closed. Returns the close code."""
    with pytest.raises(ConnectionClosed) as closed:
        [await receive(socket) for _ in range(100)]
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_a_socket_is_closed_when_its_token_expires() -> None:
    async with attn() as (log, url):
        log.now = time.time()  # the tokens of this test have real times
        async with connect(url) as socket:
            await request(socket, type="auth", token=token("ann", "OWNER", ws="ws", seconds=2))
            assert await ended(socket) == 4401


async def test_a_client_that_never_reads_costs_little_and_is_disconnected() -> None:
    async with attn() as (log, url), subscribed(url) as socket, log.client("cyd") as client:
        edge = log.edges[0]
        [subscriber] = edge.notifications._subscribers["ws"]
        subscriber.waiting.put_nowait = _full  # type: ignore[method-assign]
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})
        assert await ended(socket) == 1013
        assert not edge.notifications._subscribers


def _full(_: bytes) -> None:
    raise asyncio.QueueFull
