"""A revoked session, key, role or token ends open feeds, sockets and long polls on every edge (CONTRACT §9)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.edge.edges import bearer, serving
from support.edge.sessions import cookie_of, signed_in
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api.http.auth.sessions import change_session, system_fields
from schemas.log import ChangeSession

SECONDS = 60.0  # far above the 10 s of the contract, for a busy machine
YEARS = 10 * 365 * 86400
Ended = Callable[[], Awaitable[str]]


@asynccontextmanager
async def feed(base: str, headers: dict[str, str], path: str = "/org/me/feed") -> AsyncIterator[Ended]:
    """Opens a stream. Yields a function that returns its whole text once the stream has ended."""
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client, \
            client.stream("GET", base + path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        parts = response.aiter_text()
        begin = await anext(parts)

        async def ended() -> str:
            text = begin
            async with asyncio.timeout(SECONDS):
                async for part in parts:
                    text += part
            return text

        yield ended


@asynccontextmanager
async def socket(base: str, headers: dict[str, str]) -> AsyncIterator[Ended]:
    """Opens a WebSocket with the session cookie and subscribes. Yields a function that returns the last error."""
    url = base.replace("http", "ws") + "/api/v1/ws"
    async with connect(url, additional_headers=headers, proxy=None) as ws:
        if "cookie" not in headers:
            await ws.send(json.dumps({"type": "auth", "token": headers["authorization"].removeprefix("Bearer ")}))
        assert json.loads(await ws.recv())["type"] == "authenticated"
        await ws.send(json.dumps({"type": "subscribe", "channel": f"workspace:{WS}"}))
        assert json.loads(await ws.recv())["type"] == "subscribed"

        async def ended() -> str:
            messages = []
            async with asyncio.timeout(SECONDS):
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        messages.append(json.loads(await ws.recv()))
            assert ws.close_code == 4401, messages
            return str(messages[-1]["error"])

        yield ended


async def end_by_user(attn: Deciding, opened: Any) -> None:
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.delete("/org/me/sessions")).status_code == 200


async def end_by_administrator(attn: Deciding, opened: Any) -> None:
    async with attn.client("root", "ADMIN") as client:
        assert (await client.delete("/org/users/ann/sessions")).status_code == 200


async def sign_out(attn: Deciding, opened: Any) -> None:
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.delete("/auth/session")).status_code == 204


async def change_role(attn: Deciding, opened: Any) -> None:
    await change_session(attn.edges[0], opened.id, WS, role="VIEWER")


async def one_too_many(attn: Deciding, opened: Any) -> None:
    for _ in range(attn.settings.max_sessions):
        await signed_in(attn)


@pytest.mark.parametrize("take_away", [end_by_user, end_by_administrator, sign_out, change_role, one_too_many])
async def test_the_streams_of_a_session_end_on_every_edge(take_away: Callable[..., Awaitable[None]]) -> None:
    attn = Deciding(edges=2, max_sessions=2)
    attn.happen(message("m"), waitpoint("w", case_id="c"))
    opened, other = await signed_in(attn), await signed_in(attn, "bob")
    async with AsyncExitStack() as stack:
        bases = [await stack.enter_async_context(serving(edge)) for edge in attn.edges]
        ending, others = [], []
        for base in bases:
            headers = cookie_of(opened)
            ending += [await stack.enter_async_context(stream) for stream in (
                feed(base, headers), feed(base, headers, "/events/stream"), feed(base, headers, "/cases/c/events"),
                socket(base, headers))]
            others.append(await stack.enter_async_context(feed(base, cookie_of(other))))
        assert [len(edge.access_watch) for edge in attn.edges] == [5, 5]
        await take_away(attn, opened)
        for ended in ending:
            await ended()
        assert [len(edge.access_watch) for edge in attn.edges] == [1, 1], "the streams of the other user stay open"
        attn.happen(message("later"))


async def test_no_frame_of_the_batch_that_revokes_a_role_is_sent() -> None:
    attn = Deciding()
    opened = await signed_in(attn, "ann", "OWNER")
    async with serving(attn.edges[0]) as base, feed(base, cookie_of(opened)) as ended:
        change = ChangeSession(**system_fields(attn.edges[0], WS, "attn"), session=opened.id, role="VIEWER")
        attn.happen(message("secret", target_role="OWNER"), change, message("secret too", target_role="OWNER"))
        assert "secret" not in await ended()
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.get("/org/me/inbox")).json()["items"] == []


async def test_the_streams_of_a_token_end_when_it_is_revoked() -> None:
    attn = Deciding(edges=2)
    attn.happen(message("m"))
    own = bearer("ann", "MEMBER", ws=WS, seconds=YEARS, jti="t1", iat=attn.now - 60)
    other = bearer("ann", "MEMBER", ws=WS, seconds=YEARS, jti="t2", iat=attn.now - 60)
    later = bearer("ann", "MEMBER", ws=WS, seconds=YEARS, iat=attn.now + 60)
    async with AsyncExitStack() as stack:
        bases = [await stack.enter_async_context(serving(edge)) for edge in attn.edges]
        streams = {name: [await stack.enter_async_context(kind(base, headers)) for base in bases
                          for kind in (feed, socket)] for name, headers in (("own", own), ("other", other))}
        kept = [await stack.enter_async_context(feed(base, later)) for base in bases]
        async with attn.client("root", "OWNER") as client:
            assert (await client.post("/org/tokens/revoke", json={"jti": "t1"})).status_code == 200
            for ended in streams["own"]:
                await ended()
            assert [len(edge.access_watch) for edge in attn.edges] == [3, 3]
            assert (await client.post("/org/tokens/revoke", json={"sub": "ann"})).status_code == 200
            for ended in streams["other"]:
                await ended()
            assert [len(edge.access_watch) for edge in attn.edges] == [1, 1], (
                "the stream of the token that was issued later stays open")
    assert len(kept) == 2
    for headers, wanted in ((own, 401), (other, 401), (later, 200), (bearer("ann", ws=WS, seconds=YEARS), 401)):
        async with attn.client(headers=headers, edge=1) as client:
            assert (await client.get("/org/me")).status_code == wanted


@pytest.mark.parametrize("path", ["/org/me/decisions", "/api/v1/inbox"])
async def test_long_polls_of_a_key_and_of_a_session_end_with_401(path: str) -> None:
    attn = Deciding(edges=2)
    opened = await signed_in(attn)
    async with attn.client("root", "OWNER") as client:
        made = (await client.post("/org/me/keys", json={"name": "CI", "topics": ["plans"]})).json()

        async def poll(headers: dict[str, str], edge: int) -> int:
            async with attn.client(headers=headers, edge=edge) as own:
                tag = (await own.get(path)).headers["etag"]
                answer = await own.get(path, headers={"if-none-match": tag, "prefer": "wait=30"})
                return answer.status_code

        polls = [asyncio.create_task(poll(headers, edge)) for edge in (0, 1) for headers in (
            {"authorization": f"Bearer {made['secret']}"}, cookie_of(opened))]
        async with asyncio.timeout(SECONDS):
            while [len(edge.access_watch) for edge in attn.edges] != [2, 2]:
                await asyncio.sleep(0.01)
        assert (await client.delete(f"/org/me/keys/{made['key']['id']}")).status_code == 200
        assert (await client.delete("/org/users/ann/sessions")).status_code == 200
    assert await asyncio.gather(*polls) == [401, 401, 401, 401]


async def test_a_stream_ends_when_its_session_expires_and_counts_as_use_until_then() -> None:
    attn = Deciding(session_idle_hours=1, session_days=0.5)
    opened, idle = await signed_in(attn), await signed_in(attn)
    async with serving(attn.edges[0]) as base, feed(base, cookie_of(opened)) as ended:
        for _ in range(11):
            attn.now += 3600
            await attn.edges[0].access_watch.sweep()
            await asyncio.sleep(0.01)
            assert len(attn.edges[0].access_watch) == 1
        async with attn.client(headers=cookie_of(opened)) as client:
            assert (await client.get("/org/me")).status_code == 200
        async with attn.client(headers=cookie_of(idle)) as client:
            assert (await client.get("/org/me")).status_code == 401
        attn.now += 3600
        await attn.edges[0].access_watch.sweep()
        await ended()


async def test_a_stream_that_opens_while_its_session_ends_does_not_stay() -> None:
    attn = Deciding()
    opened = await signed_in(attn)
    edge = attn.edges[0]
    async with serving(edge) as base:
        allow, real = asyncio.Event(), edge.connections.opening_turn

        @asynccontextmanager
        async def slow() -> AsyncIterator[None]:
            await allow.wait()
            async with real():
                yield

        edge.connections.opening_turn = slow  # type: ignore[method-assign]

        async def read() -> str:
            async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
                return (await client.get(base + "/org/me/feed", headers=cookie_of(opened))).text

        reading = asyncio.create_task(read())
        async with asyncio.timeout(SECONDS):
            while not edge.connections._users:
                await asyncio.sleep(0.01)
            await end_by_administrator(attn, opened)
            allow.set()
            await reading
    assert len(edge.access_watch) == len(edge.connections) == 0


async def test_limits_of_streams_count_per_user_with_any_credentials() -> None:
    attn = Deciding(max_streams=2)
    attn.happen(message("m"))
    first, second = await signed_in(attn), await signed_in(attn)
    async with serving(attn.edges[0]) as base, feed(base, cookie_of(first)), feed(base, cookie_of(second)):
        for headers in (cookie_of(first), bearer("ann", "MEMBER", ws=WS, seconds=YEARS)):
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(base + "/org/me/feed", headers=headers)
                assert (answer.status_code, answer.json()["limit"]) == (429, 2)


async def test_writes_and_events_are_limited_per_user_over_all_sessions() -> None:
    attn = Deciding(write_burst=3, write_rate=0.001)
    sessions = [await signed_in(attn) for _ in range(3)]
    answers = []
    for opened in sessions * 2:
        async with attn.client(headers=cookie_of(opened)) as client:
            answers.append((await client.patch("/org/me/preferences", json={"pinned_clusters": []})).status_code)
    assert answers == [200, 200, 200, 429, 429, 429]
